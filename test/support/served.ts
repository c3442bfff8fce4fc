/** One task: the whole program on real servers: two clusters, Temporal, proxy with worker, configuration files on disk. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll } from 'vitest';
import { startCluster, type Cluster, type ClusterOptions, type Major } from '../../src/dev/embedded-postgres.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';
import { invariant } from '../../src/errors/invariant.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { SILENT, type Logger } from '../../src/proxy/logger.js';
import { serve, type Served, type ServeOptions } from '../../src/serve.js';
import { TASKS_POLL_MS, until } from './wait.js';

const CLUSTER_PASSWORD = 'password of every cluster';

export interface SystemOptions {
  readonly source: Major;
  readonly destination: Major;
  /** lines for [general] */
  readonly general?: string;
  /** SQL run at the source before anything else */
  readonly schema?: string;
  /** false: the worker runs apart; default true */
  readonly worker?: boolean;
  /** settings of postgresql.conf of both clusters */
  readonly settings?: ClusterOptions['settings'];
  /** what the program logs; default: nothing is kept */
  readonly logger?: Logger;
  /** how many shards each side has, as databases of its cluster unless they are apart; default 1. `schema` is run on each of the source's. */
  readonly shards?: {
    readonly source?: number;
    readonly destination?: number;
    /** each shard of the destination is on a cluster of its own, its database is `app` */
    readonly apart?: boolean;
  };
  /** more of pgdog.toml: how tables are spread */
  readonly sharding?: string;
}

export class System {
  readonly source: Cluster;
  readonly destination: Cluster;
  /** of a destination whose shards are apart, those after the first */
  readonly further: readonly Cluster[];
  readonly temporal: TemporalDevServer;
  readonly directory: string;
  readonly files: { readonly config: string; readonly users: string };
  served: Served | null = null;
  /** called at the beginning of each step of the pause, which waits for the answer */
  onStep: NonNullable<ServeOptions['onStep']> = () => undefined;
  readonly #worker: boolean;
  readonly #logger: Logger;
  #admin: pg.Client | null = null;

  private constructor(
    [source, destination, ...further]: readonly [Cluster, Cluster, ...Cluster[]],
    temporal: TemporalDevServer,
    options: SystemOptions,
  ) {
    this.#logger = options.logger ?? SILENT;
    this.source = source;
    this.destination = destination;
    this.further = further;
    this.temporal = temporal;
    this.#worker = options.worker ?? true;
    this.directory = mkdtempSync(join(tmpdir(), 'cutover-system-'));
    this.files = { config: join(this.directory, 'pgdog.toml'), users: join(this.directory, 'users.toml') };
    const sharding = `${moreShards([source, destination, ...further], options)}${options.sharding ?? ''}`;
    writeFileSync(this.files.config, configText(source, destination, options.general ?? '') + sharding);
    writeFileSync(this.files.users, usersText(source, destination));
  }

  static async start(options: SystemOptions): Promise<System> {
    const { shards } = options;
    const apart = shards?.apart === true;
    // One user logs in at all shards of a database, with one password.
    const password = apart ? { password: CLUSTER_PASSWORD } : {};
    const cluster = { auth: 'scram', settings: options.settings ?? {}, ...password } as const;
    const [source, destination, temporal, ...further] = await Promise.all([
      startCluster({ major: options.source, ...cluster }),
      startCluster({ major: options.destination, ...cluster }),
      startTemporal(),
      ...shardNames(apart ? shards.destination : 1)
        .slice(1)
        .map(() => startCluster({ major: options.destination, ...cluster })),
    ]);
    for (const database of shardNames(options.shards?.source)) {
      await source.createDatabase(database);
      if (options.schema !== undefined) await source.query(database, options.schema);
    }
    for (const database of shardNames(apart ? 1 : shards?.destination)) await destination.createDatabase(database);
    for (const each of further) await each.createDatabase('app');
    const system = new System([source, destination, ...further], temporal, options);
    await system.serve();
    return system;
  }

  /** Starts the program, for the first time or again. */
  async serve(): Promise<void> {
    this.served = await serve({
      files: this.files,
      worker: this.#worker,
      temporalAddress: this.temporal.address,
      logger: this.#logger,
      onStep: (plan, step) => this.onStep(plan, step),
    });
    if (this.#worker) await this.served.workerReady;
  }

  async stopServing(): Promise<void> {
    await this.#admin?.end().catch(() => undefined);
    this.#admin = null;
    await this.served?.close(0);
    this.served = null;
  }

  get address(): { host: string; port: number } {
    invariant(this.served, 'the program serves');
    return this.served.address;
  }

  endpoint(database = 'prod'): Endpoint {
    return { ...this.address, database, user: 'app', password: 'app secret' };
  }

  client(database = 'prod'): Promise<Connection> {
    return connect(this.endpoint(database));
  }

  /** Runs a command on the admin database, as psql would. */
  async admin<Row extends pg.QueryResultRow>(command: string): Promise<Row[]> {
    if (!this.#admin) {
      this.#admin = new pg.Client({ ...this.address, database: 'admin', user: 'admin', password: 'admin secret' });
      this.#admin.on('error', () => undefined);
      await this.#admin.connect();
    }
    return (await this.#admin.query<Row>(command)).rows;
  }

  /** Waits until a task of `SHOW TASKS` reads so. */
  task(what: string, test: (row: TaskLine) => boolean, deadlineMs = 60_000): Promise<TaskLine> {
    return until(what, async () => (await this.admin<TaskLine>('SHOW TASKS')).find(test), deadlineMs, TASKS_POLL_MS);
  }

  async stop(): Promise<void> {
    await this.stopServing();
    await this.temporal.stop();
    await Promise.all([this.source, this.destination, ...this.further].map((cluster) => cluster.remove()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The databases of a side: `app`, and of several shards `app_1` and so on. */
export function shardNames(shards = 1): readonly string[] {
  return Array.from({ length: shards }, (_, shard) => (shard === 0 ? 'app' : `app_${shard.toString()}`));
}

function moreShards(
  [source, destination, ...further]: readonly [Cluster, Cluster, ...Cluster[]],
  { shards }: SystemOptions,
): string {
  const row = (name: string, cluster: Cluster, database: string, shard: number): string => `
[[databases]]
name = "${name}"
host = "${cluster.host}"
port = ${cluster.port.toString()}
database_name = "${database}"
shard = ${shard.toString()}
`;
  const rows = (name: string, cluster: Cluster, count: number | undefined): readonly string[] =>
    shardNames(count).flatMap((database, shard) => (shard === 0 ? [] : [row(name, cluster, database, shard)]));
  const destinations =
    further.length === 0
      ? rows('prod_new', destination, shards?.destination)
      : further.map((cluster, index) => row('prod_new', cluster, 'app', index + 1));
  return [...rows('prod', source, shards?.source), ...destinations].join('');
}

export interface TaskLine {
  readonly id: string | null;
  readonly scope: string;
  readonly type: string;
  readonly status: string;
  readonly inner_status: string;
}

export function configText(source: Cluster, destination: Cluster, general: string): string {
  return `# The configuration of a test; this comment must survive every swap.
[general]
host = "127.0.0.1"
port = 0
${general}

[admin]
password = "admin secret"

[[databases]]
name = "prod" # where applications connect
host = "${source.host}"
port = ${source.port.toString()}
database_name = "app"

[[databases]]
name = "prod_new"
host = "${destination.host}"
port = ${destination.port.toString()}
database_name = "app"
`;
}

export function usersText(source: Cluster, destination: Cluster): string {
  const row = (database: string, cluster: Cluster): string => `
[[users]]
name = "app"
database = "${database}"
password = "app secret"
server_user = "postgres"
server_password = "${cluster.password}"
schema_admin = true
`;
  return row('prod', source) + row('prod_new', destination);
}

export function useSystem(options: SystemOptions): () => System {
  let system: System | null = null;
  beforeAll(async () => {
    system = await System.start(options);
  });
  afterAll(async () => {
    await system?.stop();
  });
  return () => {
    invariant(system, 'the system is used before beforeAll has started it');
    return system;
  };
}
