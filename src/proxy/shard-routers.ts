/**
 * One task: have the router of each sharded database ready: its rules from the configuration, its catalogue from shard 0, and whether
 * there is a coordinator in step with the shards.
 *
 * All of it is read when a session first needs it, after a RELOAD or a swap of names, when a statement names something that the
 * catalogue does not have, and, while it is used, from time to time.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Config } from '../config/config.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { withConnection } from '../postgres/connection.js';
import { addressOf } from '../postgres/endpoint.js';
import { readCatalogue, type Catalogue } from '../sharding/catalogue.js';
import { coordinatorState, type CoordinatorState } from '../sharding/coordinator-keeping.js';
import { Router } from '../sharding/router.js';
import { schemeOf } from '../sharding/scheme.js';
import { loadStatementParser } from '../sharding/statement-parser.js';
import type { Routes } from './routes.js';
import type { DefaultPath } from './search-path.js';

/** What holds for a user who sets nothing. */
export interface UserDefaults extends DefaultPath {
  /** `default_transaction_isolation` */
  readonly isolation: string;
}

/** What one user's sessions are routed by. */
export interface UserRouter {
  readonly router: Router;
  readonly shards: number;
  readonly defaults: UserDefaults;
  readonly coordinator: CoordinatorState;
  readonly readAtMs: number;
  readonly catalogue: Catalogue;
}

/** A statement that names an unknown table has the catalogue read again, but not more often than this. */
const READ_AGAIN_MS = 1_000;
/** Somebody may change a schema on the shards themselves: the coordinator is then not in step. */
const LOOK_AGAIN_MS = 10_000;
const READ_TIMEOUT_MS = 10_000;

const DEFAULTS = `SELECT current_setting('search_path') AS path, current_user::text AS role,
  current_setting('default_transaction_isolation') AS isolation`;

export class ShardRouters {
  readonly #routes: Routes;
  #config: Config;
  #ready = new Map<string, UserRouter>();
  #reading = new Map<string, Promise<UserRouter>>();

  constructor(routes: Routes, config: Config) {
    this.#routes = routes;
    this.#config = config;
  }

  /** To be called with each configuration that the routes get, after them. */
  apply(config: Config): void {
    this.#config = config;
    this.#ready = new Map();
    this.#reading = new Map();
  }

  isSharded(database: string): boolean {
    return this.#routes.shardsOf(database) > 1;
  }

  /** The router if it is there; null when it must be read first, or the database is not sharded. */
  readyFor(user: string, database: string): UserRouter | null {
    const ready = this.#ready.get(JSON.stringify([user, database])) ?? null;
    // The next ones find what is read now; a failure is told to who has no router at all.
    if (ready !== null && performance.now() - ready.readAtMs > LOOK_AGAIN_MS)
      this.read(user, database).catch(() => undefined);
    return ready;
  }

  /** Reads it; who asks meanwhile waits for the same answer. @throws CutoverError `server_unreachable` */
  read(user: string, database: string): Promise<UserRouter> {
    const key = JSON.stringify([user, database]);
    const found = this.#reading.get(key);
    if (found !== undefined) return found;
    const [ready, reading] = [this.#ready, this.#reading];
    const promise = this.#read(user, database, ready.get(key)).then((made) => {
      ready.set(key, made);
      return made;
    });
    reading.set(key, promise);
    const forget = (): void => void reading.delete(key);
    promise.then(forget, forget);
    return promise;
  }

  /** Whether reading the catalogue again may tell of something that this one does not know. */
  mayBeOutdated({ readAtMs }: UserRouter): boolean {
    return performance.now() - readAtMs > READ_AGAIN_MS;
  }

  async #read(user: string, database: string, before: UserRouter | undefined): Promise<UserRouter> {
    const config = this.#config;
    const { endpoint, connectTimeoutMs } = this.#routes.of(user, database).pool.options;
    const scheme = schemeOf(config, database);
    const looking = coordinatorState(config, database, connectTimeoutMs);
    try {
      const parser = await loadStatementParser();
      return await withConnection(
        endpoint,
        async (connection) => {
          const readAtMs = performance.now();
          const { rows } = await connection.query<UserDefaults>(DEFAULTS);
          const [defaults = { path: '', role: '', isolation: '' }] = rows;
          await connection.query('SET search_path = pg_catalog');
          const catalogue = await readCatalogue(connection);
          // The same one keeps its verdicts.
          const same = before !== undefined && isDeepStrictEqual(before.catalogue, catalogue);
          const router = same ? before.router : new Router(parser, { scheme, catalogue });
          return { router, shards: scheme.shards, defaults, coordinator: await looking, readAtMs, catalogue };
        },
        { connectTimeoutMs, queryTimeoutMs: READ_TIMEOUT_MS, roleSearchPath: true },
      );
    } catch (error) {
      throw new CutoverError(
        'server_unreachable',
        { database, address: addressOf(endpoint), problem: `the catalogue was not read: ${messageOf(error)}` },
        { cause: error },
      );
    }
  }
}
