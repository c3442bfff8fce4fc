/** One task: compare what is between pgbench and PostgreSQL: nothing, PgBouncer, a bare Node relay, the proxy. */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startCluster } from '../src/dev/embedded-postgres.js';
import { keepAtEnd, removeAtEnd } from '../src/dev/guardian.js';
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { writeConfiguration } from '../src/cli/demo/configuration.js';
import { startProgram } from '../src/cli/demo/program.js';
import { machine } from './machine.js';
import { initialise, measure, MODES, programPath, type Mode } from './pgbench.js';
import { startPgBouncer } from './pgbouncer.js';
import { median, rounded } from './statistics.js';

export interface RelayOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly clients: number;
  /** more than 1: the proxy in front of so many shards is measured too; each has all rows, so any key can be read anywhere */
  readonly shards: number;
}

interface Target {
  readonly name: string;
  endpoint(mode: Mode): Endpoint;
  /** printed with each of its measurements */
  note(mode: Mode): string;
}

interface Bench {
  readonly pgbench: string;
  readonly targets: readonly Target[];
}

interface Measurement {
  readonly target: string;
  readonly mode: Mode;
  readonly transactionsPerSecond: number;
}

const SCALE = 10;
const WARM_UP_SECONDS = 1;

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
  cleanup.defer(() => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  const cluster = await startCluster({ major: 18 });
  cleanup.defer(() => cluster.remove());
  await cluster.createDatabase('bench');
  const server = cluster.endpoint('bench');
  await initialise(pgbench, server, SCALE);
  const targets = [
    plain('direct', server),
    plain('bare relay', await startBareRelay(server, folder, cleanup)),
    plain('proxy', await startOurs([server], clients, folder, cleanup)),
  ];
  if (options.shards > 1) {
    const shards = await Promise.all(
      Array.from({ length: options.shards }, async (_, shard) => {
        const own = cluster.endpoint(`shard_${shard.toString()}`);
        await cluster.createDatabase(own.database);
        await initialise(pgbench, own, SCALE);
        return own;
      }),
    );
    targets.push(plain(`${options.shards.toString()} shards`, await startOurs(shards, clients, folder, cleanup)));
  }
  const bouncer = await startPgBouncer(server, clients, folder, cleanup);
  if (bouncer === undefined) {
    process.stdout.write('skipped 1 of 4 targets: PgBouncer is not installed (Debian: apt-get install pgbouncer)\n');
    return targets;
  }
  const note = (mode: Mode): string => `PgBouncer ${bouncer.version}, ${bouncer.poolMode(mode)} pooling`;
  return [...targets, { name: 'PgBouncer', note, endpoint: (mode) => bouncer.endpoint(mode) }];
}

async function startBareRelay(server: Endpoint, folder: string, cleanup: Cleanup): Promise<Endpoint> {
  const port = await freePort();
  const args = [server.host, server.port.toString(), port.toString()];
  await startOwn(new URL('./bare-relay.js', import.meta.url), args, port, folder, cleanup);
  return { ...server, host: LOOPBACK, port };
}

/** The proxy in front of one database, or of its shards by the key of pgbench's accounts. */
async function startOurs(
  servers: readonly Endpoint[],
  clients: number,
  folder: string,
  cleanup: Cleanup,
): Promise<Endpoint> {
  const [first] = servers;
  if (first === undefined) throw new Error('a proxy needs a server');
  const { user, password = '' } = first;
  const own = join(folder, `proxy-${servers.length.toString()}`);
  mkdirSync(own);
  const configuration = await writeConfiguration(
    own,
    servers.map(({ host, port, database }, shard) => ({ name: 'bench', host, port, databaseName: database, shard })),
    [{ name: user, password, schemaAdmin: true }],
    { general: [`default_pool_size = ${clients.toString()}`] },
  );
  const { config, users } = configuration.files;
  if (servers.length > 1)
    appendFileSync(config, '\n[[sharded_tables]]\ndatabase = "bench"\ncolumn = "aid"\ndata_type = "bigint"\n');
  await startOwn(new URL('./proxy-process.js', import.meta.url), [config, users], configuration.port, own, cleanup);
  return { ...first, host: LOOPBACK, port: configuration.port, database: 'bench' };
}

/** Runs a module of this folder in a process of its own. */
async function startOwn(
  module: URL,
  args: readonly string[],
  port: number,
  folder: string,
  cleanup: Cleanup,
): Promise<void> {
  const name = basename(module.pathname, '.js');
  const program = await startProgram({
    name,
    command: process.execPath,
    args: [fileURLToPath(module), ...args],
    port,
    logFile: join(folder, `${name}.log`),
  });
  cleanup.defer(() => program.stop());
}

function plain(name: string, endpoint: Endpoint): Target {
  return { name, endpoint: () => endpoint, note: () => '' };
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
  { clients, seconds }: RelayOptions,
): Promise<Measurement> {
  const endpoint = target.endpoint(mode);
  if (round === 0) await measure(pgbench, endpoint, { mode, clients, seconds: WARM_UP_SECONDS });
  const result = await measure(pgbench, endpoint, { mode, clients, seconds });
  const note = target.note(mode);
  const line = { bench: 'relay', round: round + 1, target: target.name, mode, ...result, ...(note && { note }) };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return { target: target.name, mode, transactionsPerSecond: result.transactionsPerSecond };
}

function summary(measurements: readonly Measurement[], targets: readonly Target[]): readonly string[] {
  const medianOf = (name: string, mode: Mode): number =>
    median(
      measurements.filter((one) => one.target === name && one.mode === mode).map((one) => one.transactionsPerSecond),
    );
  const row = (name: string, cells: readonly string[]): string =>
    `${name.padEnd(12)}${cells.map((cell) => cell.padStart(26)).join('')}`;
  const cell = (name: string, mode: Mode): string => {
    const perSecond = medianOf(name, mode);
    const against = (other: string): string => rounded(perSecond / medianOf(other, mode), 2).toFixed(2);
    return `${perSecond.toFixed(0)}/s  ${against('direct')} ${against('bare relay')}`;
  };
  return [
    'Median transactions a second; then the ratio to direct and to the bare relay.',
    row('', MODES),
    ...targets.map(({ name }) =>
      row(
        name,
        MODES.map((mode) => cell(name, mode)),
      ),
    ),
  ];
}
