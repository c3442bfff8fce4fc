/** One task: measure reads over two shards, as the coordinator answers them by itself and in parts, beside one database with the same rows. */
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { writeConfiguration } from '../src/cli/demo/configuration.js';
import { loadConfig } from '../src/config/load.js';
import type { Config } from '../src/config/config.js';
import { startCluster, type Cluster } from '../src/dev/embedded-postgres.js';
import { keepAtEnd, removeAtEnd } from '../src/dev/guardian.js';
import { LOOPBACK } from '../src/dev/ports.js';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import { invariant } from '../src/errors/invariant.js';
import { connect, type Connection } from '../src/postgres/connection.js';
import { startProxy } from '../src/proxy/proxy.js';
import { keepCoordinator } from '../src/sharding/coordinator-keeping.js';
import { coordinatorAt } from '../src/sharding/coordinator-place.js';
import { CREATE_HASH_PARENTS, rowFilter } from '../src/sharding/row-filter.js';
import { ruleOf, schemeOf } from '../src/sharding/scheme.js';
import { machine } from './machine.js';
import { familyProcessorMs } from './processor-time.js';
import { median, rounded } from './statistics.js';

export interface ShardedReadsOptions {
  /** of the larger table; the other has a tenth */
  readonly rows: number;
  /** each runs every read once at every place */
  readonly rounds: number;
}

const SHARDS = ['shard_0', 'shard_1'];
const TABLES = `
  CREATE TABLE account (tenant_id bigint NOT NULL, id bigint NOT NULL, name text, PRIMARY KEY (tenant_id, id));
  CREATE TABLE invoice (tenant_id bigint NOT NULL, id bigint NOT NULL, account_id bigint NOT NULL, status text NOT NULL, total numeric NOT NULL,
    placed date NOT NULL, PRIMARY KEY (tenant_id, id))`;

const READS: readonly (readonly [name: string, sql: string])[] = [
  ['count', 'SELECT count(*) FROM invoice'],
  ['sum, avg', 'SELECT sum(total), avg(total) FROM invoice'],
  ['min, max of a part', `SELECT min(placed), max(total) FROM invoice WHERE status = 'status 3'`],
  ['every', 'SELECT every(total > 0) FROM invoice'],
  ['stddev of an integer', 'SELECT stddev(id) FROM invoice'],
  ['stddev of a numeric', 'SELECT stddev(total) FROM invoice'],
  ['stddev of a numeric by a column', 'SELECT status, stddev(total) FROM invoice GROUP BY status ORDER BY status'],
  [
    'the largest stddev of many groups',
    'SELECT account_id, stddev(total) FROM invoice GROUP BY account_id ORDER BY 2 DESC, 1 LIMIT 10',
  ],
  ['group by another column', 'SELECT status, count(*), sum(total) FROM invoice GROUP BY status ORDER BY status'],
  [
    'the ten largest of many groups',
    'SELECT account_id, sum(total) FROM invoice GROUP BY account_id ORDER BY 2 DESC, 1 LIMIT 10',
  ],
  [
    'the largest of many groups on both shards',
    'SELECT id % 100003, sum(total) FROM invoice GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10',
  ],
  [
    'the same, rows of a group together',
    'SELECT id / 10, sum(total) FROM invoice GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10',
  ],
  [
    'the largest stddev of many groups on both shards',
    'SELECT id % 100003, stddev(total) FROM invoice GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10',
  ],
  [
    'the largest stddev, rows of a group together',
    'SELECT id / 10, stddev(total) FROM invoice GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10',
  ],
  ['group by the key', 'SELECT tenant_id, count(*), sum(total) FROM invoice GROUP BY tenant_id ORDER BY tenant_id'],
  ['order by, limit 10', 'SELECT * FROM invoice ORDER BY total DESC, id LIMIT 10'],
  [
    'order by, limit 10 offset 1000',
    `SELECT id, total FROM invoice WHERE status = 'status 3' ORDER BY total DESC, id LIMIT 10 OFFSET 1000`,
  ],
  ['order by an expression, limit 10', 'SELECT id, total FROM invoice ORDER BY total % 1000 DESC, id LIMIT 10'],
  [
    'join on the key, grouped by it',
    'SELECT i.tenant_id, count(*) FROM invoice i JOIN account a USING (tenant_id) WHERE a.id <= 500 GROUP BY 1 ORDER BY 1',
  ],
];

type Place = 'database' | 'coordinator' | 'proxy';
const PLACES: readonly Place[] = ['database', 'coordinator', 'proxy'];

/** Prints a JSON line and a table; answers the exit code: 1 where an answer is not that of the one database. */
export async function shardedReads(options: ShardedReadsOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const cluster = await startCluster({ major: 18, settings: { shared_buffers: '512MB' } });
  cleanup.defer('a cluster', () => cluster.remove());
  const config = await configured(cluster, cleanup);
  await fill(cluster, config, options.rows);
  await keepCoordinator(config, 'bench');
  const proxy = await startProxy({ config });
  cleanup.defer('the proxy', () => proxy.close(0));
  const first = cluster.endpoint(SHARDS[0] ?? '');
  const [database, coordinator, through] = await Promise.all([
    connect(cluster.endpoint('whole')),
    connect(coordinatorAt(config, 'bench', first)),
    connect({ ...first, host: LOOPBACK, port: proxy.address.port, database: 'bench' }),
  ]);
  const places: Readonly<Record<Place, Connection>> = { database, coordinator, proxy: through };
  for (const place of PLACES) {
    cleanup.defer('a connection', () => places[place].end());
    await places[place].query('SET search_path TO public; SET jit TO off');
  }
  const rowsOnShards = await Promise.all(SHARDS.map((name) => rowsOf(cluster, name)));
  process.stdout.write(`${JSON.stringify({ bench: 'reads', machine: at, ...options, rowsOnShards })}\n`);
  return measureAll(places, cluster.pid, options.rounds);
}

async function rowsOf(cluster: Cluster, name: string): Promise<number> {
  const [row] = await cluster.query(name, 'SELECT count(*)::int AS rows FROM invoice');
  return Number(row?.rows);
}

async function measureAll(places: Readonly<Record<Place, Connection>>, pid: number, rounds: number): Promise<number> {
  const line = (cells: readonly string[]): void => void process.stdout.write(`| ${cells.join(' | ')} |\n`);
  const heads = ['read', 'one database, ms', 'plain, ms', 'in parts, ms', 'plain / database', 'in parts / database'];
  line([...heads, 'processor time, in parts / database']);
  line(Array.from({ length: heads.length + 1 }, () => '---'));
  let different = 0;
  for (const [name, sql] of READS) {
    const answers = await Promise.all(
      PLACES.map(async (place) => JSON.stringify((await places[place].query(sql)).rows)),
    );
    if (new Set(answers).size > 1) different += 1;
    const taken: Record<Place, Taken[]> = { database: [], coordinator: [], proxy: [] };
    for (let round = 0; round < rounds; round += 1)
      for (let turn = 0; turn < PLACES.length; turn += 1) {
        const place = PLACES[(round + turn) % PLACES.length] ?? 'database';
        taken[place].push(await timed(places[place], pid, sql));
      }
    const of = (place: Place): number => median(taken[place].map(({ ms }) => ms));
    const processorOf = (place: Place): number => taken[place].reduce((sum, { processorMs }) => sum + processorMs, 0);
    const ratio = (place: Place, what = of): string => rounded(what(place) / what('database'), 2).toFixed(2);
    const ratios = [ratio('coordinator'), ratio('proxy'), ratio('proxy', processorOf)];
    line([name, ...PLACES.map((place) => of(place).toFixed(1)), ...ratios]);
  }
  process.stdout.write(`different answers: ${different.toString()}\n`);
  return different === 0 ? 0 : 1;
}

interface Taken {
  readonly ms: number;
  /** of all servers; NaN where it cannot be told */
  readonly processorMs: number;
}

/** A worker of a parallel scan ends a little behind the answer. */
const WORKERS_END_MS = 30;

async function timed(connection: Connection, pid: number, sql: string): Promise<Taken> {
  const before = familyProcessorMs(pid);
  const start = performance.now();
  await connection.query(sql);
  const ms = performance.now() - start;
  await sleep(WORKERS_END_MS);
  const after = familyProcessorMs(pid);
  return { ms, processorMs: before === null || after === null ? NaN : after - before };
}

async function configured(cluster: Cluster, cleanup: Cleanup): Promise<Config> {
  const folder = mkdtempSync(join(temporaryFolder(), 'cutover-bench-'));
  removeAtEnd(folder);
  cleanup.defer('the folder', () => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  for (const name of ['whole', ...SHARDS]) await cluster.createDatabase(name);
  const { user, password = '', host, port } = cluster.endpoint('whole');
  const { files } = await writeConfiguration(
    folder,
    SHARDS.map((databaseName, shard) => ({ name: 'bench', host, port, databaseName, shard })),
    [{ name: user, password, schemaAdmin: true }],
  );
  appendFileSync(
    files.config,
    '\n[[sharded_tables]]\ndatabase = "bench"\ncolumn = "tenant_id"\ndata_type = "bigint"\n',
  );
  return loadConfig(files);
}

/** The same rows in the one database and over the shards, each row where the product would put it. */
async function fill(cluster: Cluster, config: Config, rows: number): Promise<void> {
  const scheme = schemeOf(config, 'bench');
  const rule = ruleOf(scheme, { schema: 'public', name: 'invoice', columns: ['tenant_id'] });
  invariant(rule.kind === 'sharded', 'the table has the sharding column');
  const many = rows.toString();
  for (const [index, name] of ['whole', ...SHARDS].entries()) {
    const kept = index === 0 ? 'true' : rowFilter(rule, index - 1, SHARDS.length);
    await cluster.query(name, `CREATE SCHEMA cutover; ${CREATE_HASH_PARENTS} ${TABLES}`);
    await cluster.query(
      name,
      `INSERT INTO account SELECT * FROM (SELECT i % 1000 AS tenant_id, i, 'account ' || i FROM generate_series(1, ${many} / 10) i) r WHERE ${kept};
       INSERT INTO invoice SELECT * FROM (SELECT i % 1000 AS tenant_id, i, i % (${many} / 10) + 1, 'status ' || i % 7, round(i / 7.0, 4),
         date '2025-01-01' + i % 365 FROM generate_series(1, ${many}) i) r WHERE ${kept}`,
    );
    await cluster.query(name, 'DROP SCHEMA cutover CASCADE');
    await cluster.query(name, 'VACUUM ANALYZE');
  }
}
