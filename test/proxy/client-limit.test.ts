/** One task: only so many clients get in, each other one is told why, and neither silence nor a full house keeps an administrator out. */
import { expect, test } from 'vitest';
import type { Proxy } from '../../src/proxy/contract.js';
import { errorField } from '../../src/wire/backend.js';
import { cancelRequest, query, startupMessage } from '../../src/wire/frontend.js';
import { RESERVE } from '../../src/proxy/client-limit.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient, statementsSleep, USER, type Overrides } from './support.js';

const clusters = useClusters({ main: { major: 18 } });
const admin = { execute: () => Promise.resolve({ tag: 'FINE', columns: [], rows: [] }) };

async function start(maxClients: number, general: Overrides['general'] = {}) {
  const databaseName = await freshDatabase(clusters.main);
  const config = (limit: number) =>
    configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general: { ...general, maxClients: limit } });
  return { proxy: await proxyFor({ config: config(maxClients), admin }), config, databaseName };
}

async function fieldsOf(raw: RawClient): Promise<(string | undefined)[]> {
  const error = (await raw.until('E')).find((message) => message.type === 'E');
  return ['S', 'C', 'M', 'H'].map((code) => error && errorField(error.bytes, 0, error.bytes.length, code));
}

const asksForProd = startupMessage({ user: USER, database: 'prod' });

function refusedOne(proxy: Proxy): RawClient {
  const raw = new RawClient(proxy);
  raw.send(asksForProd);
  return raw;
}

test('the client beyond the limit reads 53300 and what to do; one that leaves makes room, and a reload changes the limit', async () => {
  const { proxy, config } = await start(2);
  const [first, second] = [await RawClient.loggedIn(proxy, 'prod'), await RawClient.loggedIn(proxy, 'prod')];
  const refused = refusedOne(proxy);
  expect(await fieldsOf(refused)).toEqual([
    'FATAL',
    '53300',
    'too many clients: 2 are the most (cutover_max_clients)',
    'Close connections that are not needed, or raise cutover_max_clients and send RELOAD; see SHOW CLIENTS.',
  ]);
  await until('it is closed', () => refused.closed);
  first.socket.end();
  await until('one has left', () => proxy.clients().length === 1);
  await RawClient.loggedIn(proxy, 'prod');
  proxy.apply(config(3));
  await RawClient.loggedIn(proxy, 'prod');
  proxy.apply(config(1));
  expect((await fieldsOf(refusedOne(proxy)))[1]).toBe('53300');
  // Who is in stays in.
  second.send(query('SELECT 1'));
  await second.until('Z');
});

test('a full house lets administrators in, and cancel requests', async () => {
  const { proxy, databaseName } = await start(1);
  const raw = new RawClient(proxy);
  raw.send(asksForProd);
  const key = (await raw.until('Z')).find(({ type }) => type === 'K')?.bytes ?? Buffer.alloc(0);
  raw.send(query('SELECT pg_sleep(30)'));
  await statementsSleep(clusters.main, databaseName);
  expect((await fieldsOf(refusedOne(proxy)))[1]).toBe('53300');
  const administrator = await clientOf(proxy, 'admin', { user: 'admin', password: 'admin secret' });
  expect((await administrator.query('FINE')).command).toBe('FINE');
  new RawClient(proxy).send(cancelRequest(key.readInt32BE(5), key.subarray(9)));
  expect((await fieldsOf(raw))[1]).toBe('57014');
});

test('connections that never log in are bounded, and make room for clients and administrators, the oldest first', async () => {
  const { proxy } = await start(2, { clientLoginTimeoutMs: 60_000 });
  const [oldest, second] = [new RawClient(proxy), new RawClient(proxy)];
  const silent = [oldest, second, ...Array.from({ length: RESERVE }, () => new RawClient(proxy))];
  await Promise.all(silent.map(({ socket }) => until('it is open', () => !socket.connecting)));
  const client = await RawClient.loggedIn(proxy, 'prod');
  expect((await fieldsOf(oldest)).slice(0, 2)).toEqual(['FATAL', '53300']);
  await clientOf(proxy, 'admin', { user: 'admin', password: 'admin secret' });
  expect((await fieldsOf(second))[1]).toBe('53300');
  await until('two are closed', () => silent.filter(({ closed }) => closed).length === 2);
  client.send(query('SELECT 1'));
  await client.until('Z');
});

test('where everybody has logged in and the reserve is taken, the next one is refused unheard', async () => {
  const { proxy } = await start(1, { authType: 'trust' });
  await RawClient.loggedIn(proxy, 'prod');
  const administrators = Array.from({ length: RESERVE }, () => new RawClient(proxy));
  await Promise.all(
    administrators.map(async (raw) => {
      raw.send(startupMessage({ user: 'admin', database: 'admin' }));
      await raw.until('Z');
    }),
  );
  expect((await fieldsOf(new RawClient(proxy)))[1]).toBe('53300');
});
