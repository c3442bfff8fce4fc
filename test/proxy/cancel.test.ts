/** One task: a cancel request stops the statement of its own client and no other. */
import { expect, test } from 'vitest';
import type pg from 'pg';
import type { Proxy } from '../../src/proxy/contract.js';
import { cancelStatement } from '../support/cancel.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, statementsSleep } from './support.js';

const clusters = useClusters({ main: { major: 17 } });

async function start(
  defaultPoolSize: number,
  queryTimeoutMs: number | null = null,
): Promise<{ proxy: Proxy; databaseName: string }> {
  const databaseName = await freshDatabase(clusters.main);
  const general = { defaultPoolSize, queryTimeoutMs };
  const proxy = await proxyFor({
    config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general }),
  });
  return { proxy, databaseName };
}

function cancel(proxy: Proxy, client: pg.Client, secretOffset = 0): Promise<void> {
  return cancelStatement(proxy.address, client, secretOffset);
}

test('only the statement of the client that asked is cancelled', async () => {
  const { proxy, databaseName } = await start(2);
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const slow = first.query('SELECT pg_sleep(30)');
  const other = second.query('SELECT pg_sleep(1), 1 AS one');
  await statementsSleep(clusters.main, databaseName, 2);
  await cancel(proxy, first);
  await expect(slow).rejects.toMatchObject({ code: '57014' });
  expect((await other).rows).toMatchObject([{ one: 1 }]);
  expect((await first.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a wrong secret cancels nothing', async () => {
  const { proxy, databaseName } = await start(1);
  const client = await clientOf(proxy, 'prod');
  const slow = client.query('SELECT pg_sleep(1), 1 AS one');
  await statementsSleep(clusters.main, databaseName, 1);
  await cancel(proxy, client, 1);
  expect((await slow).rows).toMatchObject([{ one: 1 }]);
});

test('a statement that waits for a server, or at a closed gate, is cancelled without one', async () => {
  const { proxy, databaseName } = await start(1);
  const [busy, waiting] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const ask = async (text: string): Promise<unknown> => {
    const answer = waiting.query(text).catch((error: unknown) => error);
    await until('it waits', () => proxy.clients().some(({ state }) => state === 'waiting'));
    await cancel(proxy, waiting);
    return answer;
  };
  const told = { code: '57014', message: 'canceling statement due to user request' };
  const slow = busy.query('SELECT pg_sleep(1), 1 AS one');
  await statementsSleep(clusters.main, databaseName);
  expect(await ask('SELECT 1')).toMatchObject(told);
  expect((await slow).rows).toMatchObject([{ one: 1 }]);
  const gate = proxy.gate('prod');
  gate.close('cutover');
  expect(await ask('SELECT 2')).toMatchObject(told);
  gate.open('cutover');
  expect((await waiting.query('SELECT 3 AS three')).rows).toEqual([{ three: 3 }]);
});

test('cancels that come late never hit the next client on the same server', async () => {
  const { proxy } = await start(1);
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  for (let turn = 0; turn < 60; turn += 1) {
    const short = first.query('SELECT pg_sleep(0.002)').catch((error: unknown) => error);
    const next = second.query('SELECT pg_sleep(0.005), 1 AS one');
    await cancel(proxy, first);
    await short;
    expect((await next).rows).toMatchObject([{ one: 1 }]);
  }
});

test('cancelRunning stops every statement of the database, and query_timeout those that run too long', async () => {
  const { proxy, databaseName } = await start(2);
  const clients = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const answers = clients.map((client) => client.query('SELECT pg_sleep(30)').catch((error: unknown) => error));
  await statementsSleep(clusters.main, databaseName, 2);
  proxy.cancelRunning('prod');
  expect(await Promise.all(answers)).toMatchObject([{ code: '57014' }, { code: '57014' }]);
  const limited = await start(1, 100);
  const client = await clientOf(limited.proxy, 'prod');
  await expect(client.query('SELECT pg_sleep(30)')).rejects.toMatchObject({ code: '57014' });
});
