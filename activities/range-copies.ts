/** One task: run the range copies of a migration, one for each shard of the destination that needs it, beside everything else that copies. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Migration } from '../src/cutover/contract.js';
import { shardsOf } from '../src/cutover/side.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import type { EngineContext } from './context.js';
import type { Alarm } from './limits.js';
import { RangeCopy, type Pace } from './range-copy.js';
import { streamsTo, type Stream } from './stream-ends.js';

const TOLD_MAX = 20;

export class RangeCopies {
  readonly #alarm: Alarm;
  readonly #stop = new AbortController();
  /** by the number of the shard; taken out when it is done */
  readonly #pending = new Map<number, RangeCopy>();
  readonly #works: Promise<void>[] = [];
  /** each trouble is told once */
  readonly #told = new Set<string>();
  #failure: { readonly error: unknown } | null = null;

  private constructor(alarm: Alarm) {
    this.#alarm = alarm;
  }

  /** Begins all of them; where there are none nothing is done, now and later. */
  static async start(
    context: EngineContext,
    migration: Migration,
    { alarm, stallMs }: { readonly alarm: Alarm; readonly stallMs: number },
  ): Promise<RangeCopies> {
    const copies = new RangeCopies(alarm);
    const pace = paceOf(context.config().cutover.copyBytesPerSecond);
    for (const shard of shardsOf(migration.destination).keys()) {
      const streams = streamsTo(migration, 'forward', shard);
      const copy = await RangeCopy.of(context, migration, streams, { alarm, pace, stallMs });
      if (copy) copies.#pending.set(shard, copy);
    }
    // Only now: a shard that cannot be looked at must not leave another one's copy to itself.
    for (const [shard, copy] of copies.#pending) copies.#works.push(copies.#run(shard, copy));
    return copies;
  }

  async #run(shard: number, copy: RangeCopy): Promise<void> {
    try {
      await copy.copy(this.#stop.signal);
      this.#pending.delete(shard);
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** The copy that a stream waits for; null when it runs. */
  of(stream: Stream): RangeCopy | null {
    return this.#pending.get(stream.to) ?? null;
  }

  /**
   * Work on streams that run already: while ranges are copied, a server that does not answer is passed over, since an end of the whole would
   * take their snapshots away.
   *
   * @throws what a range copy has failed with
   */
  async patiently(work: () => Promise<void>): Promise<void> {
    if (this.#failure) throw this.#failure.error;
    try {
      await work();
    } catch (error) {
      if (this.#pending.size === 0 || error instanceof CutoverError) throw error;
      const problem = messageOf(error);
      if (this.#told.has(problem) || this.#told.size >= TOLD_MAX) return;
      this.#told.add(problem);
      this.#alarm(`passed over while ranges are copied: ${problem}`);
    }
  }

  /** Gives up those that are not done, and waits until nothing of them works any more. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('the copy has ended'));
    await Promise.all(this.#works);
  }
}

/** No limit where there is none. */
function paceOf(bytesPerSecond: number | null): Pace {
  if (bytesPerSecond === null) return () => Promise.resolve();
  const start = performance.now();
  let bytes = 0;
  return async (more, stopped) => {
    bytes += more;
    const aheadMs = start + (bytes / bytesPerSecond) * 1000 - performance.now();
    if (aheadMs > 0) await delay(aheadMs, undefined, { signal: stopped });
  };
}
