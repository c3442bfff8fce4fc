/** One task: `cutover serve --workers N` as a person starts it: one port, N nodes, one switch; a dead worker comes back. */
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
import { freePort, LOOPBACK } from '../../src/dev/ports.js';
import { childrenOf, isRunning } from '../../src/dev/processes.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';
import { withConnection } from '../../src/postgres/connection.js';
import { configText, usersText, type TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';

const PROGRAM = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const WORKERS = 3;

let source: Cluster;
let destination: Cluster;
let temporal: TemporalDevServer;
let port: number;
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
  [source, destination, temporal, port] = await Promise.all([
    startCluster({ major: 17, auth: 'scram' }),
    startCluster({ major: 18, auth: 'scram' }),
    startTemporal(),
    freePort(),
  ]);
  await Promise.all([source, destination].map((cluster) => cluster.createDatabase('app')));
  history = await prepareLedger(source.endpoint('app'), { rows: 1_000, extraTables: 3 });
  directory = mkdtempSync(join(tmpdir(), 'cutover-workers-'));
  const files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
  const general = 'cutover_lease = 2000\ncutover_save_config = true';
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
  ledger = await startLedger({ endpoint, writtenTables: 3, thinkMs: 40 });
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
    async () =>
      (await admin<TaskLine & Record<string, unknown>>('SHOW TASKS')).some((t) => t.type.endsWith('(reverse)')),
    90_000,
  );
  const lines = await nodes();
  for (const column of ['epoch', 'serving', 'fingerprint'] as const)
    expect(new Set(lines.map((n) => n[column])).size, column).toBe(1);
  expect(lines[0]?.epoch).not.toBe('0');
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
  program.kill('SIGTERM');
  expect(await ended).toBe(0);
  await until('no worker is left', () => !workers.some(isRunning));
  expect(await compareLedger(destination.endpoint('app'), ledger, history)).toMatchObject({
    ...{ lost: [], doubled: [], unexpected: [], balanceOk: true, historyOk: true },
  });
});
