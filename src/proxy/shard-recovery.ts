/**
 * One task: end what writes on several shards have left prepared when their proxy died: it holds its locks until somebody does.
 *
 * Every proxy looks, of its own accord, at every sharded database; several may find the same.
 */
import { messageOf } from '../errors/errors.js';
import { connect, withConnection, type Connection } from '../postgres/connection.js';
import type { Endpoint } from '../postgres/endpoint.js';
import { ownersLeftBehind, resolveLeftBehind } from '../postgres/two-phase.js';
import type { Logger } from './logger.js';
import type { Routes } from './routes.js';

const LOOK_MS = 5_000;
/** Younger ones may still be at work; to end one of those is safe, and fails its statement. */
const OLDER_THAN_MS = 10_000;
const TIMEOUTS = { connectTimeoutMs: 5_000, queryTimeoutMs: 10_000 };

export class ShardRecovery {
  readonly #routes: Routes;
  readonly #logger: Logger;
  #lookedAtMs = performance.now();
  #looking = false;

  constructor(routes: Routes, logger: Logger) {
    this.#routes = routes;
    this.#logger = logger;
  }

  /** To be called about once a second. */
  sweep(): void {
    if (this.#looking || performance.now() - this.#lookedAtMs < LOOK_MS) return;
    this.#looking = true;
    void this.#look().finally(() => {
      this.#looking = false;
      this.#lookedAtMs = performance.now();
    });
  }

  async #look(): Promise<void> {
    for (const database of this.#routes.sharded) {
      try {
        await this.#lookAt(database);
      } catch (error) {
        this.#logger.warn({ database }, `not looked for what is left prepared: ${messageOf(error)}`);
      }
    }
  }

  async #lookAt(database: string): Promise<void> {
    const users = endpointsOf(this.#routes, database);
    const [anyone] = users;
    if (anyone === undefined) return;
    const owners = new Set<string>();
    for (const endpoint of anyone)
      for (const owner of await withConnection(endpoint, (c) => ownersLeftBehind(c, OLDER_THAN_MS), TIMEOUTS))
        owners.add(owner);
    for (const endpoints of users) {
      if (owners.delete(endpoints[0]?.user ?? '')) await this.#resolve(database, endpoints);
    }
    const problem = 'a transaction is left prepared by a role that no user of the files has';
    for (const owner of owners) this.#logger.error({ database, owner }, problem);
  }

  async #resolve(database: string, endpoints: readonly Endpoint[]): Promise<void> {
    const shards: Connection[] = [];
    try {
      for (const endpoint of endpoints) shards.push(await connect(endpoint, TIMEOUTS));
      for (const [shard, first] of shards.entries()) {
        const others = shards.filter((other) => other !== first);
        const { committed, aborted } = await resolveLeftBehind(shard, first, others, OLDER_THAN_MS);
        if (committed + aborted > 0)
          this.#logger.warn(
            { database, shard: shard },
            `ended what was left prepared: ${committed.toString()} committed, ${aborted.toString()} rolled back`,
          );
      }
    } finally {
      for (const connection of shards) await connection.end().catch(() => undefined);
    }
  }
}

/** Of each user the logins at the shards, in the order of their numbers. */
function endpointsOf(routes: Routes, database: string): readonly (readonly Endpoint[])[] {
  const users = new Set([...routes.ofDatabase(database).keys()].map((key) => (JSON.parse(key) as [string, number])[0]));
  const shards = Array.from({ length: routes.shardsOf(database) }, (_, shard) => shard);
  return [...users].map((user) => shards.map((shard) => routes.of(user, database, shard).pool.options.endpoint));
}
