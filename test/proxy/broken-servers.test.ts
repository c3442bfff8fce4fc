/** One task: a server that dies takes down only who was using it. */
import { expect, test } from 'vitest';
import type { GeneralConfig } from '../../src/config/config.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor } from './support.js';

const clusters = useClusters({ main: { major: 17 }, mortal: { major: 18 } });

async function start(cluster: Cluster, general: Partial<GeneralConfig> = {}): Promise<Proxy> {
  const databaseName = await freshDatabase(cluster);
  return proxyFor({ config: configFor([{ name: 'prod', cluster, databaseName }], { general }) });
}

test.each(['transaction', 'session'] as const)(
  'in %s mode an idle client does not notice that its server was ended',
  async (poolerMode) => {
    const proxy = await start(clusters.main, { poolerMode });
    const client = await clientOf(proxy, 'prod');
    await client.query('SELECT 1');
    const pid = proxy.servers()[0]?.remotePid ?? 0;
    await clusters.main.query('postgres', `SELECT pg_terminate_backend(${pid.toString()}, 5000)`);
    await until('the connection is gone', () => proxy.servers().every((server) => server.remotePid !== pid));
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  },
);

test("a client in a transaction or in a statement reads the server's own reason", async () => {
  const proxy = await start(clusters.main);
  const [inTransaction, inStatement, other] = await Promise.all([1, 2, 3].map(() => clientOf(proxy, 'prod')));
  await inTransaction?.query('BEGIN');
  const ended = new Promise<unknown>((resolve) => inTransaction?.once('error', resolve));
  const [{ pid: firstPid } = { pid: 0 }] =
    (await inTransaction?.query<{ pid: number }>('SELECT pg_backend_pid() AS pid'))?.rows ?? [];
  const slow = inStatement?.query('SELECT pg_sleep(30)').catch((error: unknown) => error);
  await until('the statement runs', () => proxy.servers().some((server) => server.state === 'active'));
  const secondPid = proxy.servers().find((server) => server.state === 'active')?.remotePid ?? 0;
  for (const pid of [firstPid, secondPid])
    await clusters.main.query('postgres', `SELECT pg_terminate_backend(${pid.toString()})`);
  expect(await slow).toMatchObject({ code: '57P01' });
  expect(await ended).toMatchObject({ code: '57P01' });
  expect((await other?.query('SELECT 1 AS one'))?.rows).toEqual([{ one: 1 }]);
});

test('after a crash clients get errors that say so, and are served again when the server is back', async () => {
  const proxy = await start(clusters.mortal);
  const client = await clientOf(proxy, 'prod');
  const busy = await clientOf(proxy, 'prod');
  const slow = busy.query('SELECT pg_sleep(30)').catch((error: unknown) => error);
  await until('the statement runs', () => proxy.servers().some((server) => server.state === 'active'));
  await clusters.mortal.kill();
  expect(await slow).toMatchObject({ code: '08006' });
  await expect(client.query('SELECT 1')).rejects.toMatchObject({
    code: '08006',
    message: expect.stringContaining('"prod"') as string,
  });
  await expect(client.query('SELECT $1::int', [1])).rejects.toMatchObject({ code: '08006' });
  await clusters.mortal.start();
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a wait for a connection is bounded, and the session goes on afterwards', async () => {
  const proxy = await start(clusters.main, { defaultPoolSize: 1, checkoutTimeoutMs: 100 });
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await first.query('BEGIN');
  await expect(second.query('SELECT $1::int', [1])).rejects.toMatchObject({ code: '53300' });
  await first.query('COMMIT');
  expect((await second.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('connections idle for too long are closed', async () => {
  const proxy = await start(clusters.main, { idleTimeoutMs: 50 });
  const client = await clientOf(proxy, 'prod');
  await client.query('SELECT 1');
  await until('the pool is empty', () => proxy.servers().length === 0);
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a shutdown lets the open transaction commit and tells the others why they end', async () => {
  const proxy = await start(clusters.main);
  const [busy, idle] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await busy.query('CREATE TABLE kept (n int)');
  await busy.query('BEGIN');
  await busy.query('INSERT INTO kept VALUES (1)');
  const told = new Promise<unknown>((resolve) => idle.once('error', resolve));
  const closed = proxy.close(10_000);
  expect(await told).toMatchObject({ code: '57P01' });
  await busy.query('COMMIT');
  await closed;
  await expect(clientOf(proxy, 'prod')).rejects.toThrow();
});
