/** One task: `cutover serve --workers N` as a person starts it: one port, N nodes, one switch; a dead worker comes back, and is missed. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compareLedger } from '../../src/dev/ledger/compare.js';
import { startLedger, type Ledger } from '../../src/dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import { startCluster, type Cluster } from '../../src/dev/embedded-postgres.js';
import { release, watch } from '../../src/dev/guardian.js';
import { freePorts, LOOPBACK } from '../../src/dev/ports.js';
import { childrenOf, isRunning } from '../../src/dev/processes.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';
import { connect, withConnection } from '../../src/postgres/connection.js';
import { samplesOf } from '../monitoring/exposition.js';
import { readiness, scrape } from '../monitoring/watching.js';
import { configText, usersText, type TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';

const PROGRAM = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const WORKERS = 3;

let source: Cluster;
let destination: Cluster;
let temporal: TemporalDevServer;
let port: number;
let monitoringPort: number;
let directory: string;
let program: ChildProcess;
let ended: Promise<number | null>;
let output = '';
let history: LoadedHistory;
let ledger: Ledger;

const admin = <Row extends Record<string, unknown>>(command: string): Promise<Row[]> =>
  withConnection(
    { host: LOOPBACK, port, database: 'admin', user: 'admin', password: 'admin secret' },
    async (connection) => (await connection.query<Row>(command)).rows,
  );

beforeAll(async () => {
  let ports: readonly number[];
  [source, destination, temporal, ports] = await Promise.all([
    startCluster({ major: 17, auth: 'scram' }),
    startCluster({ major: 18, auth: 'scram' }),
    startTemporal(),
    freePorts(2),
  ]);
  [port = 0, monitoringPort = 0] = ports;
  await Promise.all([source, destination].map((cluster) => cluster.createDatabase('app')));
  history = await prepareLedger(source.endpoint('app'), { rows: 1_000, extraTables: 3 });
  directory = mkdtempSync(join(tmpdir(), 'cutover-workers-'));
  const files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
  const general = `cutover_lease = 2000
cutover_save_config = true
healthcheck_port = ${monitoringPort.toString()}
openmetrics_port = ${monitoringPort.toString()}`;
  const where = `\n[temporal]\naddress = "${temporal.address}"\n`;
  const text = configText(source, destination, general).replace('port = 0', `port = ${port.toString()}`);
  writeFileSync(files.config, text + where);
  writeFileSync(files.users, usersText(source, destination));
  program = spawn(
    process.execPath,
    [PROGRAM, 'serve', '--config', files.config, '--users', files.users, '--workers', WORKERS.toString()],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  program.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()));
  if (program.pid !== undefined) watch({ pid: program.pid, signal: 'SIGKILL' });
  ended = new Promise((resolve) => program.once('exit', resolve));
  await until(
    'the engine runs',
    () => {
      if (program.exitCode !== null) throw new Error(output);
      return output.includes('the worker runs');
    },
    60_000,
  );
  const endpoint = { host: LOOPBACK, port, database: 'prod', user: 'app', password: 'app secret' };
  ledger = await startLedger({ endpoint, writtenTables: 3, thinkMs: 80 });
});

afterAll(async () => {
  await ledger.stop();
  program.kill('SIGKILL');
  await ended;
  if (program.pid !== undefined) release(program.pid);
  await temporal.stop();
  await Promise.all([source.remove(), destination.remove()]);
  rmSync(directory, { recursive: true, force: true });
});

interface NodeLine extends Record<string, unknown> {
  readonly node: string;
  readonly database: string;
  readonly epoch: string;
  readonly serving: string;
  readonly fingerprint: string;
  readonly problem: string | null;
}

async function nodes(): Promise<readonly NodeLine[]> {
  return (await admin<NodeLine>('SHOW NODES')).filter((n) => n.database === 'prod');
}

async function writes(count = 100): Promise<void> {
  const before = ledger.acknowledged.length;
  await until('writes are acknowledged', () => ledger.acknowledged.length >= before + count, 60_000);
}

test('each worker is a node, and the clients of all of them are shown by any of them', async () => {
  expect((await nodes()).map((n) => n.node)).toEqual(['local/1', 'local/2', 'local/3']);
  const clients = await admin<{ application_name: string }>('SHOW CLIENTS');
  expect(clients.filter((c) => c.application_name.startsWith('ledger'))).toHaveLength(9);
});

/** What each worker has of a metric, by its number; null for one that has no such sample. */
async function ofWorkers(metric: string, labels: Readonly<Record<string, string>> = {}): Promise<(number | null)[]> {
  const families = await scrape(monitoringPort);
  return ['1', '2', '3'].map((worker) => {
    const samples = samplesOf(families, metric, { ...labels, worker });
    return samples.length === 0 ? null : samples.reduce((sum, { value }) => sum + value, 0);
  });
}

test('monitoring tells of every worker by itself', async () => {
  expect(await ofWorkers('worker_up')).toEqual([1, 1, 1]);
  const clients = await ofWorkers('clients');
  expect(clients.reduce<number>((sum, count) => sum + (count ?? 0), 0)).toBe(9);
  expect(await readiness(monitoringPort)).toEqual({ status: 200, reasons: [] });
  expect(output).toMatch(/"worker":[123],"client":\d+,"user":"app".*"msg":"client connected"/);
});

test('SIGHUP changes how all of them write the log, the supervisor too', async () => {
  const file = join(directory, 'pgdog.toml');
  writeFileSync(file, readFileSync(file, 'utf8').replace('[general]\n', '[general]\nlog_format = "text"\n'));
  program.kill('SIGHUP');
  for (const worker of [1, 2, 3])
    await until('it has reloaded', () =>
      new RegExp(`^\\S+Z INFO configuration reloaded worker=${worker.toString()}$`, 'm').test(output),
    );
});

test('what is told to one worker holds for all of them', async () => {
  await admin('MAINTENANCE ON prod');
  const before = ledger.acknowledged.length;
  await until('every worker holds', async () => (await nodes()).every((n) => n.held_by === 'maintenance'));
  const held = ledger.acknowledged.length;
  await admin('MAINTENANCE OFF prod');
  await writes();
  // What was on its way when the gates closed; nothing after that.
  expect(held - before).toBeLessThan(50);
});

test('they switch as one', { timeout: 120_000 }, async () => {
  await admin(`RESHARD prod prod_new ${PUBLICATION}`);
  await until(
    'the traffic has moved',
    async () => {
      const tasks = await admin<TaskLine & Record<string, unknown>>('SHOW TASKS');
      expect(tasks.filter((t) => t.status.startsWith('failed'))).toEqual([]);
      return tasks.some((t) => t.type.endsWith('(reverse)'));
    },
    90_000,
  );
  const lines = await nodes();
  for (const column of ['epoch', 'serving', 'fingerprint'] as const)
    expect(new Set(lines.map((n) => n[column])).size, column).toBe(1);
  expect(lines[0]?.epoch).not.toBe('0');
  expect(await ofWorkers('epoch_resolved', { database: 'prod' })).toEqual(lines.map((n) => Number(n.epoch)));
  for (const pauseSeconds of await ofWorkers('gate_last_pause_seconds', { database: 'prod' }))
    expect(pauseSeconds).toBeGreaterThan(0);
  await writes();
  expect(ledger.refused).toEqual([]);
  await until('the files are saved once', () =>
    new RegExp(`name = "prod"[^[]*port = ${destination.port.toString()}`).test(
      readFileSync(join(directory, 'pgdog.toml'), 'utf8'),
    ),
  );
  // It runs apart from all of them: nobody tells it.
  await until('the engine knows the new names', () => output.includes('the engine has read its configuration anew'));
});

test(
  'a worker that is killed is started again, and serves the side that was decided',
  { timeout: 60_000 },
  async () => {
    const [victim] = childrenOf(program.pid ?? 0);
    process.kill(victim ?? 0, 'SIGKILL');
    await until('the worker is gone', () => !isRunning(victim ?? 0));
    await until('that is told', () => / WARN a worker has ended and is started again worker=[123] /.test(output));
    expect((await ofWorkers('worker_up')).sort()).toEqual([0, 1, 1]);
    expect(await readiness(monitoringPort)).toEqual({
      status: 200,
      reasons: [expect.stringMatching(/^worker [123]: does not answer$/)],
    });
    await until(
      'three nodes serve one side again',
      async () => {
        const lines = await nodes().catch(() => []);
        return lines.length === WORKERS && lines.every((n) => n.problem === null && n.serving === lines[0]?.serving);
      },
      30_000,
    );
    await writes();
  },
);

test('ends with all its workers, and has lost nothing', { timeout: 60_000 }, async () => {
  await ledger.stop();
  const workers = childrenOf(program.pid ?? 0);
  expect(workers.length).toBeGreaterThanOrEqual(WORKERS);
  const last = await connect({ host: LOOPBACK, port, database: 'prod', user: 'app', password: 'app secret' });
  await last.query('BEGIN');
  program.kill('SIGTERM');
  // Of the program as a whole, and not only of workers that end one by one.
  await until(
    'nobody should come any more',
    async () => (await readiness(monitoringPort)).reasons[0] === 'shutting down',
  );
  await last.query('COMMIT');
  await last.end().catch(() => undefined);
  expect(await ended).toBe(0);
  await until('no worker is left', () => !workers.some(isRunning));
  expect(await compareLedger(destination.endpoint('app'), ledger, history)).toMatchObject({
    ...{ lost: [], doubled: [], unexpected: [], balanceOk: true, historyOk: true },
  });
});
