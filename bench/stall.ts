/** One task: measure what 8 writers notice of a cutover and of a rollback. */
export interface StallOptions {
  readonly runs: number;
  readonly writers: number;
  readonly tables: number;
  readonly rows: number;
  readonly from: number;
  readonly to: number;
  readonly thinkMs: number;
}
export function stall(_: StallOptions): Promise<number> {
  return Promise.reject(new Error('not yet'));
}
