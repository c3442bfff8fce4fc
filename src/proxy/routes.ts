/**
 * One task: lead each (user, database) pair to the pool of its target, and keep pools whose target stays the same.
 *
 * A pool belongs to a client user and a target (address, database on the server, role, password), not to a database's name: when
 * names change places in a cutover, the pools stay and the names move.
 */
import type { Config, DatabaseEntry, PoolerMode, UserEntry } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import { endpointFor } from '../postgres/endpoint.js';
import { Pool, type PoolLabel, type PoolOptions } from './pool.js';

export interface Route {
  readonly pool: Pool;
  readonly mode: PoolerMode;
}

export class Routes {
  /** raised by apply(): who remembers a route looks it up again */
  version = 0;
  #routes = new Map<string, Route>();
  #pools = new Map<string, Pool>();
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
  of(user: string, database: string): Route {
    const route = this.#routes.get(JSON.stringify([user, database]));
    if (route !== undefined) return route;
    for (const pool of this.#pools.values()) {
      if (pool.label.database === database) throw new CutoverError('user_missing', { user, database });
    }
    throw new CutoverError('database_unknown', { database });
  }

  /** Routes of every user of a database, by user name. */
  ofDatabase(database: string): ReadonlyMap<string, Route> {
    const found = new Map<string, Route>();
    for (const [key, route] of this.#routes) {
      const [user, name] = JSON.parse(key) as [string, string];
      if (name === database) found.set(user, route);
    }
    return found;
  }

  /** Puts a configuration into force. Pools it no longer leads to are emptied. */
  apply(config: Config): void {
    const pools = new Map<string, Pool>();
    const routes = new Map<string, Route>();
    for (const user of config.users) {
      const entry = config.databases.find(
        (row) => row.name === user.database && row.shard === 0 && row.role !== 'replica',
      );
      if (entry === undefined) continue;
      const key = poolKey(entry, user);
      const pool = this.#poolFor(pools, key, optionsOf(config, entry, user), labelOf(entry, user));
      routes.set(JSON.stringify([user.name, user.database]), { pool, mode: modeOf(config, entry, user) });
    }
    const before = this.#pools;
    this.#pools = pools;
    this.#routes = routes;
    this.version += 1;
    for (const [key, pool] of before) {
      if (pools.has(key)) continue;
      this.#leaving.add(pool);
      pool.retire();
    }
  }

  /** To be called about once a second. */
  sweep(): void {
    for (const pool of this.#pools.values()) pool.sweep();
    for (const pool of this.#leaving) {
      if (pool.serverCount === 0 && pool.connectingCount === 0) this.#leaving.delete(pool);
    }
  }

  #poolFor(pools: Map<string, Pool>, key: string, options: PoolOptions, label: PoolLabel): Pool {
    const shared = pools.get(key);
    if (shared !== undefined) return shared;
    const pool = this.#pools.get(key) ?? new Pool(options, label);
    pool.options = options;
    pool.label = label;
    pools.set(key, pool);
    return pool;
  }
}

function poolKey(entry: DatabaseEntry, user: UserEntry): string {
  const { host, port, database, user: role, password } = endpointFor(entry, user);
  return JSON.stringify([user.name, host, port, database, role, password]);
}

function modeOf(config: Config, entry: DatabaseEntry, user: UserEntry): PoolerMode {
  return user.poolerMode ?? entry.poolerMode ?? config.general.poolerMode;
}

function labelOf(entry: DatabaseEntry, user: UserEntry): PoolLabel {
  return { database: entry.name, user: user.name, shard: entry.shard, role: entry.role };
}

function optionsOf(config: Config, entry: DatabaseEntry, user: UserEntry): PoolOptions {
  const { general } = config;
  return {
    endpoint: endpointFor(entry, user),
    size: Math.max(1, user.poolSize ?? entry.poolSize ?? general.defaultPoolSize),
    minimum: user.minPoolSize ?? entry.minPoolSize ?? general.minPoolSize,
    mode: modeOf(config, entry, user),
    connectTimeoutMs: general.connectTimeoutMs,
    checkoutTimeoutMs: general.checkoutTimeoutMs,
    idleTimeoutMs: user.idleTimeoutMs ?? entry.idleTimeoutMs ?? general.idleTimeoutMs,
    serverLifetimeMs: general.serverLifetimeMs,
    preparedStatementsLimit: general.preparedStatementsLimit,
    statementTimeoutMs: user.statementTimeoutMs ?? entry.statementTimeoutMs,
  };
}
