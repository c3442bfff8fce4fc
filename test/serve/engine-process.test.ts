/** One task: `serve` runs its engine in a process of its own, which knows what the proxy knows, is started again, and ends with it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { getPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { freePort, LOOPBACK } from '../../src/dev/ports.js';
import { childrenOf, commandOf, isRunning, signalProcess } from '../../src/dev/processes.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';
import { withConnection } from '../../src/postgres/connection.js';
import { spawnScript, type Child } from '../support/child.js';
import { useClusters } from '../support/clusters.js';
import { configText, usersText, type TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';

const PROGRAM = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const ENGINE = 'engine-program.js';
/** Of a process, on a machine that is busy. */
const START_DEADLINE_MS = 60_000;
const END_DEADLINE_MS = 30_000;
const MOVE_DEADLINE_MS = 120_000;

const clusters = useClusters({
  source: { major: 17, auth: 'scram' },
  destination: { major: 18, auth: 'scram' },
});

let directory: string;
let port: number;
let temporal: TemporalDevServer;
const paths = (): readonly [string, string] => [join(directory, 'pgdog.toml'), join(directory, 'users.toml')];

beforeAll(async () => {
  const { source, destination } = clusters;
  temporal = await startTemporal();
  await Promise.all([source.createDatabase('app'), destination.createDatabase('app')]);
  await source.query('app', 'CREATE TABLE item (id int PRIMARY KEY); CREATE PUBLICATION all_tables FOR ALL TABLES');
  port = await freePort();
  directory = mkdtempSync(join(tmpdir(), 'cutover-engine-'));
  writeFileSync(paths()[0], configOf(destination.port));
  writeFileSync(paths()[1], usersText(source, destination));
});

afterAll(async () => {
  await temporal.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** No switch reaches the file. */
function configOf(destinationPort: number): string {
  const { source, destination } = clusters;
  return configText(source, destination, 'cutover_save_config = false')
    .replace('port = 0', `port = ${port.toString()}`)
    .replace(`port = ${destination.port.toString()}`, `port = ${destinationPort.toString()}`);
}

function serve(...args: readonly string[]): Child {
  const [config, users] = paths();
  const child = spawnScript(PROGRAM, ['serve', '--config', config, '--users', users, ...args], {
    TEMPORAL_ADDRESS: temporal.address,
  });
  onTestFinished(async () => {
    child.process.kill('SIGKILL');
    await child.ended;
  });
  return child;
}

async function says(child: Child, what: string, times = 1): Promise<void> {
  await until(
    `it says ${what}, ${times.toString()} times`,
    () => {
      if (child.process.exitCode !== null) throw new Error(child.output());
      return child.output().split(what).length > times;
    },
    START_DEADLINE_MS,
  );
}

function engineOf(child: Child): number | undefined {
  return childrenOf(child.process.pid ?? 0).find((pid) => commandOf(pid).some((word) => word.endsWith(ENGINE)));
}

const ask = <Row extends Record<string, unknown>>(database: string, user: string, sql: string): Promise<Row[]> =>
  withConnection(
    { host: LOOPBACK, port, database, user, password: `${user} secret` },
    async (connection) => (await connection.query<Row>(sql)).rows,
  );

async function servedBy(major: string): Promise<void> {
  const query = 'SHOW server_version';
  await until(
    `version ${major} serves`,
    async () => (await ask<{ server_version: string }>('prod', 'app', query))[0]?.server_version.startsWith(major),
    MOVE_DEADLINE_MS,
  );
}

test('it knows of a RELOAD at once; killed, it is started again and moves back', { timeout: 300_000 }, async () => {
  const { destination } = clusters;
  writeFileSync(paths()[0], configOf(await freePort()));
  const program = serve();
  await says(program, '"the worker runs"');
  const first = engineOf(program) ?? 0;
  expect(getPriority(first)).toBeGreaterThan(getPriority());
  writeFileSync(paths()[0], configOf(destination.port));
  await ask('admin', 'admin', 'RELOAD');
  await ask('admin', 'admin', 'RESHARD prod prod_new all_tables');
  await servedBy('18');
  const reverse = await until('the way back is a task', async () =>
    (await ask<TaskLine & Record<string, unknown>>('admin', 'admin', 'SHOW TASKS')).find((t) =>
      t.type.endsWith('(reverse)'),
    ),
  );
  // Neither counts before the next start, for the proxy; so not for its engine either.
  const moved = configOf(destination.port).replace('host = "127.0.0.1"', 'host = "127.0.0.2"');
  writeFileSync(paths()[0], `${moved}\n[temporal]\ntask_queue = "another"\n`);
  await ask('admin', 'admin', 'RELOAD');
  signalProcess(first, 'SIGKILL');
  await says(program, '"the engine has ended and is started again: moves wait, traffic goes on"');
  // Traffic does not wait for it.
  await servedBy('18');
  await says(program, '"the worker runs"', 2);
  await ask('admin', 'admin', `CUTOVER ${reverse.id ?? ''}`);
  await servedBy('17');
  const second = engineOf(program) ?? 0;
  expect(second).not.toBe(first);
  program.process.kill('SIGTERM');
  expect(await program.ended, program.output()).toBe(0);
  expect(isRunning(second)).toBe(false);
});

test('it ends with a proxy that is killed', { timeout: 120_000 }, async () => {
  const program = serve();
  await says(program, '"the worker runs"');
  const engine = engineOf(program) ?? 0;
  expect(isRunning(engine)).toBe(true);
  program.process.kill('SIGKILL');
  await until('the engine has ended', () => !isRunning(engine), END_DEADLINE_MS);
});

test('--worker-inside: the proxy is the only process', { timeout: 120_000 }, async () => {
  const program = serve('--worker-inside');
  await says(program, '"the worker runs"');
  expect(engineOf(program)).toBeUndefined();
  program.process.kill('SIGTERM');
  expect(await program.ended, program.output()).toBe(0);
});
