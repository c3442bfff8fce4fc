/** One task: keep what each pool needs to share reads, as long as the pool is there; it stays through a swap of names, as the pool does. */
import type { Config } from '../../config/config.js';
import type { Pool } from '../pool.js';
import type { StatementCache } from '../statement-cache.js';
import { PoolLanes } from './pool-lanes.js';

export class Pipelining {
  readonly #pools = new WeakMap<Pool, PoolLanes>();
  #on: boolean;

  readonly #statements: StatementCache;

  constructor({ general }: Pick<Config, 'general'>, statements: StatementCache) {
    this.#statements = statements;
    this.#on = general.pipelining === 'auto';
  }

  /** Puts a configuration into force; what is under way is answered. */
  apply({ general }: Pick<Config, 'general'>): void {
    this.#on = general.pipelining === 'auto';
  }

  /** Null: reads of this pool are not shared. */
  lanesOf(pool: Pool): PoolLanes | null {
    // With keys in the place of a password nobody but the pool can log in, to ask what the catalogue says.
    if (!this.#on || pool.retired || pool.options.endpoint.keys !== undefined) return null;
    let lanes = this.#pools.get(pool);
    if (lanes === undefined) this.#pools.set(pool, (lanes = new PoolLanes(pool, this.#statements)));
    return lanes;
  }
}
