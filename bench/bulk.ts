/** One task: compare how fast much data goes through: nothing between, a bare Node relay, the proxy; as a result and as a COPY. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeConfiguration } from '../src/cli/demo/configuration.js';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { startProgram } from '../src/cli/demo/program.js';
import { startCluster } from '../src/dev/embedded-postgres.js';
import { keepAtEnd, removeAtEnd } from '../src/dev/guardian.js';
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { BareClient } from './bare-client.js';
import { machine } from './machine.js';
import { processorMs } from './processor-time.js';
import { median, rounded } from './statistics.js';

export interface BulkOptions {
  readonly megabytes: number;
  readonly rounds: number;
}

interface Target {
  readonly name: string;
  readonly endpoint: Endpoint;
  /** the process between, whose processor time is measured too */
  readonly pid?: number;
}

interface Measurement {
  readonly target: string;
  readonly kind: Kind;
  readonly megabytesPerSecond: number;
}

const KINDS = ['select', 'copy in'] as const;
type Kind = (typeof KINDS)[number];

const MEGABYTE = 1_048_576;
const LINE = `${'x'.repeat(1_023)}\n`;
const LINES_OF_PIECE = 32;
const DATABASE = 'bulk';

/** Prints a JSON line for each measurement and a summary; answers the exit code. */
export async function bulk(options: BulkOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const targets = await startTargets(cleanup);
  const measurements: Measurement[] = [];
  for (let round = 0; round < options.rounds; round += 1)
    for (const kind of KINDS)
      for (let turn = 0; turn < targets.length; turn += 1) {
        // Another one first each time: what the machine does meanwhile hits all.
        const target = targets[(round + turn) % targets.length];
        if (target) measurements.push(await measure(target, kind, options.megabytes));
      }
  const rate = (target: string, kind: Kind): number =>
    median(measurements.flatMap((one) => (one.target === target && one.kind === kind ? one.megabytesPerSecond : [])));
  const ofDirect = (kind: Kind): object =>
    Object.fromEntries(targets.map(({ name }) => [name, rounded(rate(name, kind) / rate('direct', kind), 2)]));
  const ratios = Object.fromEntries(KINDS.map((kind) => [kind, ofDirect(kind)]));
  process.stdout.write(
    `${JSON.stringify({ bench: 'bulk', summary: true, machine: at, ...options, ofDirect: ratios })}\n`,
  );
  return 0;
}

async function measure({ name, endpoint, pid }: Target, kind: Kind, megabytes: number): Promise<Measurement> {
  const lines = (megabytes * MEGABYTE) / LINE.length;
  const client = await BareClient.login(endpoint);
  const before = processorMs(pid);
  const begin = performance.now();
  if (kind === 'select')
    await client.ask(`SELECT repeat('x', ${LINE.length.toString()}) FROM generate_series(1, ${lines.toString()})`);
  else await client.copyIn('COPY line FROM STDIN', Buffer.from(LINE.repeat(LINES_OF_PIECE)), lines / LINES_OF_PIECE);
  const ms = performance.now() - begin;
  const after = processorMs(pid);
  await client.ask('TRUNCATE line');
  client.end();
  const megabytesPerSecond = rounded((megabytes * 1_000) / ms);
  const processorMsOfMegabyte = before === null || after === null ? null : rounded((after - before) / megabytes, 2);
  const line = { bench: 'bulk', target: name, kind, megabytesPerSecond, processorMsOfMegabyte };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return { target: name, kind, megabytesPerSecond };
}

async function startTargets(cleanup: Cleanup): Promise<readonly Target[]> {
  const folder = mkdtempSync(join(temporaryFolder(), 'cutover-bench-'));
  removeAtEnd(folder);
  cleanup.defer('the folder', () => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  const cluster = await startCluster({ major: 18 });
  cleanup.defer('a cluster', () => cluster.remove());
  await cluster.createDatabase(DATABASE);
  // Not logged: what the disk takes of it is the same for all, and most of the time.
  await cluster.query(DATABASE, 'CREATE UNLOGGED TABLE line (text text)');
  const server = cluster.endpoint(DATABASE);
  const { host, port, user, password = '' } = server;
  const own = join(folder, 'proxy');
  mkdirSync(own);
  const configuration = await writeConfiguration(
    own,
    [{ name: DATABASE, host, port, databaseName: DATABASE }],
    [{ name: user, password, schemaAdmin: true }],
    { general: ['auth_type = "trust"'] },
  );
  const { config, users } = configuration.files;
  const relayPort = await freePort();
  const start = async (name: string, args: readonly string[], ownPort: number): Promise<Target> => {
    const module = fileURLToPath(new URL(`./${name}.js`, import.meta.url));
    const logFile = join(folder, `${name}.log`);
    const running = { name, command: process.execPath, args: [module, ...args], port: ownPort, logFile };
    const program = await startProgram(running);
    cleanup.defer(name, () => program.stop());
    return { name, endpoint: { ...server, host: LOOPBACK, port: ownPort }, pid: program.pid };
  };
  return [
    { name: 'direct', endpoint: server },
    await start('bare-relay', [host, port.toString(), relayPort.toString()], relayPort),
    await start('proxy-process', [config, users], configuration.port),
  ];
}
