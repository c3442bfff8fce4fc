/**
 * One task: know that everything the serving side had committed by now is visible on the other side.
 *
 * The marker is a row of `cutover.marker`, which every stream carries, as in the pause; the rows of a comparison are seals of epoch 0,
 * which no epoch has (a kind of its own would be refused by a record that an earlier version made, and stop its apply worker).
 */
import { setTimeout as delay } from 'node:timers/promises';
import { CutoverError } from '../../errors/errors.js';
import type { Connection } from '../connection.js';
import type { Passage } from './confirm.js';

const POLL_FIRST_MS = 1;
const POLL_LAST_MS = 100;
/** A destination that is further behind is no time for a comparison: it is tried again. */
const PASS_DEADLINE_MS = 60_000;
/** A pause holds the fence for as long as a cutover takes. */
const OPEN_DEADLINE_MS = 30_000;

/** Whose markers they are: those that a stream carries where a side has several shards. */
interface MarkersOf {
  /** the system identifier of the side that serves */
  readonly cluster: string;
  readonly shard: number;
}

export class Markers implements Passage {
  /** what stood there before the first marker is here after it; what was deleted there before the second is gone here after it */
  readonly rounds = 2;
  readonly holds = true;
  readonly #serving: Connection;
  readonly #other: Connection;
  readonly #of: MarkersOf;
  readonly #run: string;
  #count = 0;

  /**
   * @param serving a connection that may write
   * @param run names these markers for good: no two are equal
   */
  constructor(serving: Connection, other: Connection, of: MarkersOf, run: string) {
    this.#serving = serving;
    this.#other = other;
    this.#of = of;
    this.#run = run;
  }

  /**
   * Writes a marker and waits until it is visible on the other side.
   *
   * @throws CutoverError `verify_refused` when this side does not serve any more, `parity_timeout` when it did not arrive
   */
  async pass(): Promise<void> {
    this.#count++;
    const nonce = `verify/${this.#run}/${this.#count.toString()}`;
    await this.#write(nonce);
    const end = performance.now() + PASS_DEADLINE_MS;
    for (let wait = POLL_FIRST_MS; ; wait = Math.min(2 * wait, POLL_LAST_MS)) {
      if (await this.#arrived(nonce)) return;
      if (performance.now() >= end)
        throw new CutoverError('parity_timeout', { waitedMs: PASS_DEADLINE_MS, missing: 'marker not applied' });
      await delay(wait);
    }
  }

  /** Only while this side serves: a marker of the side that does not would travel against the stream, or not at all. */
  async #write(nonce: string): Promise<void> {
    const end = performance.now() + OPEN_DEADLINE_MS;
    for (;;) {
      const { rows } = await this.#serving.query(
        `INSERT INTO cutover.marker (cluster, shard, epoch, nonce, kind)
         SELECT $1, $3, 0, $2, 'seal' FROM cutover.fence WHERE state = 'open' RETURNING nonce`,
        [this.#of.cluster, nonce, this.#of.shard],
      );
      if (rows.length > 0) return;
      if (performance.now() >= end)
        throw new CutoverError('verify_refused', { problem: 'the traffic has moved meanwhile' });
      await delay(POLL_LAST_MS);
    }
  }

  async #arrived(nonce: string): Promise<boolean> {
    const { rows } = await this.#other.query({
      name: 'cutover_verify_marker',
      text: `SELECT FROM cutover.marker WHERE cluster = $1 AND shard = $3 AND epoch = 0 AND nonce = $2 AND kind = 'seal'`,
      values: [this.#of.cluster, nonce, this.#of.shard],
    });
    return rows.length > 0;
  }
}
