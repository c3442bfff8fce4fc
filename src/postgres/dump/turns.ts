/** One task: go through a long text in turns, so that the clients whose messages pass in the same process wait for none of it. */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Short beside a client's round trip to a server under load. */
const TURN_MS = 2;

/**
 * To be asked in the middle of a long loop, since to wait in each of its steps would take longer than they do:
 *
 *     if (turns.over) await turns.next();
 */
export class Turns {
  #sinceMs = performance.now();

  get over(): boolean {
    return performance.now() - this.#sinceMs > TURN_MS;
  }

  async next(): Promise<void> {
    await nextTurn();
    this.#sinceMs = performance.now();
  }
}
