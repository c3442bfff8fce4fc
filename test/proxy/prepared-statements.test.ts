/** One task: prepared statements, with a name and without, work on whichever server a client gets. */
import type pg from 'pg';
import { expect, test } from 'vitest';
import type { GeneralConfig } from '../../src/config/config.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { cstring, frame, int16, int32 } from '../../src/wire/backend.js';
import { bind, closeStatement, DESCRIBE_PORTAL, EXECUTE, parse, query, SYNC } from '../../src/wire/frontend.js';
import { Routes } from '../../src/proxy/routes.js';
import { ServerStatements } from '../../src/proxy/server-statements.js';
import { Statement } from '../../src/proxy/statement-cache.js';
import { clientOf, configFor, endLater, proxyFor, RawClient, USER } from './support.js';

const clusters = useClusters({ old: { major: 15 }, new: { major: 18 } });

async function start(general: Partial<GeneralConfig> = {}): Promise<Proxy> {
  const databaseName = await freshDatabase(clusters.old);
  return proxyFor({ config: configFor([{ name: 'prod', cluster: clusters.old, databaseName }], { general }) });
}

test('a statement prepared on one server is prepared again on the next one', async () => {
  const proxy = await start({ defaultPoolSize: 2 });
  const client = await clientOf(proxy, 'prod');
  const other = await clientOf(proxy, 'prod');
  const statement = { name: 'pid', text: 'SELECT pg_backend_pid() AS pid' };
  const first = await client.query<{ pid: number }>(statement);
  await other.query('BEGIN');
  const { rows } = await other.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  expect(rows[0]?.pid).toBe(first.rows[0]?.pid);
  const second = await client.query<{ pid: number }>(statement);
  expect(second.rows[0]?.pid).not.toBe(first.rows[0]?.pid);
  await other.query('COMMIT');
});

test('names of one length, values of every length, and a name given anew: each Bind is of its own statement', async () => {
  const raw = await RawClient.loggedIn(await start(), 'prod');
  const prepare = (name: string, says: string): Buffer =>
    parse(name, Buffer.concat([cstring(`SELECT '${says}' || $1`), int16(0)]));
  const run = (name: string, value: string): Buffer =>
    Buffer.concat([
      frame('B', cstring(''), cstring(name), int16(0), int16(1), int32(value.length), Buffer.from(value), int16(0)),
      EXECUTE,
      SYNC,
    ]);
  const said = async (...parts: readonly Buffer[]): Promise<string | undefined> => {
    raw.send(...parts);
    const row = (await raw.until('Z')).find(({ type }) => type === 'D');
    return row?.bytes.toString('latin1', 11);
  };
  expect(await said(prepare('aa', 'a'), prepare('bb', 'b'), run('aa', '1'))).toBe('a1');
  for (const value of ['2', '3', '44', '', '5'.repeat(300), '6'])
    for (const name of ['aa', 'aa', 'bb', 'aa']) expect(await said(run(name, value))).toBe(`${name.slice(1)}${value}`);
  expect(await said(closeStatement('aa'), prepare('aa', 'c'), run('aa', '6'))).toBe('c6');
  expect(await said(closeStatement('aa'), run('aa', '6'))).toBeUndefined();
});

test('more statements than a server may hold all work, and the server stays below the limit', async () => {
  const proxy = await start({ defaultPoolSize: 1, preparedStatementsLimit: 3 });
  const client = await clientOf(proxy, 'prod');
  for (const turn of [1, 2, 3]) {
    for (let n = 0; n < 8; n += 1) {
      const { rows } = await client.query({
        name: `s${n.toString()}`,
        text: `SELECT ${n.toString()} + $1::int AS sum`,
        values: [turn],
      });
      expect(rows).toEqual([{ sum: n + turn }]);
    }
  }
  const { rows } = await client.query<{ n: number }>('SELECT count(*)::int AS n FROM pg_prepared_statements');
  expect(rows[0]?.n).toBeLessThanOrEqual(3);
});

test('a statement that nobody runs for prepared_statements_ttl is closed at the server, and prepared anew when it is run again', async () => {
  const proxy = await start({ defaultPoolSize: 1, preparedStatementsTtlMs: 1, preparedStatementsTtlJitterMs: 0 });
  const client = await clientOf(proxy, 'prod');
  const statement = { name: 'pid', text: 'SELECT pg_backend_pid() AS pid' };
  const other = { name: 'two', text: 'SELECT 2 AS two' };
  const count = async (): Promise<number | undefined> =>
    (await client.query<{ n: number }>('SELECT count(*)::int AS n FROM pg_prepared_statements')).rows[0]?.n;
  const before = await client.query<{ pid: number }>(statement);
  await client.query(other);
  await until('both are closed', async () => (await count()) === 0);
  expect((await client.query(statement)).rows).toStrictEqual(before.rows);
  expect((await client.query(other)).rows).toStrictEqual([{ two: 2 }]);
});

test('statements are closed at idle servers only, and at none while clients are held', async () => {
  const config = configFor([{ name: 'prod', cluster: clusters.old, databaseName: 'postgres' }]);
  const ttl = { preparedStatementsTtlMs: 0, preparedStatementsTtlJitterMs: 0 };
  const routes = new Routes({ ...config, general: { ...config.general, ...ttl } });
  const { pool } = routes.of(USER, 'prod');
  endLater(() => {
    pool.destroy();
    return Promise.resolve();
  });
  await pool.fill(1);
  const [server] = pool.servers;
  server?.statements.added(new Statement('not_there', Buffer.alloc(0)));
  pool.sweep(true);
  expect(server?.statements.count).toBe(1);
  const lent = pool.takeIdle(() => true);
  expect(lent).toBe(server);
  pool.sweep(false);
  expect(server?.statements.count).toBe(1);
  if (lent !== null) pool.giveBack(lent, true);
  pool.sweep(false);
  expect(server?.statements.count).toBe(0);
  // The server does not have it after all: what it has is not known, and it is not lent again.
  await until('it is gone', () => pool.serverCount === 0);
});

test('a statement counts as unused from its last use on, at most a hundred are given up at once, and looks are few', () => {
  const statements = new ServerStatements(1_000, { syncs: 0, syncsOwed: 0 });
  const of = (n: number): Statement => new Statement(`s${n.toString()}`, Buffer.alloc(0));
  const [kept, left] = [of(0), of(1)];
  for (const statement of [kept, left]) statements.added(statement);
  expect(statements.unused(100, 1_000)).toStrictEqual([]);
  expect(statements.has(kept)).toBe(true);
  expect(statements.unused(100, 1_050)).toStrictEqual([]);
  expect(statements.unused(100, 1_100)).toStrictEqual([left]);
  expect(statements.unused(100, 1_105)).toStrictEqual([]);
  expect(statements.unused(100, 1_150)).toStrictEqual([kept, left]);
  for (let n = 2; n < 300; n += 1) statements.added(of(n));
  statements.unused(100, 2_000);
  expect(statements.unused(100, 2_100)).toHaveLength(100);
});

test('a statement whose result type changed fails once and works when prepared anew', async () => {
  const proxy = await start({ defaultPoolSize: 1 });
  const client = await clientOf(proxy, 'prod');
  await client.query('CREATE TABLE shape (a int); INSERT INTO shape VALUES (1)');
  const statement = { name: 'all', text: 'SELECT * FROM shape' };
  await client.query(statement);
  await client.query('ALTER TABLE shape ADD b int DEFAULT 2');
  await expect(client.query(statement)).rejects.toMatchObject({ code: '0A000' });
  const fresh = await clientOf(proxy, 'prod');
  expect((await fresh.query(statement)).rows).toEqual([{ a: 1, b: 2 }]);
});

test('DISCARD ALL and DEALLOCATE ALL of one client leave the others their statements', async () => {
  const proxy = await start({ defaultPoolSize: 1 });
  const [client, other] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const statement = { name: 'one', text: 'SELECT 1 AS one' };
  await client.query(statement);
  for (const command of ['DISCARD ALL', 'DEALLOCATE ALL']) {
    await other.query(command);
    expect((await client.query(statement)).rows).toEqual([{ one: 1 }]);
  }
});

test("a statement that cannot be prepared fails each time with the server's own error", async () => {
  const proxy = await start();
  const client = await clientOf(proxy, 'prod');
  for (const turn of [1, 2]) {
    const statement = { name: `bad${turn.toString()}`, text: 'SELECT * FROM missing' };
    await expect(client.query(statement)).rejects.toMatchObject({ code: '42P01' });
  }
  await client.query('CREATE TABLE missing (a int)');
  expect((await client.query({ name: 'bad1', text: 'SELECT * FROM missing' })).rows).toEqual([]);
});

test('statements survive the move to another cluster, and a warmed pool has them already', async () => {
  const databaseName = await freshDatabase(clusters.old);
  await clusters.new.createDatabase(databaseName);
  const before = configFor([
    { name: 'prod', cluster: clusters.old, databaseName },
    { name: 'prod_new', cluster: clusters.new, databaseName },
  ]);
  const after = configFor([
    { name: 'prod', cluster: clusters.new, databaseName },
    { name: 'prod_new', cluster: clusters.old, databaseName },
  ]);
  const proxy = await proxyFor({ config: before });
  const client = await clientOf(proxy, 'prod');
  const statement = { name: 'version', text: "SELECT current_setting('server_version_num')::int / 10000 AS major" };
  expect((await client.query(statement)).rows).toEqual([{ major: 15 }]);
  await proxy.warm('prod_new', 'prod', 5_000);
  const warmed = proxy.servers().filter((server) => server.port === clusters.new.port);
  expect(warmed).toMatchObject([{ state: 'idle', preparedStatements: 1 }]);
  proxy.apply(after);
  expect((await client.query(statement)).rows).toEqual([{ major: 18 }]);
  expect(proxy.servers().find((server) => server.port === clusters.new.port)?.remotePid).toBe(warmed[0]?.remotePid);
});

test('a text of a megabyte is prepared, with the gate open, closed meanwhile, and inside a transaction', async () => {
  const proxy = await start();
  const client = await clientOf(proxy, 'prod');
  const text = `SELECT length('${'x'.repeat(1_048_576)}') + $1::int AS length`;
  const run = async (name: string): Promise<unknown> => (await client.query({ name, text, values: [1] })).rows[0];
  expect(await run('')).toEqual({ length: 1_048_577 });
  expect(await run('open')).toEqual({ length: 1_048_577 });
  const gate = proxy.gate('prod');
  gate.close('cutover');
  const held = run('held');
  await until('the client is held', () => proxy.clients().some(({ state }) => state === 'waiting'));
  gate.open('cutover');
  expect(await held).toEqual({ length: 1_048_577 });
  await client.query('BEGIN');
  expect(await run('inside')).toEqual({ length: 1_048_577 });
  await client.query('COMMIT');
});

const NO_VALUES = bind({ formats: [], values: [], resultFormats: Buffer.alloc(2) });
const unnamed = (sql: string): Buffer => parse('', Buffer.concat([cstring(sql), Buffer.alloc(2)]));

/** Runs a text without taking the unnamed statement away. */
const named = (sql: string): Buffer =>
  Buffer.concat([
    parse(sql, Buffer.concat([cstring(sql), Buffer.alloc(2)])),
    frame('B', cstring(''), cstring(sql), Buffer.alloc(6)),
    ...[EXECUTE, SYNC],
  ]);

/** Runs the unnamed statement, prepared in another batch before: as lib/pq does. */
async function bound(client: RawClient): Promise<string> {
  client.send(NO_VALUES, DESCRIBE_PORTAL, EXECUTE, SYNC);
  const messages = await client.until('Z');
  const [row] = messages.filter(({ type }) => type === 'D' || type === 'E');
  return row?.type === 'D'
    ? row.bytes.toString('utf8', 11)
    : (/C(\w{5})\0/.exec(row?.bytes.toString('latin1') ?? '')?.[1] ?? '');
}

test('a text that clients share means to each what its own settings make of it', async () => {
  const proxy = await start({ defaultPoolSize: 1 });
  const [utc, tokyo] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await utc.query('CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.t (v int); CREATE TABLE two.t (v float4)');
  await utc.query("SET TimeZone = 'UTC'");
  await tokyo.query("SET TimeZone = 'Asia/Tokyo'");
  const at = async (client: pg.Client): Promise<unknown> => {
    const text = "SELECT extract(epoch FROM '2000-01-01 00:00'::timestamptz)::int AS at";
    return (await client.query<{ at: number }>({ name: 'at', text })).rows[0]?.at;
  };
  expect([await at(utc), await at(tokyo), await at(utc)]).toEqual([946684800, 946652400, 946684800]);
  await utc.query('SET search_path = one');
  await tokyo.query('SET search_path = two');
  // Four bytes that are the number 1 of one type, and something else of the other.
  const insert = {
    name: 'insert',
    text: 'INSERT INTO t VALUES ($1) RETURNING v',
    values: [Buffer.from('3f800000', 'hex')],
  };
  expect((await utc.query(insert)).rows).toEqual([{ v: 0x3f800000 }]);
  expect((await tokyo.query(insert)).rows).toEqual([{ v: 1 }]);
  // What a transaction sets for itself is not kept for others.
  const now = { name: 'now', text: "SELECT extract(epoch FROM '2000-01-02 00:00'::timestamptz)::int AS at" };
  await tokyo.query('BEGIN');
  await tokyo.query("SET LOCAL TimeZone = 'UTC'");
  expect((await tokyo.query(now)).rows).toEqual([{ at: 946771200 }]);
  await tokyo.query('COMMIT');
  const other = await clientOf(proxy, 'prod');
  await other.query("SET TimeZone = 'Asia/Tokyo'; SET search_path = two");
  expect((await other.query(now)).rows).toEqual([{ at: 946738800 }]);
});

test('a pool that is warmed has what was prepared there under other settings, and can prepare it anew', async () => {
  const databaseName = await freshDatabase(clusters.old);
  await clusters.new.createDatabase(databaseName);
  const [prod, prodNew] = [
    { name: 'prod', cluster: clusters.old, databaseName },
    { name: 'prod_new', cluster: clusters.new, databaseName },
  ];
  const proxy = await proxyFor({ config: configFor([prod, prodNew], { general: { defaultPoolSize: 1 } }) });
  const text = "SELECT extract(epoch FROM '2000-01-01 00:00'::timestamptz)::int AS at";
  const at = async (client: pg.Client): Promise<unknown> =>
    (await client.query<{ at: number }>({ name: 'at', text })).rows[0]?.at;
  const [tokyo, other] = await Promise.all([clientOf(proxy, 'prod_new'), clientOf(proxy, 'prod_new')]);
  await tokyo.query("SET TimeZone = 'Asia/Tokyo'");
  expect(await at(tokyo)).toBe(946652400);
  await other.query("SET TimeZone = 'UTC'");
  const client = await clientOf(proxy, 'prod');
  await client.query("SET TimeZone = 'UTC'");
  expect(await at(client)).toBe(946684800);
  await proxy.warm('prod_new', 'prod', 5_000);
  expect([await at(other), await at(tokyo)]).toEqual([946684800, 946652400]);
});

test('the unnamed statement that runs is the one prepared last, on whichever server', async () => {
  const proxy = await start({ defaultPoolSize: 2 });
  const [client, other] = await Promise.all([RawClient.loggedIn(proxy, 'prod'), RawClient.loggedIn(proxy, 'prod')]);
  const say = async (from: RawClient, ...messages: readonly Buffer[]): Promise<void> => {
    from.send(...messages);
    await from.until('Z');
  };
  await say(client, unnamed("SELECT 'first'"), SYNC);
  // The next one is prepared on the other server; then the first one is free again, and the other is not.
  await say(other, named('BEGIN'));
  await say(client, unnamed("SELECT 'second'"), SYNC);
  const second = await RawClient.loggedIn(proxy, 'prod');
  await say(second, query('BEGIN'));
  await say(other, named('COMMIT'));
  expect(await bound(client)).toBe('second');
  // What another client says takes it away from the server only.
  await say(other, query('SELECT 1'));
  expect(await bound(client)).toBe('second');
  await say(other, unnamed("SELECT 'of another'"), SYNC);
  expect(await bound(client)).toBe('second');
  // A client that has none does not run what another one has left there.
  await say(other, unnamed("SELECT 'of another'"), SYNC);
  await say(client, frame('C', Buffer.from('S'), cstring('')), SYNC);
  await say(other, unnamed("SELECT 'of another'"), SYNC);
  expect(await bound(client)).toBe('26000');
  await say(client, unnamed('SELECT wrong'), SYNC);
  expect(await bound(client)).toBe('26000');
  await say(second, query('COMMIT'));
});
