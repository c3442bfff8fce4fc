/** One task: `serve --dev`, `serve --no-worker` and `worker` as a person starts them: one move made by all of them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { freePort, LOOPBACK } from '../../src/dev/ports.js';
import { withConnection } from '../../src/postgres/connection.js';
import { spawnScript, type Child } from '../support/child.js';
import { useClusters } from '../support/clusters.js';
import { configText, usersText, type TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';

const PROGRAM = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));

const clusters = useClusters({
  source: { major: 17, auth: 'scram' },
  destination: { major: 18, auth: 'scram' },
});

let directory: string;
let port: number;
/** the task that the first program begins and the others go on with */
let task: string | undefined;

beforeAll(async () => {
  const { source, destination } = clusters;
  await Promise.all([source.createDatabase('app'), destination.createDatabase('app')]);
  await source.query('app', 'CREATE TABLE item (id int PRIMARY KEY); CREATE PUBLICATION all_tables FOR ALL TABLES');
  port = await freePort();
  directory = mkdtempSync(join(tmpdir(), 'cutover-commands-'));
  const text = configText(source, destination, 'cutover_save_config = false');
  writeFileSync(join(directory, 'pgdog.toml'), text.replace('port = 0', `port = ${port.toString()}`));
  writeFileSync(join(directory, 'users.toml'), usersText(source, destination));
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

function cutover(args: readonly string[], env: NodeJS.ProcessEnv = {}): Child {
  const files = ['--config', join(directory, 'pgdog.toml'), '--users', join(directory, 'users.toml')];
  const child = spawnScript(PROGRAM, [...args, ...files], env);
  onTestFinished(async () => {
    child.process.kill('SIGKILL');
    await child.ended;
  });
  return child;
}

const serveDev = (...args: readonly string[]): Child =>
  cutover(['serve', '--dev', '--dev-database', join(directory, 'temporal.db'), ...args]);

async function said(child: Child, what: RegExp): Promise<RegExpExecArray> {
  return until(
    `it says ${what.source}`,
    () => {
      if (child.process.exitCode !== null) throw new Error(child.output());
      return what.exec(child.output());
    },
    90_000,
  );
}

async function endsCleanly(child: Child): Promise<void> {
  child.process.kill('SIGTERM');
  expect(await child.ended, child.output()).toBe(0);
}

const ask = <Row extends Record<string, unknown>>(database: string, user: string, sql: string): Promise<Row[]> =>
  withConnection(
    { host: LOOPBACK, port, database, user, password: `${user} secret` },
    async (connection) => (await connection.query<Row>(sql)).rows,
  );

const tasks = (): Promise<(TaskLine & Record<string, unknown>)[]> => ask('admin', 'admin', 'SHOW TASKS');

async function servingMajor(): Promise<string | undefined> {
  const [row] = await ask<{ server_version: string }>('prod', 'app', 'SHOW server_version');
  return row?.server_version.split('.')[0];
}

test('serve --dev --no-worker takes a task that nobody works on', { timeout: 120_000 }, async () => {
  const program = serveDev('--no-worker');
  await said(program, /"listening"/);
  expect(program.output()).toMatch(/^Temporal: 127\.0\.0\.1:\d+, its pages: http:\/\/127\.0\.0\.1:\d+$/m);
  task = (await ask<{ task_id: string }>('admin', 'admin', 'RESHARD prod prod_new all_tables'))[0]?.task_id;
  expect((await tasks()).map((t) => t.id)).toEqual([task]);
  await endsCleanly(program);
  // Only Temporal knows it: there is nothing in the record that SHOW TASKS could read it from.
  expect(program.output()).not.toContain('the worker runs');
  expect(await clusters.source.query('app', `SELECT FROM pg_namespace WHERE nspname = 'cutover'`)).toEqual([]);
});

test('serve --dev on the same file still knows the task, and makes the move', { timeout: 240_000 }, async () => {
  const program = serveDev();
  await said(program, /"the worker runs"/);
  expect((await tasks()).map((t) => t.id)).toContain(task);
  await until('the traffic has moved', async () => (await servingMajor()) === '18', 120_000);
  await until('the way back runs', async () => (await tasks()).some((t) => t.type.endsWith('(reverse)')), 60_000);
  await endsCleanly(program);
});

test('serve --no-worker and a worker apart move the traffic back', { timeout: 240_000 }, async () => {
  const program = serveDev('--no-worker');
  const [, address] = await said(program, /^Temporal: (\S+),/m);
  await said(program, /"listening"/);
  expect(await servingMajor()).toBe('18');
  const worker = cutover(['worker'], { TEMPORAL_ADDRESS: address });
  await said(worker, /"the worker runs"/);
  const reverse = await until('the way back is a task', async () =>
    (await tasks()).find((t) => t.type.endsWith('(reverse)')),
  );
  await ask('admin', 'admin', `CUTOVER ${reverse.id ?? ''}`);
  await until('the traffic is back', async () => (await servingMajor()) === '17', 120_000);
  expect(program.output()).not.toContain('the worker runs');
  await endsCleanly(worker);
  await endsCleanly(program);
});
