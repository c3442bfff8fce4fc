/**
 * One task: measure how fast the engine copies tables to shards and drains what was written meanwhile, beside psql's COPY from one server into
 * another (what `pg_dump | psql` does with rows) and one plain subscription. All of it on the same rows, one after the other.
 */
import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { EngineContext } from '../activities/context.js';
import { copyTables } from '../activities/copy.js';
import { removeMigration } from '../activities/ending.js';
import { loadSchema } from '../activities/preparation.js';
import { claimMigration } from '../activities/situation.js';
import { streamsOf } from '../activities/stream-ends.js';
import { createForward } from '../activities/streams.js';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import type { Migration } from '../src/cutover/contract.js';
import { parseConfig } from '../src/config/load.js';
import { startCluster, type Cluster } from '../src/dev/embedded-postgres.js';
import { Directory } from '../src/fleet/directory.js';
import { conninfoOf, type Endpoint } from '../src/postgres/endpoint.js';
import { Connections } from '../src/postgres/connections.js';
import { machine } from './machine.js';
import { programPath } from './pgbench.js';
import { rounded } from './statistics.js';

export interface CopyOptions {
  /** narrow rows */
  readonly rows: number;
  /** rows of 8 KB */
  readonly wide: number;
  /** changes made while the streams are disabled */
  readonly backlog: number;
}

const SETTINGS = {
  max_wal_size: '8GB',
  max_prepared_transactions: '10',
  max_replication_slots: '60',
  max_wal_senders: '60',
  max_logical_replication_workers: '60',
  max_worker_processes: '80',
  max_sync_workers_per_subscription: '2',
};
const TABLES = `
  CREATE TABLE public.narrow (tenant_id bigint NOT NULL, id bigint NOT NULL, amount integer, PRIMARY KEY (tenant_id, id));
  CREATE TABLE public.wide (tenant_id bigint NOT NULL, id bigint NOT NULL, body text, PRIMARY KEY (tenant_id, id));`;
const AT_ONCE = 'resharding_parallel_copies = 2\n';
/** Both tables in some ranges. */
const IN_RANGES = 'cutover_copy_range_bytes = 32000000\n';
const DEADLINE_MS = 3_600_000;
const POLL_MS = 50;

/** Prints a JSON line for each way and a summary; answers the exit code. */
export async function copy(options: CopyOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const cluster = async (): Promise<Cluster> => {
    const started = await startCluster({ major: 18, auth: 'scram', settings: SETTINGS });
    cleanup.defer('a cluster', () => started.remove());
    return started;
  };
  const [source, destination] = [await cluster(), await cluster()];
  const bench = new CopyBench(source, destination, options);
  await bench.fill(['app']);
  const results = [
    await bench.byPsql(),
    await bench.byPlainSubscription(),
    await bench.toShards(['app'], ['one_0', 'one_1']),
    await bench.toShards(['app'], ['whole'], { way: ', two tables at once', general: AT_ONCE }),
    await bench.toShards(['app'], ['ranged'], { way: ', two ranges at once', general: AT_ONCE + IN_RANGES }),
  ];
  const thirds = ['third_0', 'third_1', 'third_2'];
  await bench.fill(thirds);
  results.push(await bench.toShards(thirds, ['four_0', 'four_1', 'four_2', 'four_3']));
  const [psql] = results;
  const summary = results.map(({ way, rowsPerSecond, backlogPerSecond }) => ({
    way,
    rowsPerSecond,
    ofPsql: rounded(rowsPerSecond / (psql?.rowsPerSecond ?? NaN)),
    ...(backlogPerSecond === undefined ? {} : { backlogPerSecond }),
  }));
  process.stdout.write(
    `${JSON.stringify({ bench: 'copy', summary: true, machine: at, ...options, results: summary })}\n`,
  );
  return results.every(({ complete }) => complete) ? 0 : 1;
}

interface Result {
  readonly way: string;
  readonly copyMs: number;
  readonly rowsPerSecond: number;
  readonly backlogPerSecond?: number;
  /** every row has come, once */
  readonly complete: boolean;
}

class CopyBench {
  readonly #source: Cluster;
  readonly #destination: Cluster;
  readonly #options: CopyOptions;

  constructor(source: Cluster, destination: Cluster, options: CopyOptions) {
    this.#source = source;
    this.#destination = destination;
    this.#options = options;
  }

  get #total(): number {
    return this.#options.rows + this.#options.wide;
  }

  /** Each of several databases has the rows of its own shard. */
  async fill(databases: readonly string[]): Promise<void> {
    const { rows, wide } = this.#options;
    for (const [shard, database] of databases.entries()) {
      await this.#source.createDatabase(database);
      const own =
        databases.length === 1
          ? 'true'
          : `satisfies_hash_partition('pg_temp.spread'::regclass, ${databases.length.toString()}, ${shard.toString()}, (n % 1000)::bigint)`;
      await this.#source.query(
        database,
        `${TABLES}
         CREATE TEMPORARY TABLE spread (key bigint) PARTITION BY HASH (key);
         INSERT INTO public.narrow SELECT n % 1000, n, n % 97 FROM generate_series(1, ${rows.toString()}) n WHERE ${own};
         INSERT INTO public.wide SELECT n % 1000, n, (SELECT string_agg(md5(n::text || g::text), '') FROM generate_series(1, 256) g)
           FROM generate_series(1, ${wide.toString()}) n WHERE ${own};
         ANALYZE public.narrow; ANALYZE public.wide`,
      );
    }
    await this.#source.query('postgres', 'CHECKPOINT');
  }

  async byPsql(): Promise<Result> {
    await this.#destination.createDatabase('by_psql');
    await this.#destination.query('by_psql', TABLES);
    const psql = programPath('psql');
    if (psql === undefined) throw new Error('psql is needed: apt-get install postgresql-client');
    const [from, to] = [this.#source.endpoint('app'), this.#destination.endpoint('by_psql')];
    const { ms } = await timed(async () => {
      for (const table of ['public.narrow', 'public.wide']) await piped(psql, from, to, table);
    });
    return this.#told('psql COPY', ms, ['by_psql']);
  }

  async byPlainSubscription(): Promise<Result> {
    const [source, destination] = [this.#source, this.#destination];
    await destination.createDatabase('plain');
    await destination.query('plain', TABLES);
    await source.query('app', 'CREATE PUBLICATION plain FOR TABLE public.narrow, public.wide');
    const conninfo = conninfoOf(source.endpoint('app'), {}).replaceAll("'", "''");
    const { ms } = await timed(async () => {
      await destination.query('plain', `CREATE SUBSCRIPTION plain CONNECTION '${conninfo}' PUBLICATION plain`);
      await ready(destination, 'plain', 2);
    });
    const backlog = await this.#backlog(['app'], [{ database: 'plain', name: 'plain', source: 'app' }]);
    const result = await this.#told('plain subscription', ms, ['plain'], backlog);
    await destination.query('plain', 'DROP SUBSCRIPTION plain');
    await source.query('app', 'DROP PUBLICATION plain');
    return result;
  }

  /** By the engine's own activities, without proxy and Temporal. */
  async toShards(
    from: readonly string[],
    to: readonly string[],
    { way = '', general = '' }: { readonly way?: string; readonly general?: string } = {},
  ): Promise<Result> {
    for (const database of to) await this.#destination.createDatabase(database);
    const { context, connections } = contextOf([this.#source, from], [this.#destination, to], general);
    try {
      const request = { source: 'prod', destination: 'prod_sharded' };
      const migration = await claimMigration(context, request, 'bench');
      await loadSchema(context, migration, new AbortController().signal);
      const { ms } = await timed(async () => {
        await createForward(context, migration, { copyData: true });
        await copyTables(context, migration, () => undefined);
      });
      const backlog = await this.#backlog(from, streamsAt(migration, from, to));
      const shards = `engine, ${from.length.toString()} to ${to.length.toString()} shards`;
      const result = await this.#told(shards + way, ms, to, backlog);
      // The next way begins at the same source.
      await removeMigration(context, migration);
      return result;
    } finally {
      await connections.close();
    }
  }

  /** Changes made while nobody applies, and how many a second are applied afterwards. */
  async #backlog(sources: readonly string[], streams: readonly AppliedStream[]): Promise<number> {
    const each = Math.floor(this.#options.backlog / sources.length);
    const alter = (verb: string) => async (): Promise<void> => {
      for (const { database, name } of streams)
        await this.#destination.query(database, `ALTER SUBSCRIPTION ${name} ${verb}`);
    };
    await alter('DISABLE')();
    for (const database of sources)
      await this.#source.query(
        database,
        `UPDATE public.narrow SET amount = amount + 1 WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM public.narrow LIMIT ${each.toString()})`,
      );
    const { ms } = await timed(async () => {
      await alter('ENABLE')();
      for (const stream of streams) await this.#caughtUp(stream);
    });
    return Math.round((each * sources.length * 1000) / ms);
  }

  async #caughtUp({ source, name }: AppliedStream): Promise<void> {
    const [end] = await this.#source.query<{ lsn: string }>(source, 'SELECT pg_current_wal_lsn()::text AS lsn');
    const done = await comesTrue(async () => {
      const [slot] = await this.#source.query<{ done: boolean }>(
        source,
        'SELECT confirmed_flush_lsn >= $2::pg_lsn AS done FROM pg_replication_slots WHERE slot_name = $1',
        [name, end?.lsn],
      );
      return slot?.done === true;
    });
    if (!done) throw new Error(`stream ${name} has not caught up`);
  }

  async #told(way: string, ms: number, databases: readonly string[], backlogPerSecond?: number): Promise<Result> {
    let rows = 0;
    for (const database of databases)
      for (const table of ['narrow', 'wide']) {
        const [counted] = await this.#destination.query<{ n: number }>(
          database,
          `SELECT count(*)::float8 AS n FROM public.${table}`,
        );
        rows += counted?.n ?? 0;
      }
    const result = {
      way,
      copyMs: Math.round(ms),
      rowsPerSecond: Math.round((this.#total * 1000) / ms),
      ...(backlogPerSecond === undefined ? {} : { backlogPerSecond }),
      complete: rows === this.#total,
    };
    process.stdout.write(`${JSON.stringify({ bench: 'copy', ...result })}\n`);
    return result;
  }
}

interface AppliedStream {
  /** of the subscriber */
  readonly database: string;
  readonly name: string;
  /** database of the publisher */
  readonly source: string;
}

function streamsAt(migration: Migration, from: readonly string[], to: readonly string[]): readonly AppliedStream[] {
  return streamsOf(migration, 'forward').map((stream) => ({
    name: stream.name,
    database: to[stream.to] ?? '',
    source: from[stream.from] ?? '',
  }));
}

type Placed = readonly [cluster: Cluster, databases: readonly string[]];

/** What the activities need of a program, without one. */
function contextOf(
  source: Placed,
  destination: Placed,
  general: string,
): { context: EngineContext; connections: Connections } {
  const databases = (name: string, [{ host, port }, names]: Placed): string =>
    names
      .map(
        (database, shard) =>
          `[[databases]]\nname = "${name}"\nhost = "${host}"\nport = ${port.toString()}\nshard = ${shard.toString()}\ndatabase_name = "${database}"\n`,
      )
      .join('');
  const sharded = (name: string, [, names]: Placed): string =>
    names.length === 1 ? '' : `[[sharded_tables]]\ndatabase = "${name}"\ncolumn = "tenant_id"\ndata_type = "bigint"\n`;
  const user = (name: string, [{ superuser, password }]: Placed): string =>
    `[[users]]\nname = "${superuser}"\ndatabase = "${name}"\npassword = "${password}"\nschema_admin = true\n`;
  const [from, to] = ['prod', 'prod_sharded'];
  const config = parseConfig(
    {
      file: 'pgdog.toml',
      text:
        `[general]\n${general}` +
        databases(from, source) +
        databases(to, destination) +
        sharded(from, source) +
        sharded(to, destination),
    },
    { file: 'users.toml', text: user(from, source) + user(to, destination) },
    { environment: {} },
  );
  const connections = new Connections({ applicationName: 'cutover bench' });
  const context: EngineContext = {
    config: () => config,
    directory: new Directory(() => config),
    connections,
    fleet: { look: () => Promise.resolve([]), addresses: () => Promise.resolve([]), nodes: () => [] },
    isRunning: () => Promise.resolve(false),
    onStep: () => undefined,
  };
  return { context, connections };
}

async function timed(work: () => Promise<void>): Promise<{ readonly ms: number }> {
  const start = performance.now();
  await work();
  return { ms: performance.now() - start };
}

/** Asks again and again. @returns false when the deadline has passed */
async function comesTrue(check: () => Promise<boolean>): Promise<boolean> {
  const end = performance.now() + DEADLINE_MS;
  while (performance.now() < end) {
    if (await check()) return true;
    await delay(POLL_MS);
  }
  return false;
}

/** Every table of a subscription is in step. */
async function ready(cluster: Cluster, database: string, tables: number): Promise<void> {
  const done = await comesTrue(async () => {
    const rows = await cluster.query<{ state: string }>(
      database,
      'SELECT srsubstate AS state FROM pg_subscription_rel',
    );
    return rows.length === tables && rows.every(({ state }) => state === 'r');
  });
  if (!done) throw new Error('the subscription is not in step');
}

/** `psql -c 'COPY t TO STDOUT' | psql -c 'COPY t FROM STDIN'` */
async function piped(psql: string, from: Endpoint, to: Endpoint, table: string): Promise<void> {
  const run = (endpoint: Endpoint, sql: string, stdio: ('pipe' | 'inherit' | 'ignore')[]) =>
    spawn(
      psql,
      [
        '-X',
        '-q',
        '-d',
        `host=${endpoint.host} port=${endpoint.port.toString()} dbname=${endpoint.database} user=${endpoint.user}`,
        '-c',
        sql,
      ],
      {
        env: { ...process.env, PGPASSWORD: endpoint.password ?? '' },
        stdio: stdio as ['pipe', 'pipe', 'inherit'],
      },
    );
  const reading = run(from, `COPY ${table} TO STDOUT`, ['ignore', 'pipe', 'inherit']);
  const writing = run(to, `COPY ${table} FROM STDIN`, ['pipe', 'ignore', 'inherit']);
  reading.stdout.pipe(writing.stdin);
  const ended = (child: ReturnType<typeof run>): Promise<void> =>
    new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => {
        if (code === 0) resolve();
        else reject(new Error(`psql ended with ${String(code)}`));
      });
    });
  await Promise.all([ended(reading), ended(writing)]);
}
