/** One task: hold the Temporal dev server to what the tests and the demo rely on. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterEach, expect, test, vi } from 'vitest';
import { isRunning } from '../../src/dev/processes.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';

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

test('a wrong TEMPORAL_BIN is an error and not silently replaced', async () => {
  vi.resetModules();
  vi.stubEnv('TEMPORAL_BIN', '/nowhere/temporal');
  const { temporalBinary } = await import('../../src/dev/temporal-binary.js');
  await expect(temporalBinary()).rejects.toMatchObject({
    code: 'dev_server_unavailable',
    message: 'Temporal cannot be started: TEMPORAL_BIN (/nowhere/temporal) does not run',
  });
});
