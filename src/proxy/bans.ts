/** One task: remember which replicas get no reads, why, and for how long. */
import type { BanStatus } from './contract.js';
import type { Pool } from './pool.js';

interface Ban {
  readonly reason: string;
  /** by the monotonic clock; null: until it is lifted */
  readonly untilMs: number | null;
}

/** Bans belong to pools, so that they outlive a RELOAD and a swap of names. */
export class Bans {
  readonly #bans = new WeakMap<Pool, Ban>();

  /** @param timeoutMs null: until it is lifted; may be called again, and the latest one counts */
  ban(pool: Pool, reason: string, timeoutMs: number | null): void {
    const untilMs = timeoutMs === null ? null : performance.now() + timeoutMs;
    this.#bans.set(pool, { reason, untilMs });
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
