/** One task: run statements of the proxy's own on a server connection that no client has. */
import type { ServerConnection, ServerOwner } from './server-connection.js';

/**
 * Runs one text within a bounded time; a server that takes longer is destroyed. Nobody else may have the connection meanwhile.
 *
 * @param done called once, with the server's ErrorResponse or with null where all went well; the connection has no owner then
 */
export function runErrand(
  server: ServerConnection,
  sql: string,
  timeoutMs: number,
  done: (failure: Buffer | null) => void,
): void {
  // Being lost is an answer too.
  server.owner = new Errand((failure) => {
    server.owner = null;
    done(failure);
  });
  server.setup(sql, timeoutMs);
}

/** Owns a connection while a statement of the proxy's own runs on it and nobody reads along. */
export class Errand implements ServerOwner {
  readonly id = 0;
  readonly #done: (failure: Buffer | null) => void;

  constructor(done: (failure: Buffer | null) => void) {
    this.#done = done;
  }

  setupDone(failure: Buffer | null): void {
    this.#done(failure);
  }

  lost(): void {
    this.#done(Buffer.alloc(0));
  }

  deliver(_bytes: Buffer): void {
    // Nobody reads it.
  }

  settled(): void {
    // Only setup statements run here.
  }

  refused(): void {
    // Nothing is watched for.
  }

  sessionChanged(): void {
    // No session is concerned.
  }

  clientNameOf(): undefined {
    return undefined;
  }

  writable(): void {
    // A single statement fits.
  }
}
