/**
 * One task: lead each (user, database, shard) to the pool of its target, and keep pools whose target stays the same.
 *
 * A pool belongs to a client user and a target (address, database on the server, role, password), not to a database's name: when
 * names change places in a cutover, the pools stay and the names move.
 */
import type { Config, DatabaseEntry, PoolerMode, UserEntry } from '../config/config.js';
import { shardCount } from '../config/databases.js';
import { readReplicas } from '../config/replicas.js';
import { CutoverError } from '../errors/errors.js';
import { tlsRuleOf } from '../postgres/endpoint.js';
import { coordinatorAt } from '../sharding/coordinator-place.js';
import { Bans } from './bans.js';
import { Pool, type PoolLabel } from './pool.js';
import { poolOptionsOf, type PoolOptions } from './pool-options.js';
import { ReadTexts } from './read-texts.js';
import { isReplica, replicaShard, ReplicaSet } from './replica-set.js';

/** In the place of a shard's number: the database that answers reads over several shards. */
export const COORDINATOR = -1;

export interface Route {
  readonly pool: Pool;
  readonly mode: PoolerMode;
}

export class Routes {
  /** raised by apply(): who remembers a route looks it up again */
  version = 0;
  /** the rows that it leads to, each with the role that its server has */
  databases: readonly DatabaseEntry[] = [];
  readonly bans = new Bans();
  readonly #texts = new ReadTexts();
  #routes = new Map<string, Route>();
  /** number of shards by database */
  #shards = new Map<string, number>();
  /** of databases with replicas, by user and database */
  #replicas = new Map<string, ReplicaSet>();
  #pools = new Map<string, Pool>();
  /** pools whose server has come to be the primary, or is it no longer */
  readonly #changed = new Set<Pool>();
  /** pools no name leads to, until their last connection is closed */
  readonly #leaving = new Set<Pool>();

  constructor(config: Config) {
    this.apply(config);
  }

  get pools(): readonly Pool[] {
    return [...this.#pools.values()];
  }

  /** pools in use and those that are being emptied */
  get allPools(): readonly Pool[] {
    return [...this.#pools.values(), ...this.#leaving];
  }

  /** @throws CutoverError `database_unknown` | `user_missing` */
  of(user: string, database: string, shard = 0): Route {
    const route = this.#routes.get(JSON.stringify([user, database, shard]));
    if (route !== undefined) return route;
    for (const pool of this.#pools.values()) {
      if (pool.label.database === database) throw new CutoverError('user_missing', { user, database });
    }
    throw new CutoverError('database_unknown', { database });
  }

  /** How servers of a database are lent; null: the configuration has lost the user or the database. */
  modeOf(user: string, database: string): PoolerMode | null {
    return this.#routes.get(JSON.stringify([user, database, 0]))?.mode ?? null;
  }

  /** The pool of a shard, 0 for counts; null: the configuration has lost the user or the database. */
  poolOf(user: string, database: string, shard = 0): Pool | null {
    return this.#routes.get(JSON.stringify([user, database, shard]))?.pool ?? null;
  }

  /** What spreads the reads of this user; null: the database has no replicas, or its sessions keep their servers. */
  replicasOf(user: string, database: string): ReplicaSet | null {
    return this.#replicas.get(JSON.stringify([user, database])) ?? null;
  }

  /** Routes of every user to every shard of a database, by user and shard as one text. */
  ofDatabase(database: string): ReadonlyMap<string, Route> {
    const found = new Map<string, Route>();
    for (const [key, route] of this.#routes) {
      const [user, name, shard] = JSON.parse(key) as [string, string, number];
      if (name === database) found.set(JSON.stringify([user, shard]), route);
    }
    return found;
  }

  /** Names of databases with several shards. */
  get sharded(): readonly string[] {
    return [...this.#shards].filter(([, shards]) => shards > 1).map(([name]) => name);
  }

  /** How many shards a database has; 1 for one that is not configured. */
  shardsOf(database: string): number {
    return this.#shards.get(database) ?? 1;
  }

  /** Puts a configuration into force. Pools it no longer leads to are emptied. */
  apply(config: Config): void {
    const pools = new Map<string, Pool>();
    const routes = new Map<string, Route>();
    const replicas = new Map<string, ReplicaSet>();
    const primaries = config.databases.filter((row) => row.role !== 'replica');
    this.#shards = new Map(primaries.map(({ name }) => [name, shardCount(primaries, name)]));
    for (const user of config.users) {
      for (const entry of primaries.filter((row) => row.name === user.database)) {
        const mode = this.#modeOf(config, entry, user);
        const options = { ...poolOptionsOf(config, entry, user), mode };
        const add = (target: PoolOptions, shard: number, row = entry): Pool => {
          const pool = this.#poolFor(pools, poolKey(target, user), target, labelOf(row, user, shard));
          routes.set(JSON.stringify([user.name, user.database, shard]), { pool, mode });
          return pool;
        };
        const primary = { pool: add(options, entry.shard), weight: entry.weight };
        if (entry.shard > 0) continue;
        if (this.shardsOf(entry.name) > 1) {
          add({ ...options, endpoint: coordinatorAt(config, entry.name, options.endpoint) }, COORDINATOR);
          continue;
        }
        const rows = mode === 'session' ? [] : readReplicas(config.databases, entry.name);
        if (rows.length === 0) continue;
        const members = rows.map((row, index) => ({
          pool: add({ ...poolOptionsOf(config, row, user), mode }, replicaShard(index), row),
          weight: row.weight,
        }));
        const shared = { bans: this.bans, texts: this.#texts };
        replicas.set(
          JSON.stringify([user.name, user.database]),
          new ReplicaSet(primary, members, config.replicas, shared),
        );
      }
    }
    this.databases = config.databases;
    const before = this.#pools;
    this.#pools = pools;
    this.#routes = routes;
    this.#replicas = replicas;
    if (replicas.size > 0) void this.#texts.load();
    this.version += 1;
    for (const [key, pool] of before) {
      if (pools.has(key)) continue;
      this.#leaving.add(pool);
      pool.retire();
    }
    // Behind the change of the version, by which they find out that they belong elsewhere.
    for (const pool of this.#changed) pool.sendAway();
    this.#changed.clear();
  }

  /** See {@link Proxy.setBan}. */
  setBan(poolId: number | null, banned: boolean): number {
    const pools = this.pools.filter(({ id, label }) => label.role === 'replica' && (poolId ?? id) === id);
    for (const pool of pools) {
      if (banned) this.bans.byHand(pool);
      else this.bans.lift(pool);
    }
    return pools.length;
  }

  /** To be called about once a second. @param held whether clients of a database are held */
  sweep(held: (database: string) => boolean): void {
    for (const pool of this.#pools.values()) pool.sweep(held(pool.label.database));
    for (const pool of this.#leaving) {
      if (pool.serverCount === 0 && pool.connectingCount === 0) this.#leaving.delete(pool);
    }
  }

  /** Sessions of a sharded database move between servers, so none of these is theirs alone. */
  #modeOf(config: Config, entry: DatabaseEntry, user: UserEntry): PoolerMode {
    if (this.shardsOf(entry.name) > 1) return 'transaction';
    return user.poolerMode ?? entry.poolerMode ?? config.general.poolerMode;
  }

  #poolFor(pools: Map<string, Pool>, key: string, options: PoolOptions, label: PoolLabel): Pool {
    const shared = pools.get(key);
    if (shared !== undefined) return shared;
    const pool = this.#pools.get(key) ?? new Pool(options, label);
    if (pool.options.access !== options.access) {
      this.#changed.add(pool);
      // A server says of itself whether it is a standby, and clients are told at the login.
      pool.parameters = null;
    }
    pool.options = options;
    pool.label = label;
    pools.set(key, pool);
    return pool;
  }
}

/** A change of the rule by which servers are verified makes new pools: what was connected by the old one ends. */
function poolKey({ endpoint, access }: PoolOptions, user: UserEntry): string {
  const { host, port, database, user: role, password } = endpoint;
  // Where nobody is the primary its clients wait at a pool of their own, beside that of a replica which has the address.
  const whole = [user.name, host, port, database, role, password, tlsRuleOf(endpoint), access === 'nobody'];
  return JSON.stringify(whole);
}

function labelOf(entry: DatabaseEntry, user: UserEntry, shard: number): PoolLabel {
  const role = shard === COORDINATOR ? 'coordinator' : entry.role;
  return { database: entry.name, user: user.name, shard: isReplica(shard) ? entry.shard : shard, role };
}
