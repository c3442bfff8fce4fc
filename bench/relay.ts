/** One task: compare what is between pgbench and PostgreSQL: nothing, PgBouncer, a bare Node relay, the proxy. */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startCluster, type Cluster } from '../src/dev/embedded-postgres.js';
import { keepAtEnd, removeAtEnd } from '../src/dev/guardian.js';
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import { withConnection, type Connection } from '../src/postgres/connection.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { writeConfiguration } from '../src/cli/demo/configuration.js';
import { startProgram } from '../src/cli/demo/program.js';
import { machine } from './machine.js';
import { initialise, measure, MODES, programPath, type Mode, type Place, type Script } from './pgbench.js';
import { startPgBouncer } from './pgbouncer.js';
import { processorMs } from './processor-time.js';
import { median, rounded } from './statistics.js';

export interface RelayOptions {
  readonly script: Script;
  readonly rounds: number;
  readonly seconds: number;
  readonly clients: number;
  /** more than 1: the proxy in front of so many shards is measured too, each with the rows of its own keys */
  readonly shards: number;
  /** the proxy is measured with reads that share connections too */
  readonly pipelining: boolean;
}

interface Target {
  readonly name: string;
  /** the clients are spread over these */
  places(mode: Mode): readonly Place[];
  /** printed with each of its measurements */
  note(mode: Mode): string;
  /** a process of ours, whose processor time is measured too */
  readonly pid?: number;
}

interface Bench {
  readonly pgbench: string;
  readonly targets: readonly Target[];
}

interface Measurement {
  readonly target: string;
  readonly mode: Mode;
  readonly transactionsPerSecond: number;
  readonly p99Ms: number;
  /** of the process between, each transaction; null where it is none of ours */
  readonly processorUs: number | null;
}

const SCALE = 10;
const ACCOUNTS_PER_SCALE = 100_000;
const PIPELINED = 'pipelined';
/** What many clients wait for first is that their servers are connected. */
const WARM_UP_SECONDS = 1;
const WARMED_UP_A_SECOND = 64;
const CONNECTING_TARGETS = 5;
const SHARDED_TARGETS = 3;
const SPARE_CONNECTIONS = 50;
/** Runs the whole comparison; prints a JSON line per measurement and a summary at the end. */
export async function relay(options: RelayOptions, cleanup: Cleanup): Promise<void> {
  const pgbench = programPath('pgbench');
  if (pgbench === undefined) throw new Error('pgbench is not installed (Debian: apt-get install postgresql-contrib)');
  process.stdout.write(`${JSON.stringify({ bench: 'relay', machine: machine(), ...options })}\n`);
  const targets = await startTargets(options, pgbench, cleanup);
  const measurements = await interleaved({ pgbench, targets }, options);
  for (const line of summary(measurements, targets)) process.stdout.write(`${line}\n`);
}

async function startTargets(options: RelayOptions, pgbench: string, cleanup: Cleanup): Promise<readonly Target[]> {
  const { clients } = options;
  const folder = mkdtempSync(join(temporaryFolder(), 'cutover-bench-'));
  removeAtEnd(folder);
  cleanup.defer('the folder', () => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  // Each target that pools keeps its connections while the others are measured.
  const connections = clients * (CONNECTING_TARGETS + SHARDED_TARGETS * options.shards) + SPARE_CONNECTIONS;
  const cluster = await startCluster({ major: 18, settings: { max_connections: connections.toString() } });
  cleanup.defer('a cluster', () => cluster.remove());
  await cluster.createDatabase('bench');
  const server = cluster.endpoint('bench');
  await initialise(pgbench, server, SCALE);
  const targets: Target[] = [
    { name: 'direct', places: () => [{ endpoint: server }], note: () => '' },
    await startBareRelay(server, folder, cleanup),
    await startOurs('proxy', [server], null, clients, folder, cleanup),
  ];
  if (options.pipelining) targets.push(await startOurs(PIPELINED, [server], null, clients, folder, cleanup));
  if (options.shards > 1) targets.push(...(await startSharded(cluster, options, pgbench, folder, cleanup)));
  const bouncer = await startPgBouncer(server, clients, folder, cleanup);
  if (bouncer === undefined) {
    process.stdout.write('skipped 1 of 4 targets: PgBouncer is not installed (Debian: apt-get install pgbouncer)\n');
    return targets;
  }
  const note = (mode: Mode): string => `PgBouncer ${bouncer.version}, ${bouncer.poolMode(mode)} pooling`;
  return [...targets, { name: 'PgBouncer', note, places: (mode) => [{ endpoint: bouncer.endpoint(mode) }] }];
}

/**
 * The rows are spread over so many servers by ranges of their keys, and again by hash. By ranges each client wants the rows of one server
 * alone: of a database of its own that it names, or of a shard that the proxy finds. By hash each transaction wants another shard.
 */
async function startSharded(
  cluster: Cluster,
  { shards, clients }: RelayOptions,
  pgbench: string,
  folder: string,
  cleanup: Cleanup,
): Promise<readonly Target[]> {
  const numbers = Array.from({ length: shards }, (_, shard) => shard);
  const ranges = numbers.map((shard) => accountsOf(shard, shards));
  const made = (name: string, own: (shard: number) => string): Promise<readonly Endpoint[]> =>
    Promise.all(
      numbers.map(async (shard) => {
        const endpoint = cluster.endpoint(`${name}_${shard.toString()}`);
        await cluster.createDatabase(endpoint.database);
        await initialise(pgbench, endpoint, SCALE);
        await withConnection(endpoint, (connection) => keepRows(connection, own(shard)));
        return endpoint;
      }),
    );
  const byRange = await made('range', (shard) => `aid BETWEEN ${(ranges[shard] ?? []).join(' AND ')}`);
  const hash = (shard: number): string =>
    `'public.by_hash'::regclass, ${shards.toString()}, ${shard.toString()}, aid::bigint`;
  const byHash = await made('hash', (shard) => `satisfies_hash_partition(${hash(shard)})`);
  const start = (name: string, servers: readonly Endpoint[], key: string | null): Promise<Target> =>
    startOurs(`${shards.toString()} ${name}`, servers, key, clients, folder, cleanup);
  const mapping = ranges.map(
    ([first, last], shard) =>
      `{ start = ${first.toString()}, end = ${(last + 1).toString()}, shard = ${shard.toString()} }`,
  );
  const databases = await start('databases', byRange, null);
  const own = await start('shards, own', byRange, `mapping = [${mapping.join(', ')}]`);
  const of = (target: Target): Target => {
    const [first, ...others] = target.places('simple');
    if (first === undefined) throw new Error('a target has a place');
    return {
      ...target,
      places: () => ranges.map((accounts, shard) => ({ ...(others[shard - 1] ?? first), accounts })),
    };
  };
  return [of(databases), of(own), await start('shards', byHash, '')];
}

type Accounts = readonly [first: number, last: number];

function accountsOf(shard: number, shards: number): Accounts {
  const all = SCALE * ACCOUNTS_PER_SCALE;
  return [Math.floor((all * shard) / shards) + 1, Math.floor((all * (shard + 1)) / shards)];
}

/** All servers together have the rows once, as one database has them: twice as many would not fit into the buffers. */
async function keepRows(connection: Connection, own: string): Promise<void> {
  await connection.query('CREATE TABLE public.by_hash (aid bigint) PARTITION BY HASH (aid)');
  await connection.query(`DELETE FROM public.pgbench_accounts WHERE NOT ${own}`);
  await connection.query('DROP TABLE public.by_hash');
  await connection.query('VACUUM FULL public.pgbench_accounts');
  await connection.query('VACUUM ANALYZE public.pgbench_accounts');
}

async function startBareRelay(server: Endpoint, folder: string, cleanup: Cleanup): Promise<Target> {
  const port = await freePort();
  const args = [server.host, server.port.toString(), port.toString()];
  const pid = await startOwn(new URL('./bare-relay.js', import.meta.url), args, port, folder, cleanup);
  return ours('bare relay', [{ ...server, host: LOOPBACK, port }], pid);
}

/**
 * The proxy in front of databases of their own, or of the shards of one by the key of pgbench's accounts.
 *
 * @param key what is said of the key besides its column; null: no shards
 */
async function startOurs(
  name: string,
  servers: readonly Endpoint[],
  key: string | null,
  clients: number,
  folder: string,
  cleanup: Cleanup,
): Promise<Target> {
  const [first] = servers;
  if (first === undefined) throw new Error('a proxy needs a server');
  const { user, password = '' } = first;
  const own = join(folder, name.replaceAll(/\W+/g, '-'));
  const nameOf = (shard: number): string => (key !== null ? 'bench' : `bench_${shard.toString()}`);
  mkdirSync(own);
  const configuration = await writeConfiguration(
    own,
    servers.map(({ host, port, database }, shard) => ({
      ...{ name: nameOf(shard), host, port, databaseName: database },
      shard: key === null ? 0 : shard,
    })),
    [{ name: user, password, schemaAdmin: true }],
    { general: [`default_pool_size = ${clients.toString()}`, `pipelining = "${name === PIPELINED ? 'auto' : 'off'}"`] },
  );
  const { config, users } = configuration.files;
  if (key !== null)
    appendFileSync(config, `\n[[sharded_tables]]\ndatabase = "bench"\ncolumn = "aid"\ndata_type = "bigint"\n${key}\n`);
  const module = new URL('./proxy-process.js', import.meta.url);
  const pid = await startOwn(module, [config, users], configuration.port, own, cleanup);
  const names = new Set(servers.map((_, shard) => nameOf(shard)));
  const endpoints = [...names].map((database) => ({ ...first, host: LOOPBACK, port: configuration.port, database }));
  return ours(name, endpoints, pid);
}

/** Runs a module of this folder in a process of its own. @returns its id */
async function startOwn(
  module: URL,
  args: readonly string[],
  port: number,
  folder: string,
  cleanup: Cleanup,
): Promise<number> {
  const name = basename(module.pathname, '.js');
  const program = await startProgram({
    name,
    command: process.execPath,
    args: [fileURLToPath(module), ...args],
    port,
    logFile: join(folder, `${name}.log`),
  });
  cleanup.defer('a program', () => program.stop());
  return program.pid;
}

function ours(name: string, endpoints: readonly Endpoint[], pid: number): Target {
  const places = endpoints.map((endpoint) => ({ endpoint }));
  return { name, places: () => places, note: () => '', pid };
}

/** Every round measures every target once in each mode, another one first each time: what the machine does meanwhile hits all. */
async function interleaved(bench: Bench, options: RelayOptions): Promise<readonly Measurement[]> {
  const measurements: Measurement[] = [];
  for (let round = 0; round < options.rounds; round += 1) {
    for (const mode of MODES) {
      const { targets } = bench;
      for (let turn = 0; turn < targets.length; turn += 1) {
        const target = targets[(round + turn) % targets.length];
        if (target !== undefined) measurements.push(await measureOnce(bench, target, mode, round, options));
      }
    }
  }
  return measurements;
}

async function measureOnce(
  { pgbench }: Bench,
  target: Target,
  mode: Mode,
  round: number,
  { script, clients, seconds }: RelayOptions,
): Promise<Measurement> {
  const places = target.places(mode);
  if (round === 0)
    await measure(pgbench, places, {
      script,
      mode,
      clients,
      seconds: WARM_UP_SECONDS + Math.ceil(clients / WARMED_UP_A_SECOND),
    });
  const before = processorMs(target.pid);
  const result = await measure(pgbench, places, { script, mode, clients, seconds });
  const after = processorMs(target.pid);
  const { transactionsPerSecond, p99Ms } = result;
  const transactions = transactionsPerSecond * seconds;
  const processorUs = before === null || after === null ? null : rounded(((after - before) * 1_000) / transactions);
  const note = target.note(mode);
  const more = { ...(processorUs !== null && { processorUs }), ...(note && { note }) };
  const line = { bench: 'relay', round: round + 1, target: target.name, mode, ...result, ...more };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return { target: target.name, mode, transactionsPerSecond, p99Ms, processorUs };
}

function summary(measurements: readonly Measurement[], targets: readonly Target[]): readonly string[] {
  const of = (name: string, mode: Mode): readonly Measurement[] =>
    measurements.filter((one) => one.target === name && one.mode === mode);
  const medianOf = (name: string, mode: Mode): number => median(of(name, mode).map((one) => one.transactionsPerSecond));
  const row = (name: string, cells: readonly string[]): string =>
    `${name.padEnd(14)}${cells.map((cell) => cell.padStart(46)).join('')}`;
  const cell = (name: string, mode: Mode): string => {
    const perSecond = medianOf(name, mode);
    const against = (other: string): string => rounded(perSecond / medianOf(other, mode), 2).toFixed(2);
    const processorUs = median(of(name, mode).flatMap((one) => one.processorUs ?? []));
    const time = Number.isNaN(processorUs) ? '' : `${processorUs.toFixed(0)} µs`;
    const ratios = `${against('direct')} ${against('bare relay')} ${against('proxy')}`;
    const p99Ms = median(of(name, mode).map((one) => one.p99Ms));
    return `${perSecond.toFixed(0)}/s  ${ratios} ${time.padStart(6)} ${p99Ms.toFixed(2).padStart(6)} ms`;
  };
  return [
    'Median transactions a second; the ratio to direct, to the bare relay and to the proxy; processor time of the process between; p99 of a transaction.',
    row('', MODES),
    ...targets.map(({ name }) =>
      row(
        name,
        MODES.map((mode) => cell(name, mode)),
      ),
    ),
  ];
}
