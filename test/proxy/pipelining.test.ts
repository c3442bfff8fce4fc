/** One task: messages of the extended protocol keep their order and their errors, however they are bundled. */
import { expect, test } from 'vitest';
import type { Proxy } from '../../src/proxy/contract.js';
import { errorField, frame, cstring, int16, int32 } from '../../src/wire/backend.js';
import { closeStatement, describeStatement, parse, query, SYNC } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ main: { major: 18 } });

const FLUSH = frame('H');
const EXECUTE = frame('E', cstring(''), int32(0));
const body = (sql: string): Buffer => Buffer.concat([cstring(sql), int16(0)]);
const bind = (statement: string): Buffer => frame('B', cstring(''), cstring(statement), int16(0), int16(0), int16(0));
const run = (sql: string): Buffer => Buffer.concat([parse('', body(sql)), bind(''), EXECUTE]);

async function start(): Promise<Proxy> {
  const databaseName = await freshDatabase(clusters.main);
  return proxyFor({
    config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general: { defaultPoolSize: 2 } }),
  });
}

test('several batches in flight are answered in order, and an error skips only to its own Sync', async () => {
  const raw = await RawClient.loggedIn(await start(), 'prod');
  raw.send(run('SELECT 1'), SYNC, run('SELECT 1/0'), run('SELECT 2'), SYNC, run('SELECT 3'), SYNC);
  expect(raw.types(await raw.until('Z', 3))).toBe('12DCZ1EZ12DCZ');
});

test('named statements in a pipeline with an error: what was skipped is not taken for prepared', async () => {
  const raw = await RawClient.loggedIn(await start(), 'prod');
  raw.send(run('SELECT 1/0'), parse('a', body('SELECT 1')), SYNC, bind('a'), EXECUTE, SYNC);
  const messages = await raw.until('Z', 2);
  expect(raw.types(messages)).toBe('1EZEZ');
  const [, last] = messages.filter((message) => message.type === 'E');
  expect(last && errorField(last.bytes, 0, last.bytes.length, 'C')).toBe('26000');
  raw.send(parse('a', body('SELECT 1')), bind('a'), EXECUTE, SYNC);
  expect(raw.types(await raw.until('Z'))).toBe('12DCZ');
});

test('a statement another client has prepared is acknowledged at its place in the pipeline', async () => {
  const proxy = await start();
  for (const client of [await RawClient.loggedIn(proxy, 'prod'), await RawClient.loggedIn(proxy, 'prod')]) {
    client.send(
      run('SELECT 0'),
      parse('s', body('SELECT 1')),
      describeStatement('s'),
      bind('s'),
      EXECUTE,
      closeStatement('s'),
      SYNC,
    );
    expect(client.types(await client.until('Z'))).toBe('12DC1tT2DC3Z');
    client.send(bind('s'), EXECUTE, SYNC);
    expect(client.types(await client.until('Z'))).toBe('EZ');
  }
});

test('Flush brings answers without a Sync', async () => {
  const raw = await RawClient.loggedIn(await start(), 'prod');
  raw.send(parse('s', body('SELECT 1')), describeStatement('s'), FLUSH);
  expect(raw.types(await raw.until('T'))).toBe('1tT');
  raw.send(bind('s'), EXECUTE, FLUSH);
  expect(raw.types(await raw.until('C'))).toBe('2DC');
  raw.send(SYNC);
  expect(raw.types(await raw.until('Z'))).toBe('Z');
});

test("a name used twice is refused as by the server, under the client's own name", async () => {
  const raw = await RawClient.loggedIn(await start(), 'prod');
  raw.send(parse('twice', body('SELECT 1')), SYNC, parse('twice', body('SELECT 2')), SYNC);
  const error = (await raw.until('Z', 2)).find((message) => message.type === 'E');
  expect(error && errorField(error.bytes, 0, error.bytes.length, 'C')).toBe('42P05');
  expect(error && errorField(error.bytes, 0, error.bytes.length, 'M')).toContain('"twice"');
});

test('the unnamed statement outlives the transaction it was parsed in, on any server', async () => {
  const proxy = await start();
  const raw = await RawClient.loggedIn(proxy, 'prod');
  const other = await RawClient.loggedIn(proxy, 'prod');
  raw.send(parse('', body('SELECT 11')), SYNC);
  await raw.until('Z');
  other.send(run('SELECT 22'), SYNC);
  await other.until('Z');
  raw.send(bind(''), EXECUTE, SYNC);
  const row = (await raw.until('Z')).find((message) => message.type === 'D');
  expect(row?.bytes.toString('latin1')).toContain('11');
});

test('messages cut at every byte are understood', async () => {
  const raw = await RawClient.loggedIn(await start(), 'prod');
  const bytes = Buffer.concat([parse('cut', body('SELECT 1')), bind('cut'), EXECUTE, SYNC, query('SELECT 2')]);
  for (const byte of bytes) {
    raw.send(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(raw.types(await raw.until('Z', 2))).toBe('12DCZTDCZ');
});

test('a message too large to be kept passes in parts', async () => {
  const raw = await RawClient.loggedIn(await start(), 'prod');
  const text = 'x'.repeat(3_000_000);
  raw.send(query(`SELECT length('${text}')`));
  const row = (await raw.until('Z')).find((message) => message.type === 'D');
  expect(row?.bytes.toString('latin1')).toContain('3000000');
  const value = Buffer.from(text);
  const largeBind = frame('B', cstring(''), cstring('large'), int16(0), int16(1), int32(value.length), value, int16(0));
  raw.send(parse('large', body('SELECT length($1::text)')), largeBind, EXECUTE, SYNC);
  expect((await raw.until('Z')).find((message) => message.type === 'D')?.bytes.toString('latin1')).toContain('3000000');
});
