/** One task: a client that breaks the protocol hurts itself and nobody else. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Proxy } from '../../src/proxy/contract.js';
import { errorField, frame } from '../../src/wire/backend.js';
import { query, startupMessage } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ main: { major: 18 } });

async function start(): Promise<Proxy> {
  const databaseName = await freshDatabase(clusters.main);
  const general = { defaultPoolSize: 1, clientLoginTimeoutMs: 2_000 };
  return proxyFor({ config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general }) });
}

async function sqlstateOf(raw: RawClient): Promise<string | undefined> {
  const error = (await raw.until('E')).find((message) => message.type === 'E');
  return error && errorField(error.bytes, 0, error.bytes.length, 'C');
}

test('garbage in place of a startup packet is told apart and closed', async () => {
  const proxy = await start();
  const packets = [
    Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'),
    Buffer.from([0, 0, 0, 8, 0, 2, 0, 0]),
    Buffer.from([0, 0, 0, 9, 0, 3, 0, 0, 65]),
    Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0]),
  ];
  for (const packet of packets) {
    const raw = new RawClient(proxy);
    raw.send(packet);
    expect(await sqlstateOf(raw)).toBe('08P01');
    await until('it is closed', () => raw.closed);
  }
});

test('messages of the wrong kind or length end that session only', async () => {
  const proxy = await start();
  const good = await clientOf(proxy, 'prod');
  const lies = [
    Buffer.from('Q\xff\xff\xff\xff', 'latin1'),
    Buffer.from('Q\0\0\0\x03', 'latin1'),
    frame('Z', Buffer.from('I')),
    frame('p', Buffer.from('password\0')),
    frame('D'),
    frame('P', Buffer.from('no end')),
    frame('B', Buffer.from('\0no end')),
  ];
  for (const bytes of lies) {
    const raw = await RawClient.loggedIn(proxy, 'prod');
    raw.send(bytes);
    expect(await sqlstateOf(raw)).toBe('08P01');
    await until('it is closed', () => raw.closed);
    expect((await good.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  }
});

test('arbitrary bytes from several clients never disturb another one', async () => {
  const proxy = await start();
  const good = await clientOf(proxy, 'prod');
  await good.query('CREATE TABLE safe (n int); INSERT INTO safe VALUES (0)');
  let turns = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }),
      fc.boolean(),
      async (chunks, valid) => {
        const raw = await RawClient.loggedIn(proxy, 'prod');
        if (valid) raw.send(query('BEGIN'));
        for (const chunk of chunks) raw.send(Buffer.from(chunk));
        raw.socket.end();
        await good.query('UPDATE safe SET n = n + 1');
        turns += 1;
      },
    ),
    { numRuns: 60 },
  );
  expect((await good.query('SELECT n FROM safe')).rows).toEqual([{ n: turns }]);
  await until('only the good client is left', () => proxy.clients().length === 1);
});

test('a client that vanishes in a transaction is rolled back, and its server serves the next one', async () => {
  const proxy = await start();
  const good = await clientOf(proxy, 'prod');
  await good.query('CREATE TABLE kept (n int)');
  const { rows } = await good.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('BEGIN; INSERT INTO kept VALUES (1)'));
  await raw.until('Z');
  raw.socket.destroy();
  expect((await good.query('SELECT count(*)::int AS n, pg_backend_pid() AS pid FROM kept')).rows).toEqual([
    { n: 0, pid: rows[0]?.pid },
  ]);
});

test('a statement sent together with the goodbye is run to its end, as by PostgreSQL', async () => {
  const proxy = await start();
  const good = await clientOf(proxy, 'prod');
  await good.query('CREATE TABLE kept (n int)');
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('INSERT INTO kept SELECT 1 FROM pg_sleep(0.05)'), frame('X'));
  raw.socket.end();
  await until('the row is there', async () => (await good.query('SELECT n FROM kept')).rows.length === 1);
});

test('half a message holds no server', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('SELECT 1').subarray(0, 9));
  const good = await clientOf(proxy, 'prod');
  expect((await good.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a login cut off in the middle leaves nothing behind', async () => {
  const proxy = await start();
  const raw = new RawClient(proxy);
  raw.send(startupMessage({ user: 'postgres', database: 'prod' }).subarray(0, 10));
  raw.socket.end();
  await until('it is closed', () => raw.closed);
  expect(proxy.clients()).toEqual([]);
});
