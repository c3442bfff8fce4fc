/** One task: a COPY by the extended protocol on a sharded database says what one server says, message by message. */
import { expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import { cstring, frame, int16 } from '../../src/wire/backend.js';
import {
  cancelRequest,
  DESCRIBE_PORTAL,
  EXECUTE,
  parse,
  query,
  startupMessage,
  SYNC,
  TERMINATE,
} from '../../src/wire/frontend.js';
import { until } from '../support/wait.js';
import { copied, copyFail, data, DONE } from './copies.js';
import { HERE, THERE, useShards, type Sharded } from './shards.js';
import { RawClient, USER } from './support.js';

const shards = useShards();
const ROWS = `${HERE.toString()}\t1\tx\n${THERE.toString()}\t1\ty\n`;
const COPY = 'COPY notes FROM STDIN';
const FLUSH = frame('H');
const LATER = 'ALTER TABLE notes ADD CONSTRAINT later UNIQUE (tenant_id, id) DEFERRABLE INITIALLY DEFERRED';
const SOME = 'SELECT tenant_id::text, id::int, text FROM notes ORDER BY tenant_id, id';

const plainOf = ({ databaseName }: { readonly databaseName: string }): string => `${databaseName}_plain`;
const parsed = (sql: string, name = ''): Buffer => parse(name, Buffer.concat([cstring(sql), int16(0)]));
const bound = (name = ''): Buffer => frame('B', cstring(''), cstring(name), int16(0), int16(0), int16(0));
const begun = (sql = COPY): readonly Buffer[] => [parsed(sql), bound(), DESCRIBE_PORTAL, EXECUTE, SYNC];

/** Beside the two shards, a database `plain` of one shard with the same tables: what PostgreSQL says, through the same proxy. */
async function start(): Promise<{ sharded: Sharded; prod: RawClient; plain: RawClient }> {
  const sharded = await shards((config): Config => {
    const [database] = config.databases;
    const [user] = config.users;
    if (database === undefined || user === undefined) throw new Error('no entry');
    return {
      ...config,
      databases: [...config.databases, { ...database, name: 'plain', databaseName: plainOf(database) }],
      users: [...config.users, { ...user, database: 'plain' }],
    };
  });
  for (const shard of [0, 1])
    await sharded.on(shard, `${TWO_PHASE_DDL}; ALTER TABLE notes DROP CONSTRAINT notes_pkey; ${LATER}`);
  const [database] = sharded.config.databases;
  await sharded.on(0, `CREATE DATABASE ${database === undefined ? '' : plainOf(database)}`);
  const plain = await RawClient.loggedIn(sharded.proxy, 'plain');
  await answered(plain, [query(`CREATE TABLE notes (tenant_id bigint, id bigint, text text); ${LATER}`)], 1);
  return { sharded, plain, prod: await RawClient.loggedIn(sharded.proxy, 'prod') };
}

/** The types of all messages up to so many ReadyForQuery, with the state of the transaction in each. */
async function answered(client: RawClient, messages: readonly Buffer[], ready: number): Promise<string> {
  client.send(...messages);
  const said = await client.until('Z', ready);
  return said.map(({ type, bytes }) => (type === 'Z' ? `Z(${bytes.toString('latin1', 5)})` : type)).join('');
}

async function storedOn({ on }: Sharded): Promise<readonly Record<string, unknown>[]> {
  return [...(await on(0, SOME)), ...(await on(1, SOME))];
}

const BEGIN = [query('BEGIN')];
const COMMIT = [query('COMMIT')];

/** What is sent, and how often the server is ready for more. */
const TALKS: readonly (readonly [name: string, messages: readonly Buffer[], ready: number])[] = [
  ['all at once', [...begun(), data(ROWS), DONE, SYNC], 1],
  ['described by nobody', [parsed(COPY), bound(), EXECUTE, SYNC, data(ROWS), DONE, SYNC], 1],
  [
    'prepared by name, twice',
    [
      parsed(COPY, 'c'),
      SYNC,
      bound('c'),
      EXECUTE,
      SYNC,
      data(ROWS),
      DONE,
      SYNC,
      bound('c'),
      EXECUTE,
      SYNC,
      data(ROWS.replaceAll('\t1\t', '\t2\t')),
      DONE,
      SYNC,
    ],
    3,
  ],
  ['with a Sync and a Flush among the rows', [...begun(), data(ROWS), SYNC, FLUSH, DONE, SYNC], 1],
  ['rows behind the end', [...begun(), data(ROWS), DONE, data(ROWS), DONE, SYNC], 1],
  ['a row that cannot be read', [...begun(), data(`${HERE.toString()}\tone\tx\n`), DONE, SYNC], 1],
  ['a key that cannot be read', [...begun(), data('one\t1\tx\n'), DONE, SYNC], 1],
  ['given up by the client', [...begun(), data(ROWS), copyFail('no more'), SYNC], 1],
  ['a column that is not there', [...begun('COPY notes (tenant_id, nothing) FROM STDIN'), data(ROWS), DONE, SYNC], 2],
  ['what is found at the commit', [...begun(), data(ROWS + ROWS), DONE, SYNC], 1],
  ['in a transaction', [...BEGIN, ...begun(), data(ROWS), DONE, SYNC, ...COMMIT], 3],
  ['failed in a transaction', [...BEGIN, ...begun(), data('one\t1\tx\n'), DONE, SYNC, ...COMMIT], 3],
];

test('every way to send it is answered as by one server', async () => {
  const { sharded, prod, plain } = await start();
  for (const [name, messages, ready] of TALKS) {
    const wanted = await answered(plain, messages, ready);
    expect(await answered(prod, messages, ready), name).toBe(wanted);
    plain.send(query(SOME));
    const rows = (await plain.until('Z')).filter(({ type }) => type === 'D').length;
    expect(await storedOn(sharded), name).toHaveLength(rows);
    for (const client of [plain, prod]) await answered(client, [query('TRUNCATE notes')], 1);
  }
});

test('what comes between a COPY and its Sync is refused, and nothing is stored', async () => {
  const { sharded, prod } = await start();
  prod.send(...begun(), data(ROWS), DONE, parsed('SELECT 1'), bound(), EXECUTE, SYNC);
  expect(await copied(prod)).toMatchObject({ types: '12nGCEZ', error: { code: '0A000' } });
  expect(await storedOn(sharded)).toEqual([]);
});

test('until the Sync it can be stopped, and is not there when the client leaves', async () => {
  const { sharded } = await start();
  const client = new RawClient(sharded.proxy);
  client.send(startupMessage({ user: USER, database: 'prod' }));
  const key = (await client.until('Z')).find(({ type }) => type === 'K')?.bytes ?? Buffer.alloc(0);
  client.send(...begun(), data(ROWS), DONE);
  await client.until('C');
  new RawClient(sharded.proxy).send(cancelRequest(key.readInt32BE(5), key.subarray(9)));
  await client.until('E');
  expect(await answered(client, [SYNC], 1)).toBe('Z(I)');
  client.send(...begun(), data(ROWS), DONE);
  await client.until('C');
  const open = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`;
  expect(await sharded.on(0, open)).not.toEqual([]);
  client.send(TERMINATE);
  await until('it is rolled back', async () => (await sharded.on(0, open)).length === 0);
  expect(await storedOn(sharded)).toEqual([]);
});
