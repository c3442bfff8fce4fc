/** One task: hold the Temporal dev server to what the tests and the demo rely on. */
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, Connection } from '@temporalio/client';
import { afterEach, expect, test, vi } from 'vitest';
import { isRunning } from '../../src/dev/processes.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';
import { spawnScript } from '../support/child.js';

const DEMO = fileURLToPath(new URL('../../dist/src/cli/demo.js', import.meta.url));
const ends: (() => Promise<void> | void)[] = [];

async function start(options: Parameters<typeof startTemporal>[0] = {}): Promise<TemporalDevServer> {
  const server = await startTemporal(options);
  ends.push(() => server.stop());
  return server;
}

async function withClient<T>(server: TemporalDevServer, work: (client: Client) => Promise<T>): Promise<T> {
  const connection = await Connection.connect({ address: server.address });
  try {
    return await work(new Client({ connection, namespace: server.namespace }));
  } finally {
    await connection.close();
  }
}

afterEach(async () => {
  vi.unstubAllEnvs();
  for (const end of ends.splice(0).reverse()) await end();
});

test('two servers on one machine do not meet, nor take the ports of a standing installation', async () => {
  const [first, second] = await Promise.all([start(), start({ ui: true })]);
  expect(first.address).not.toBe(second.address);
  for (const address of [first.address, second.address, second.uiAddress ?? ''])
    expect(address).not.toMatch(/:[78]233$/);
  expect(first.uiAddress).toBeUndefined();
  const page = await fetch(second.uiAddress ?? '');
  expect(page.status).toBe(200);
});

test('a workflow survives a killed server that has a database file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cutover-test-'));
  ends.push(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const server = await start({ databaseFile: join(folder, 'temporal.db') });
  await withClient(server, (client) =>
    client.workflow.start('unknown', { taskQueue: 'nobody', workflowId: 'kept', args: [] }),
  );
  const { pid, address } = server;
  await server.kill();
  expect(isRunning(pid)).toBe(false);
  await server.start();
  expect(server.address).toBe(address);
  const description = await withClient(server, (client) => client.workflow.getHandle('kept').describe());
  expect(description.status.name).toBe('RUNNING');
});

/** Asks anew, as a process does that has just begun. */
async function find(report?: (sentence: string) => void): Promise<string> {
  vi.resetModules();
  const { temporalBinary } = await import('../../src/dev/temporal-binary.js');
  return temporalBinary(report);
}

function emptyFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'cutover-test-'));
  ends.push(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

test('a temporal program on PATH is used, before one elsewhere', async () => {
  vi.stubEnv('TEMPORAL_BIN', '');
  const [folder, other] = [emptyFolder(), emptyFolder()];
  const program = join(folder, 'temporal');
  writeFileSync(program, '#!/bin/sh\n[ "$1" = --version ]\n', { mode: 0o755 });
  vi.stubEnv('PATH', [other, folder, '/bin'].join(delimiter));
  expect(await find()).toBe(program);
  writeFileSync(join(other, 'temporal'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  expect(await find(), 'one that does not run is passed over').toBe(program);
});

test('where there is none, no download and no Go, one line says what to do, as the demo does', async () => {
  const folder = emptyFolder();
  // For root, who has to find the user that PostgreSQL runs as.
  symlinkSync('/usr/bin/id', join(folder, 'id'));
  const bare = {
    ...{ TEMPORAL_BIN: '', PATH: folder, HOME: folder, XDG_CACHE_HOME: folder, GOPATH: folder, GOROOT: folder },
    // The SDK's download goes this way, and nobody is there.
    ...{ HTTPS_PROXY: 'http://127.0.0.1:1', https_proxy: 'http://127.0.0.1:1', NO_PROXY: '', no_proxy: '' },
  };
  const demo = spawnScript(DEMO, ['--rows', '1'], bare);
  ends.push(() => void demo.process.kill('SIGKILL'));
  expect(await demo.ended).toBe(1);
  expect(demo.output().split('\n').slice(-3)).toEqual([
    'demo: Temporal cannot be started: no temporal program on this machine, no download and no Go',
    'Install the Temporal CLI (https://docs.temporal.io/cli) or Go 1.24 or later, or point TEMPORAL_BIN at the program.',
    '',
  ]);
});

test('a wrong TEMPORAL_BIN is an error and not silently replaced', async () => {
  vi.stubEnv('TEMPORAL_BIN', '/nowhere/temporal');
  await expect(find()).rejects.toMatchObject({
    code: 'dev_server_unavailable',
    message: 'Temporal cannot be started: TEMPORAL_BIN (/nowhere/temporal) does not run',
  });
});
