/**
 * One task: tell which servers can be reached, and ask those of which nobody knows.
 *
 * A server to which a connection is open counts as reached. Others are asked only when somebody wants to know whether anything can be
 * served at all: without that, a proxy that a load balancer has taken out would never hear that its servers are back.
 */
import type { ReachedServer } from './contract.js';
import type { Pool } from './pool.js';
import { COORDINATOR, type Routes } from './routes.js';

/** Of one server; the password of one user may be wrong, hardly those of three. */
const POOLS_ASKED_MAX = 3;
const ANSWER_TIMEOUT_MS = 2_000;
/** However often a load balancer asks. */
const ASK_AGAIN_MS = 1_000;

export class Reach {
  readonly #routes: Routes;
  #asking: Promise<void> | null = null;
  #askedAtMs = -Infinity;

  constructor(routes: Routes) {
    this.#routes = routes;
  }

  /** What is known of each shard of each database; asks nobody. */
  servers(): readonly ReachedServer[] {
    return this.#byServer().map(([first, ...others]) => {
      const pools = [first, ...others];
      const { label, options } = first;
      const reached = pools.some((pool) => pool.serverCount > 0);
      const problem = reached ? null : (pools.find((pool) => pool.failure !== null)?.failure ?? null);
      return {
        database: label.database,
        shard: label.shard,
        host: options.endpoint.host,
        port: options.endpoint.port,
        state: reached ? 'reached' : problem === null ? 'unknown' : 'unreachable',
        problem,
      };
    });
  }

  /** Asks every server to which no connection is open, for a bounded time; what they say is in `servers()`. Never rejects. */
  async ask(): Promise<void> {
    if (this.#asking === null && performance.now() - this.#askedAtMs < ASK_AGAIN_MS) return;
    this.#asking ??= this.#askAll().finally(() => {
      this.#askedAtMs = performance.now();
      this.#asking = null;
    });
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<void>((resolve) => (timer = setTimeout(resolve, ANSWER_TIMEOUT_MS)));
    await Promise.race([this.#asking, tooLong]);
    clearTimeout(timer);
  }

  async #askAll(): Promise<void> {
    const silent = this.#byServer().filter((pools) => pools.every((pool) => pool.serverCount === 0));
    const asked = silent.flatMap((pools) => pools.slice(0, POOLS_ASKED_MAX).map((pool) => pool.fill(1)));
    await Promise.allSettled(asked);
  }

  #byServer(): readonly (readonly [Pool, ...Pool[]])[] {
    const servers = new Map<string, [Pool, ...Pool[]]>();
    for (const pool of this.#routes.pools) {
      const { database, shard, role } = pool.label;
      // Without its primary a database is not served, whoever answers some of its reads.
      if (shard === COORDINATOR || role === 'replica') continue;
      const key = JSON.stringify([database, shard]);
      const pools = servers.get(key);
      if (pools === undefined) servers.set(key, [pool]);
      else pools.push(pool);
    }
    return [...servers.values()];
  }
}
