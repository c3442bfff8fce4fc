/** One task: a closed gate holds clients between transactions, loses nothing and lets them go in order. */
import { expect, test } from 'vitest';
import type { Proxy } from '../../src/proxy/contract.js';
import { query, TERMINATE } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ main: { major: 17 } });

async function start(options: { gateWaitMs?: number; poolSize?: number } = {}): Promise<Proxy> {
  const databaseName = await freshDatabase(clusters.main);
  const general = { defaultPoolSize: options.poolSize ?? 4 };
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general });
  return proxyFor({ config, ...(options.gateWaitMs === undefined ? {} : { gateWaitMs: options.gateWaitMs }) });
}

test('a statement sent at a closed gate waits and is answered after it opens, in order of arrival', async () => {
  const proxy = await start({ poolSize: 1 });
  const clients = await Promise.all(Array.from({ length: 5 }, () => clientOf(proxy, 'prod')));
  await clients[0]?.query('CREATE TABLE arrival (at serial, client int)');
  const gate = proxy.gate('prod');
  gate.close('maintenance');
  const answers: Promise<unknown>[] = [];
  for (const [index, client] of clients.entries()) {
    answers.push(client.query('INSERT INTO arrival (client) VALUES ($1)', [index]));
    await until('the client waits at the gate', () => gate.waitingCount === index + 1);
  }
  expect(proxy.servers().filter((server) => server.clientId !== null)).toEqual([]);
  gate.open('maintenance');
  await Promise.all(answers);
  const { rows } = (await clients[0]?.query('SELECT client FROM arrival ORDER BY at')) ?? { rows: [] };
  expect(rows).toEqual([0, 1, 2, 3, 4].map((client) => ({ client })));
});

test('an open transaction ends behind a closed gate, and the drain names who held it until then', async () => {
  const proxy = await start();
  const client = await clientOf(proxy, 'prod', { application_name: 'ledger' });
  await client.query('BEGIN');
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const gate = proxy.gate('prod');
  gate.close('cutover');
  const early = await gate.drained(30);
  expect(early).toMatchObject({
    drained: false,
    holders: [{ application: 'ledger', serverPid: rows[0]?.pid, user: 'postgres' }],
  });
  const drained = gate.drained(10_000);
  await client.query('SELECT 1');
  await client.query('COMMIT');
  expect(await drained).toMatchObject({ drained: true, holders: [] });
  gate.open('cutover');
});

test('a gate closed for two reasons stays closed until both are gone', async () => {
  const proxy = await start();
  const client = await clientOf(proxy, 'prod');
  const gate = proxy.gate('prod');
  gate.close('maintenance');
  gate.close('cutover');
  const answer = client.query('SELECT 1 AS one');
  await until('the client waits', () => gate.waitingCount === 1);
  gate.open('cutover');
  expect(gate.waitingCount).toBe(1);
  gate.open('maintenance');
  expect((await answer).rows).toEqual([{ one: 1 }]);
});

test('new clients log in while the gate is closed, and their first statement waits', async () => {
  const proxy = await start();
  const gate = proxy.gate('prod');
  gate.close('pause');
  const client = await clientOf(proxy, 'prod');
  const answer = client.query('SELECT 1 AS one');
  await until('the client waits', () => gate.waitingCount === 1);
  expect(proxy.clients()).toMatchObject([{ state: 'waiting', database: 'prod' }]);
  gate.open('pause');
  expect((await answer).rows).toEqual([{ one: 1 }]);
});

test('a wait at the gate is bounded: the client reads 57P03 and its session goes on', async () => {
  const proxy = await start({ gateWaitMs: 50 });
  const client = await clientOf(proxy, 'prod');
  const gate = proxy.gate('prod');
  gate.close('maintenance');
  await expect(client.query('SELECT 1')).rejects.toMatchObject({
    code: '57P03',
    message: expect.stringContaining('maintenance') as string,
  });
  await expect(client.query('SELECT $1::int', [1])).rejects.toMatchObject({ code: '57P03' });
  gate.open('maintenance');
  expect((await client.query('SELECT $1::int AS n', [7])).rows).toEqual([{ n: 7 }]);
});

test('a client that leaves while it waits is forgotten at once, and its statement is never run', async () => {
  const proxy = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('CREATE TABLE written (n int)');
  const gate = proxy.gate('prod');
  gate.close('maintenance');
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('INSERT INTO written VALUES (1)'));
  await until('the client waits', () => gate.waitingCount === 1);
  raw.socket.end(TERMINATE);
  await until('the client is forgotten', () => gate.waitingCount === 0 && proxy.clients().length === 1);
  gate.open('maintenance');
  expect((await client.query('SELECT count(*)::int AS n FROM written')).rows).toEqual([{ n: 0 }]);
});

test('a client that always has a statement in flight is held all the same', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  const gate = proxy.gate('prod');
  let sending = true;
  // Each answer brings the next statement while others are still running: the server never has nothing to do.
  raw.socket.on('data', (chunk: Buffer) => {
    const answers = chunk.toString('latin1').split('Z\0\0\0\x05').length - 1;
    for (let answer = 0; sending && answer < answers; answer += 1) raw.send(query('SELECT pg_sleep(0.005)'));
  });
  raw.send(...Array.from({ length: 20 }, () => query('SELECT pg_sleep(0.005)')));
  await raw.until('Z', 20);
  gate.close('cutover');
  expect(await gate.drained(5_000)).toMatchObject({ drained: true });
  await until('it waits at the gate', () => gate.waitingCount === 1);
  sending = false;
  gate.open('cutover');
  await raw.until('Z');
});

test('a client that waits for a free server when the gate closes gets none', async () => {
  const proxy = await start({ poolSize: 1 });
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await first.query('BEGIN');
  const answer = second.query('SELECT 1 AS one');
  await until('the second waits in the pool', () => proxy.pools()[0]?.clientsWaiting === 1);
  const gate = proxy.gate('prod');
  gate.close('cutover');
  const drained = gate.drained(10_000);
  await first.query('COMMIT');
  expect(await drained).toMatchObject({ drained: true });
  await until('the second waits at the gate', () => gate.waitingCount === 1);
  expect(proxy.servers().filter((server) => server.clientId !== null)).toEqual([]);
  gate.open('cutover');
  expect((await answer).rows).toEqual([{ one: 1 }]);
});
