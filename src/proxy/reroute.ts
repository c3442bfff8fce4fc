/** One task: ask the record, for a session whose statement the fence has refused, which side serves; a bounded number of times. */
import { messageOf } from '../errors/errors.js';
import type { SessionContext } from './session-context.js';

const REROUTES_MAX = 3;

export class Reroute {
  /** refusals since a statement was answered */
  #count = 0;
  readonly #context: SessionContext;
  readonly #session: { readonly id: number; readonly database: string };

  constructor(session: { readonly id: number; readonly database: string }, context: SessionContext) {
    this.#session = session;
    this.#context = context;
  }

  /** There is somebody to ask, and it was not asked too often. */
  get possible(): boolean {
    return this.#context.hooks !== undefined && this.#count < REROUTES_MAX;
  }

  /** A statement was answered. */
  answered(): void {
    this.#count = 0;
  }

  /** Never rejects. @returns false where nobody could say */
  async ask(): Promise<boolean> {
    const { hooks, logger } = this.#context;
    const { id, database } = this.#session;
    this.#count += 1;
    try {
      await hooks?.onFenceRefusal(database);
      return true;
    } catch (error) {
      logger.warn({ client: id, database }, `not routed anew: ${messageOf(error)}`);
      return false;
    }
  }
}
