/** One task: remember which replicas get no reads, why, and for how long. */
import type { BanStatus } from './contract.js';
import type { Pool } from './pool.js';

/** `watched`: of a server that is seen to be unfit; lifted as soon as it is seen to be fit again. */
type Cause = 'failed' | 'by hand' | 'watched';

interface Ban {
  readonly cause: Cause;
  readonly reason: string;
  /** by the monotonic clock; null: until it is lifted */
  readonly untilMs: number | null;
}

/** Bans belong to pools, so that they outlive a RELOAD and a swap of names. */
export class Bans {
  readonly #bans = new WeakMap<Pool, Ban>();

  /** May be called again, and the latest one counts. */
  failed(pool: Pool, reason: string, timeoutMs: number): void {
    this.#bans.set(pool, { cause: 'failed', reason, untilMs: performance.now() + timeoutMs });
  }

  /** Until it is lifted. */
  byHand(pool: Pool): void {
    this.#bans.set(pool, { cause: 'by hand', reason: 'banned by hand', untilMs: null });
  }

  /** What a look at the server has found. Bans of another cause stay. @param reason null: it is fit */
  watched(pool: Pool, reason: string | null): void {
    const present = this.of(pool) === null ? null : this.#bans.get(pool);
    if (present !== null && present?.cause !== 'watched') return;
    if (reason === null) this.#bans.delete(pool);
    else this.#bans.set(pool, { cause: 'watched', reason, untilMs: null });
  }

  /** Nothing happens when there is none. */
  lift(pool: Pool): void {
    this.#bans.delete(pool);
  }

  has(pool: Pool): boolean {
    return this.of(pool) !== null;
  }

  /** The ban in force; null for none. */
  of(pool: Pool): BanStatus | null {
    const ban = this.#bans.get(pool);
    if (ban === undefined) return null;
    const { reason, untilMs } = ban;
    const leftMs = untilMs === null ? null : untilMs - performance.now();
    if (leftMs === null || leftMs > 0) return { reason, leftMs };
    this.#bans.delete(pool);
    return null;
  }
}
