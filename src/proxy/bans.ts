/** One task: remember which replicas get no reads, why, and for how long. */
import type { Pool } from './pool.js';

export interface Ban {
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

  /** The ban in force; null for none. */
  of(pool: Pool): Ban | null {
    const ban = this.#bans.get(pool) ?? null;
    if (ban === null || (ban.untilMs ?? Infinity) > performance.now()) return ban;
    this.#bans.delete(pool);
    return null;
  }
}
