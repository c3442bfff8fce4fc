/**
 * One task: have the router of each sharded database ready: its rules from the configuration, its catalogue from shard 0, and whether
 * there is a coordinator in step with the shards.
 *
 * All of it is read when a session first needs it, after a RELOAD, when a statement names something that the catalogue does not have,
 * and, while it is used, from time to time. A swap of names leads to what was read under the other name.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Config } from '../config/config.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { withConnection, type ConnectOptions } from '../postgres/connection.js';
import { addressOf, engineEndpoint, type Endpoint } from '../postgres/endpoint.js';
import { readCatalogue, type Catalogue } from '../sharding/catalogue.js';
import { CHANGE_OPTIONS, CoordinatorChange, type ChangeOptions } from '../sharding/coordinator-change.js';
import {
  BEING_CHANGED,
  coordinatorState,
  keepCoordinator,
  type CoordinatorState,
} from '../sharding/coordinator-keeping.js';
import { Router } from '../sharding/router.js';
import { schemeOf, type ShardingScheme } from '../sharding/scheme.js';
import { loadStatementParser } from '../sharding/statement-parser.js';
import type { RouterCacheStatus } from './contract.js';
import { RepeatedStatements } from './repeated-statements.js';
import type { Routes } from './routes.js';
import { searchPathOf, type DefaultPath } from './search-path.js';
import { SessionSettings } from './settings.js';

/** What holds for a user who sets nothing. */
export interface UserDefaults extends DefaultPath {
  /** `default_transaction_isolation` */
  readonly isolation: string;
}

/** What is the same for all users of a database. */
export interface DatabaseRouter {
  readonly router: Router;
  /** statements that this router has routed */
  readonly repeated: RepeatedStatements;
  readonly shards: number;
  readonly coordinator: CoordinatorState;
  readonly readAtMs: number;
  readonly catalogue: Catalogue;
}

/** What one user's sessions are routed by. */
export interface UserRouter extends DatabaseRouter {
  readonly defaults: UserDefaults;
}

/** A statement that names an unknown table has the catalogue read again, but not more often than this. */
const READ_AGAIN_MS = 1_000;
/** Somebody may change a schema on the shards themselves: the coordinator is then not in step. */
const LOOK_AGAIN_MS = 30_000;
const READ_TIMEOUT_MS = 10_000;

const DEFAULTS = `SELECT current_setting('search_path') AS path, current_user::text AS role,
  current_setting('default_transaction_isolation') AS isolation`;

/** One configuration's: the next one begins with nothing. */
class Readings {
  readonly #databases = new Map<string, DatabaseRouter>();
  readonly #users = new Map<string, UserDefaults>();
  /** both together, by database and user */
  readonly #ready = new Map<string, Map<string, UserRouter>>();
  /** under way, by what is read: who asks meanwhile waits for the same answer */
  readonly #running = new Map<string, Promise<void>>();

  database(name: string): DatabaseRouter | undefined {
    return this.#databases.get(name);
  }

  /** What is there; null when something of it is missing. Asked for each batch. */
  of(user: string, database: string): UserRouter | null {
    const known = this.#ready.get(database)?.get(user);
    if (known !== undefined) return known;
    const ready = this.#databases.get(database);
    const defaults = this.#users.get(userKey(user, database));
    if (ready === undefined || defaults === undefined) return null;
    const both = { ...ready, defaults };
    const users = this.#ready.get(database) ?? new Map<string, UserRouter>();
    this.#ready.set(database, users.set(user, both));
    return both;
  }

  setDatabase(name: string, router: DatabaseRouter): void {
    this.#databases.set(name, router);
    this.#ready.delete(name);
  }

  setDefaults(user: string, database: string, defaults: UserDefaults): void {
    this.#users.set(userKey(user, database), defaults);
    this.#ready.delete(database);
  }

  /** What another configuration's has of the same servers under the name `earlier`. */
  takeOver(other: Readings, earlier: string, name: string): void {
    const database = other.#databases.get(earlier);
    if (database) this.setDatabase(name, database);
    for (const [key, defaults] of other.#users) {
      const [user, of] = JSON.parse(key) as [string, string];
      if (of === earlier) this.setDefaults(user, name, defaults);
    }
  }

  once(key: string, read: () => Promise<void>): Promise<void> {
    const running = this.#running.get(key);
    if (running !== undefined) return running;
    const started = read().finally(() => this.#running.delete(key));
    this.#running.set(key, started);
    return started;
  }
}

export class ShardRouters {
  readonly #routes: Routes;
  readonly #changes: ChangeOptions;
  #config: Config;
  #readings = new Readings();
  /** when a coordinator was last brought in step by itself, by database */
  readonly #followedAtMs = new Map<string, number>();

  constructor(routes: Routes, config: Config, changes: Partial<ChangeOptions> = {}) {
    this.#routes = routes;
    this.#changes = { ...CHANGE_OPTIONS, ...changes };
    this.#config = config;
    loadParserFor(config);
  }

  /** To be called with each configuration that the routes get, after them. */
  apply(config: Config): void {
    const before = { places: placesOf(this.#config), readings: this.#readings };
    this.#config = config;
    this.#readings = new Readings();
    for (const [name, earlier] of movedNames(before.places, placesOf(config)))
      this.#readings.takeOver(before.readings, earlier, name);
    loadParserFor(config);
  }

  isSharded(database: string): boolean {
    return this.#routes.shardsOf(database) > 1;
  }

  /** What the router of each sharded database keeps, as far as there is one. */
  get caches(): readonly RouterCacheStatus[] {
    return this.#routes.sharded.flatMap((database) => {
      const router = this.#readings.database(database)?.router;
      return router === undefined ? [] : [{ database, ...router.statistics }];
    });
  }

  /** What is there; null when it must be read first. What is old is read anew for those who come later. */
  readyFor(user: string, database: string): UserRouter | null {
    const ready = this.#readings.of(user, database);
    // A failure is told to who has no router at all.
    if (ready !== null && performance.now() - ready.readAtMs > LOOK_AGAIN_MS)
      this.read(user, database).catch(() => undefined);
    return ready;
  }

  /** Reads all of it anew. @throws CutoverError `server_unreachable` | `database_unknown` | `user_missing` */
  async read(user: string, database: string): Promise<void> {
    const readings = this.#readings;
    const { endpoint, connectTimeoutMs } = this.#routes.of(user, database).pool.options;
    const options = { connectTimeoutMs, queryTimeoutMs: READ_TIMEOUT_MS };
    try {
      await Promise.all([
        readings.once(JSON.stringify([database]), async () => {
          const before = readings.database(database);
          readings.setDatabase(database, await readDatabase(this.#config, database, endpoint, options, before));
        }),
        readings.once(userKey(user, database), async () => {
          readings.setDefaults(user, database, await readDefaults(endpoint, options));
        }),
      ]);
    } catch (error) {
      throw new CutoverError(
        'server_unreachable',
        { database, address: addressOf(endpoint), problem: `the catalogue was not read: ${messageOf(error)}` },
        { cause: error },
      );
    }
    const state = readings.database(database)?.coordinator;
    if (state?.ready === false && state.outOfStep) this.#follow(user, database);
  }

  /**
   * The schema was changed on the shards themselves, or by a proxy that died behind its commit: brings the coordinator in step, for those
   * who come later; until then nothing is asked of it. What fails is tried again when it is looked at again.
   */
  #follow(user: string, database: string): void {
    const now = performance.now();
    if (now - (this.#followedAtMs.get(database) ?? -Infinity) < LOOK_AGAIN_MS) return;
    this.#followedAtMs.set(database, now);
    keepCoordinator(this.#config, database)
      .then(() => this.read(user, database))
      .catch(() => undefined);
  }

  /**
   * Lets readers at the coordinator wait.
   *
   * @param overdue called when they have waited for too long
   * @returns null where there is no coordinator
   * @throws CutoverError `shards_not_committed`
   */
  changeBegins(database: string, overdue: () => void): Promise<CoordinatorChange | null> {
    return CoordinatorChange.begin(this.#config, database, this.#changes, overdue);
  }

  /** By which rules the rows of a database lie on its shards, and where the engine finds its tables. @throws CutoverError */
  placesOf(database: string): { readonly scheme: ShardingScheme; readonly endpoint: Endpoint } {
    return { scheme: schemeOf(this.#config, database), endpoint: engineEndpoint(this.#config, database) };
  }

  /** Ahead of the load: what the router says of these texts, a few at a time, so that nobody waits meanwhile. */
  async meet(user: string, database: string, texts: readonly string[]): Promise<void> {
    const ready = this.readyFor(user, database);
    const path = ready && searchPathOf(SessionSettings.NONE, ready.defaults);
    if (!ready || !path) return;
    for (const text of texts) {
      ready.router.route(text, { searchPath: path });
      await nextTurn();
    }
  }

  /** Whether reading the catalogue again may tell of something that this one does not know. */
  mayBeOutdated({ readAtMs }: DatabaseRouter): boolean {
    return performance.now() - readAtMs > READ_AGAIN_MS;
  }
}

/** What each database is, whatever its name: its servers, and how its tables are spread over them. */
function placesOf(config: Config): ReadonlyMap<string, string> {
  const names = [...new Set(config.databases.map(({ name }) => name))];
  const rowsOf = (name: string): string =>
    JSON.stringify(config.databases.filter((row) => row.name === name).map((row) => ({ ...row, name: '' })));
  return new Map(
    names.map((name) => {
      const { omnisharded, schemas, tables, coordinator } = schemeOf(config, name);
      const entries = [...omnisharded, ...schemas, ...tables].map((entry) => ({ ...entry, database: '' }));
      const place = [rowsOf(name), coordinator === null ? '' : rowsOf(coordinator), entries];
      // A list's values may be bigints.
      return [
        name,
        JSON.stringify(place, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)),
      ];
    }),
  );
}

/** Where nothing but names has changed: each name with the one that its servers had before. None where nothing has, as after a RELOAD. */
function movedNames(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): readonly (readonly [name: string, earlier: string])[] {
  const names = new Map([...before].map(([name, place]) => [place, name]));
  const pairs = [...after].map(([name, place]) => [name, names.get(place)] as const);
  const known = pairs.filter((pair): pair is readonly [string, string] => pair[1] !== undefined);
  const onlyNames = known.length === after.size && after.size === before.size;
  return onlyNames && known.some(([name, earlier]) => name !== earlier) ? known : [];
}

/** Ahead of the first client: it takes a tenth of a second, in which nobody is served. Who needs it hears of a failure. */
function loadParserFor({ databases }: Config): void {
  if (databases.some(({ shard }) => shard > 0)) loadStatementParser().catch(() => undefined);
}

function userKey(user: string, database: string): string {
  return JSON.stringify([user, database]);
}

type Timeouts = Required<Pick<ConnectOptions, 'connectTimeoutMs' | 'queryTimeoutMs'>>;

async function readDefaults(endpoint: Endpoint, options: Timeouts): Promise<UserDefaults> {
  const { rows } = await withConnection(endpoint, (connection) => connection.query<UserDefaults>(DEFAULTS), {
    ...options,
    roleSearchPath: true,
  });
  const [defaults] = rows;
  invariant(defaults, 'a SELECT without FROM has one row');
  return defaults;
}

/** @param before read earlier: with the same catalogue its router stays, and with it the verdicts it keeps */
async function readDatabase(
  config: Config,
  database: string,
  endpoint: Endpoint,
  options: Timeouts,
  before: DatabaseRouter | undefined,
): Promise<DatabaseRouter> {
  const startedAtMs = performance.now();
  const scheme = schemeOf(config, database);
  const [parser, catalogue, coordinator] = await Promise.all([
    loadStatementParser(),
    withConnection(endpoint, readCatalogue, options),
    coordinatorState(config, database, options.connectTimeoutMs, before?.coordinator),
  ]);
  const fewValues = coordinator.ready ? coordinator.fewValues : (before?.router.fewValues ?? null);
  const same = isDeepStrictEqual([before?.catalogue, before?.router.fewValues], [catalogue, fewValues]);
  const router = same && before ? before.router : new Router(parser, { scheme, catalogue, fewValues });
  const repeated = same && before ? before.repeated : new RepeatedStatements(scheme.shards);
  // While a change of the schema lets readers wait, nothing new can be said: soon it can.
  const unchanged = coordinator === before?.coordinator || coordinator === BEING_CHANGED;
  const readAtMs = unchanged ? startedAtMs - LOOK_AGAIN_MS + READ_AGAIN_MS : startedAtMs;
  return { router, repeated, shards: scheme.shards, coordinator, readAtMs, catalogue };
}
