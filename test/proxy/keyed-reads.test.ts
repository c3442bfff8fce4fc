/** One task: a read by one key, which a server runs as a prepared statement for all, is answered byte for byte as the client's own. */
import { expect, test } from 'vitest';
import type { Proxy } from '../../src/proxy/contract.js';
import { withConnection } from '../../src/postgres/connection.js';
import { keyValueOf } from '../../src/proxy/pipelining/key-read.js';
import { readFacts } from '../../src/proxy/pipelining/read-facts.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { cstring, frame, int16, int32 } from '../../src/wire/backend.js';
import { DESCRIBE_PORTAL, EXECUTE, parse, query, SYNC } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ main: { major: 18 } });
const SCHEMA = `CREATE TABLE item (id int PRIMARY KEY, name text, big bigint UNIQUE, small smallint UNIQUE, amount numeric UNIQUE, word text UNIQUE, other int);
  INSERT INTO item SELECT n, NULLIF('name ' || n, 'name 3'), n * 10000000000, n, n, n::text, n FROM generate_series(1, 200) n;
  CREATE TABLE part (id int, UNIQUE (id) DEFERRABLE); CREATE TABLE half (id int, kind int); CREATE UNIQUE INDEX ON half (id) WHERE kind = 1;
  CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b)); CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
  CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY HASH (id); CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
  CREATE SCHEMA other; CREATE TABLE twice (id int PRIMARY KEY); CREATE TABLE other.twice (id int);
  CREATE TABLE both_have (id int PRIMARY KEY); CREATE TABLE other.both_have (id int PRIMARY KEY)`;

interface Started {
  readonly proxy: Proxy;
  readonly databaseName: string;
}

async function start(): Promise<Started> {
  const databaseName = await freshDatabase(clusters.main);
  await clusters.main.query(databaseName, SCHEMA);
  const general = { pipelining: 'auto' as const, defaultPoolSize: 4 };
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general });
  return { proxy: await proxyFor({ config }), databaseName };
}

const shared = (proxy: Proxy): number => proxy.stats()[0]?.sharedReads ?? 0;

/** What the server says, as it says it. */
async function said(client: RawClient, batch: readonly Buffer[]): Promise<string> {
  client.send(...batch);
  const messages = await client.until('Z');
  return messages.map(({ bytes }) => bytes.toString('latin1')).join('');
}

/** Sent again and again until a lane has answered it; the last answer. */
async function saidByLane(proxy: Proxy, client: RawClient, batch: readonly Buffer[]): Promise<string> {
  return until('a lane answers', async () => {
    const before = shared(proxy);
    const answer = await said(client, batch);
    return shared(proxy) > before && answer;
  });
}

/** Statements that the pool's servers have prepared. */
const prepared = (proxy: Proxy): number => proxy.servers().reduce((sum, server) => sum + server.preparedStatements, 0);

const unnamed = (sql: string, value: string): readonly Buffer[] => [
  parse('', Buffer.concat([cstring(sql), int16(0)])),
  frame('B', cstring(''), cstring(''), int16(0), int16(1), int32(value.length), Buffer.from(value), int16(0)),
  DESCRIBE_PORTAL,
  EXECUTE,
  SYNC,
];

test('PostgreSQL’s parser and the catalogue tell which reads have one plan', async () => {
  const { databaseName } = await start();
  const facts = await withConnection(clusters.main.endpoint(databaseName), readFacts);
  const parser = await loadStatementParser();
  const kindOf = (sql: string): string | null => keyValueOf(parser.parse(sql), facts);
  for (const sql of [
    'SELECT name FROM item WHERE id = 7',
    'SELECT * FROM public.item AS i WHERE i.id = 7;',
    'SELECT id AS number FROM both_have WHERE id = 7',
    'SELECT id FROM item WHERE amount = 7',
  ])
    expect([sql, kindOf(sql)]).toEqual([sql, 'integer']);
  expect(kindOf('SELECT name FROM item WHERE id = $1')).toBe('parameter');
  for (const sql of [
    'SELECT name FROM item WHERE id = -7',
    'SELECT name FROM item WHERE id = 7 OR other = 1',
    'SELECT name FROM item WHERE id = 7 AND other = 1',
    'SELECT name FROM item WHERE id > 7',
    'SELECT name FROM item WHERE NOT id = 7',
    'SELECT name FROM item WHERE id = ANY (ARRAY[7])',
    'SELECT name FROM item WHERE id IN (7)',
    'SELECT name FROM item WHERE id IS DISTINCT FROM 7',
    'SELECT name FROM item WHERE other = 7',
    'SELECT name FROM item WHERE id = $2',
    "SELECT name FROM item WHERE word = '7'",
    'SELECT name FROM item WHERE id = 7 LIMIT 1',
    'SELECT DISTINCT name FROM item WHERE id = 7',
    'SELECT name FROM item WHERE id = 7 ORDER BY 1',
    'SELECT count(*) FROM item WHERE id = 7',
    'SELECT id + 1 FROM item WHERE id = 7',
    'SELECT (SELECT 1) FROM item WHERE id = 7',
    'SELECT item.name FROM item, pair WHERE id = 7',
    'SELECT name FROM item JOIN pair ON true WHERE id = 7',
    'SELECT name FROM (SELECT * FROM item) item WHERE id = 7',
    'SELECT name FROM item WHERE id = 7 UNION ALL SELECT name FROM item WHERE id = 7',
    'SELECT id FROM part WHERE id = 7',
    'SELECT id FROM half WHERE id = 7',
    'SELECT a FROM pair WHERE a = 7',
    'SELECT id FROM parent WHERE id = 7',
    'SELECT id FROM parts WHERE id = 7',
    'SELECT id FROM twice WHERE id = 7',
    'SELECT id FROM nowhere WHERE id = 7',
  ])
    expect([sql, kindOf(sql)]).toEqual([sql, null]);
});

test('a Query by an integer key is answered as without sharing: found or not, of every length, written in every way', async () => {
  const { proxy, databaseName } = await start();
  const client = await RawClient.loggedIn(proxy, 'prod');
  const direct = await RawClient.loggedIn({ address: addressOf(databaseName) }, databaseName);
  for (const text of [
    'SELECT * FROM item WHERE id = #',
    'SELECT name, id FROM item i WHERE i.small = #;',
    'SELECT id, big FROM item WHERE big = #',
    'SELECT amount FROM item WHERE amount = #',
    'SELECT id FROM item WHERE word = #',
  ]) {
    const ask = (number: string): readonly Buffer[] => [query(text.replace('#', number))];
    const works = !text.includes('word');
    if (works) await saidByLane(proxy, client, ask('5'));
    const numbers = [
      '1',
      '3',
      '9',
      '10',
      '99',
      '100',
      '0',
      '007',
      '999999999',
      '1000000000',
      '20000000000',
      '-4',
      '1.0',
    ];
    for (const number of [...numbers, '5', '200'])
      expect([text, number, await said(client, ask(number))]).toEqual([text, number, await said(direct, ask(number))]);
  }
  expect(prepared(proxy)).toBeGreaterThanOrEqual(4);
});

function addressOf(databaseName: string): { host: string; port: number } {
  const { host, port } = clusters.main.endpoint(databaseName);
  return { host, port };
}

test('an unnamed statement by key is prepared once for all of its clients, and stays the client’s own', async () => {
  const { proxy } = await start();
  const sql = 'SELECT name, other FROM item WHERE id = $1';
  const clients = await Promise.all(Array.from({ length: 6 }, () => RawClient.loggedIn(proxy, 'prod')));
  const [first] = clients as [RawClient];
  await saidByLane(proxy, first, unnamed(sql, '1'));
  for (let round = 0; round < 20; round += 1) {
    const ids = clients.map((_, number) => (number * 20 + round + 10).toString());
    for (const [number, client] of clients.entries()) client.send(...unnamed(sql, ids[number] ?? ''));
    for (const [number, client] of clients.entries()) {
      const messages = await client.until('Z');
      expect(client.types(messages)).toBe('12TDCZ');
      expect(messages[3]?.bytes.toString('latin1')).toContain(`name ${ids[number] ?? ''}`);
    }
  }
  expect(prepared(proxy)).toBeGreaterThanOrEqual(1);
  // Bound again without a Parse: it is still there, whichever server answers.
  for (const client of clients) {
    const [, ...behindParse] = unnamed(sql, '42');
    client.send(...behindParse);
    expect(client.types(await client.until('Z'))).toBe('2TDCZ');
  }
});

test('after a change of the schema every answer is right, and an error is that of the client’s own text', async () => {
  const { proxy, databaseName } = await start();
  const client = await RawClient.loggedIn(proxy, 'prod');
  const byQuery = (id: string): readonly Buffer[] => [query(`SELECT * FROM item WHERE id = ${id}`)];
  const byUnnamed = (id: string): readonly Buffer[] => unnamed('SELECT * FROM item WHERE id = $1', id);
  for (const ask of [byQuery, byUnnamed]) await saidByLane(proxy, client, ask('5'));
  // By somebody else: the proxy sees nothing of it.
  for (const change of [
    'ALTER TABLE item ADD COLUMN more int DEFAULT 4',
    'ALTER TABLE item ALTER other TYPE text',
    'ALTER TABLE item DROP CONSTRAINT item_pkey; INSERT INTO item (id) VALUES (5)',
    'ALTER TABLE item RENAME id TO ident',
    'DROP TABLE item',
  ]) {
    await clusters.main.query(databaseName, change);
    const direct = await RawClient.loggedIn({ address: addressOf(databaseName) }, databaseName);
    for (const ask of [byQuery, byUnnamed])
      for (const id of ['5', '6', '5'])
        expect([change, await said(client, ask(id))]).toEqual([change, await said(direct, ask(id))]);
  }
});

test('a value that is none is refused in the words for the client’s own statement, and the others go on', async () => {
  const { proxy, databaseName } = await start();
  const [client, other] = [await RawClient.loggedIn(proxy, 'prod'), await RawClient.loggedIn(proxy, 'prod')];
  const direct = await RawClient.loggedIn({ address: addressOf(databaseName) }, databaseName);
  const ask = (value: string): readonly Buffer[] => unnamed('SELECT name FROM item WHERE id = $1', value);
  await saidByLane(proxy, client, ask('5'));
  client.send(...ask('5'), ...ask('x'));
  other.send(...ask('6'));
  expect(client.types(await client.until('Z', 2))).toBe('12TDCZ1EZ');
  expect(other.types(await other.until('Z'))).toBe('12TDCZ');
  expect(await said(client, ask('99999999999'))).toBe(await said(direct, ask('99999999999')));
  expect(await said(client, ask('7'))).toBe(await said(direct, ask('7')));
});
