/** One task: COPY passes both ways, with its errors, and leaves the connection whole. */
import { expect, test } from 'vitest';
import type { Proxy } from '../../src/proxy/contract.js';
import { cstring, frame, int16, int32 } from '../../src/wire/backend.js';
import { describeStatement, parse, query, SYNC } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ main: { major: 18 } });
const DONE = frame('c');
const data = (text: string): Buffer => frame('d', Buffer.from(text));

async function start(): Promise<Proxy> {
  const databaseName = await freshDatabase(clusters.main);
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], {
    general: { defaultPoolSize: 1 },
  });
  const proxy = await proxyFor({ config });
  await (await clientOf(proxy, 'prod')).query('CREATE TABLE item (id int PRIMARY KEY, body text)');
  return proxy;
}

async function count(proxy: Proxy): Promise<unknown> {
  return (await (await clientOf(proxy, 'prod')).query('SELECT count(*)::int AS n FROM item')).rows[0];
}

test('COPY in and out carries every row, larger than any buffer', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('COPY item FROM STDIN'));
  await raw.until('G');
  const body = 'y'.repeat(200);
  for (let block = 0; block < 50; block += 1) {
    const rows = Array.from({ length: 1_000 }, (_, row) => `${(block * 1_000 + row).toString()}\t${body}\n`);
    raw.send(data(rows.join('')));
  }
  raw.send(DONE);
  expect(raw.types(await raw.until('Z'))).toBe('CZ');
  expect(await count(proxy)).toEqual({ n: 50_000 });
  raw.send(query('COPY item TO STDOUT'));
  const out = await raw.until('Z');
  expect(out.filter((message) => message.type === 'd')).toHaveLength(50_000);
});

test('the rest of a COPY that failed is thrown away, and the session goes on', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('COPY item FROM STDIN'));
  await raw.until('G');
  raw.send(data('not a number\tx\n'));
  expect(raw.types(await raw.until('Z'))).toBe('EZ');
  raw.send(data('1\tx\n'), data('2\tx\n'), DONE, query('SELECT 1'));
  expect(raw.types(await raw.until('Z'))).toBe('TDCZ');
  expect(await count(proxy)).toEqual({ n: 0 });
});

test.each(['at once', 'when data is asked for'])(
  'a message that has no place in a COPY, sent %s, ends the session as it does without a proxy',
  async (when) => {
    const proxy = await start();
    const raw = await RawClient.loggedIn(proxy, 'prod');
    raw.send(query('COPY item FROM STDIN'));
    if (when !== 'at once') await raw.until('G');
    raw.send(data('1\tx\n'), describeStatement('nothing'), SYNC, describeStatement('nothing'), SYNC, query('SELECT 1'));
    await until('the server has ended it', () => raw.closed);
    // An ERROR, and a FATAL behind it: the server has not read where the message ends (since PostgreSQL 14).
    expect(raw.types(raw.messages).replace('G', '')).toBe('EE');
    expect(await count(proxy)).toEqual({ n: 0 });
  },
);

test('COPY through the extended protocol: a Sync before the data is ignored like by the server', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  const copy = parse('', Buffer.concat([cstring('COPY item FROM STDIN'), int16(0)]));
  const bind = frame('B', cstring(''), cstring(''), int16(0), int16(0), int16(0));
  raw.send(copy, bind, frame('E', cstring(''), int32(0)), SYNC);
  expect(raw.types(await raw.until('G'))).toBe('12G');
  raw.send(SYNC, data('1\tx\n'), SYNC, DONE, SYNC);
  expect(raw.types(await raw.until('Z'))).toBe('CZ');
  expect(await count(proxy)).toEqual({ n: 1 });
});

test('a client that vanishes in the middle of a COPY leaves no row and no broken connection', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('COPY item FROM STDIN'));
  await raw.until('G');
  raw.send(data('1\tx\n'));
  raw.socket.destroy();
  await until('the session is gone', () => proxy.clients().every((client) => client.state === 'idle'));
  expect(await count(proxy)).toEqual({ n: 0 });
});

test('a client that does not read stops its server, and reads everything later', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.socket.pause();
  raw.send(query("COPY (SELECT repeat('z', 1000) FROM generate_series(1, 40000)) TO STDOUT"));
  let before = 0;
  let unchanged = 0;
  await until('the server has been held back for twenty looks', () => {
    const now = proxy.servers()[0]?.bytesReceived ?? 0;
    unchanged = now > 100_000 && now === before ? unchanged + 1 : 0;
    before = now;
    return unchanged === 20;
  });
  expect(proxy.servers()[0]?.bytesReceived).toBeLessThan(25_000_000);
  raw.socket.resume();
  const out = await raw.until('Z');
  expect(out.filter((message) => message.type === 'd')).toHaveLength(40_000);
});
