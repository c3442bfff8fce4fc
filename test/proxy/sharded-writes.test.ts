/** One task: a statement that writes on several shards is done on all of them or on none, and is answered as by one server. */
import { expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import { cstring, frame } from '../../src/wire/backend.js';
import { cancelRequest, SYNC } from '../../src/wire/frontend.js';
import { until } from '../support/wait.js';
import { failure, HERE, HERE_TOO, THERE, useShards, type Sharded } from './shards.js';
import { clientOf, RawClient } from './support.js';

const shards = useShards();
const SHARDS = [0, 1];
const [A, B, C] = [HERE, THERE, HERE_TOO].map(Number) as [number, number, number];
const NOTES = 'SELECT tenant_id::int AS tenant, id::int, text FROM notes ORDER BY 1, 2';

/** Shards that can commit together, with a row of each of three tenants. */
async function start(adjust?: (config: Config) => Config): Promise<Sharded> {
  const sharded = await shards(adjust);
  for (const shard of SHARDS) await sharded.on(shard, TWO_PHASE_DDL);
  const row = (tenant: number): string => `INSERT INTO notes VALUES (${tenant.toString()}, 1, 'old')`;
  for (const tenant of [A, C]) await sharded.on(0, row(tenant));
  await sharded.on(1, row(B));
  return sharded;
}

async function expectNothingLeft({ on }: Sharded): Promise<void> {
  for (const shard of SHARDS) {
    expect(await on(shard, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')).toEqual([]);
    expect(await on(shard, 'SELECT * FROM cutover_shards.decision')).toEqual([]);
  }
}

test('UPDATE and DELETE without a key: the counts add up and RETURNING is joined, by every form of statement', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  const forms = [
    { text: "UPDATE notes SET text = 'a' RETURNING tenant_id::int AS tenant, text" },
    { text: 'UPDATE notes SET text = $1 RETURNING tenant_id::int AS tenant, text', values: ['b'] },
    { name: 'u', text: 'UPDATE notes SET text = $1 RETURNING tenant_id::int AS tenant, text', values: ['c'] },
    { name: 'u', text: 'UPDATE notes SET text = $1 RETURNING tenant_id::int AS tenant, text', values: ['d'] },
  ];
  for (const [index, form] of forms.entries()) {
    const { rowCount, rows } = await client.query(form);
    const text = 'abcd'[index];
    expect({ rowCount, rows }).toEqual({ rowCount: 3, rows: [A, C, B].map((tenant) => ({ tenant, text })) });
  }
  expect((await client.query('UPDATE notes SET text = $1 WHERE id > 1', ['e'])).rowCount).toBe(0);
  expect((await client.query('DELETE FROM notes WHERE tenant_id IN ($1, $2)', [A, B])).rowCount).toBe(2);
  expect(await sharded.on(0, NOTES)).toEqual([{ tenant: C, id: 1, text: 'd' }]);
  expect(await sharded.on(1, NOTES)).toEqual([]);
  await expectNothingLeft(sharded);
});

test('the rows of an INSERT go to their shards and come back in their order', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  const order = [B, A, B, C, A].map((tenant, at) => ({ tenant, id: at + 10 }));
  const returning = 'RETURNING tenant_id::int AS tenant, id::int';
  const rows = order.map(({ tenant, id }) => `(${tenant.toString()}, ${id.toString()}, 'new')`).join(', ');
  expect(await client.query(`INSERT INTO notes VALUES ${rows} ${returning}`)).toMatchObject({
    ...{ command: 'INSERT', rowCount: 5, rows: order },
  });
  // Text and binary, a value that all rows share, and one that nothing uses on a shard.
  const bound = order
    .map((_, at) => `($${(at * 2 + 2).toString()}::bigint, $${(at * 2 + 3).toString()}, $1)`)
    .join(', ');
  const values = order.flatMap(({ tenant, id }, at) => [at % 2 === 0 ? binary(tenant) : tenant, id + 10]);
  const text = `INSERT INTO notes VALUES ${bound} ${returning}`;
  expect((await client.query(text, ['bound', ...values])).rows).toEqual(
    order.map((row) => ({ ...row, id: row.id + 10 })),
  );
  const kept = `INSERT INTO notes VALUES ${rows}, (${B.toString()}, 99, 'new') ON CONFLICT DO NOTHING ${returning}`;
  expect((await client.query(kept)).rows).toEqual([{ tenant: B, id: 99 }]);
  expect((await sharded.on(1, NOTES)).filter(({ text: note }) => note === 'bound')).toEqual([
    { tenant: B, id: 20, text: 'bound' },
    { tenant: B, id: 22, text: 'bound' },
  ]);
  expect(await sharded.on(0, NOTES)).toHaveLength(2 + 3 + 3);
  await expectNothingLeft(sharded);
});

function binary(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt(value));
  return bytes;
}

test('what every shard has is written on all of them, and counted once', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  expect(await client.query("INSERT INTO rates VALUES ('b', 2), ('c', 3) RETURNING name")).toMatchObject({
    ...{ rowCount: 2, rows: [{ name: 'b' }, { name: 'c' }] },
  });
  expect((await client.query('UPDATE rates SET rate = rate + $1', [1])).rowCount).toBe(3);
  for (const shard of SHARDS)
    expect(await sharded.on(shard, 'SELECT rate FROM rates ORDER BY name')).toEqual([
      { rate: 2 },
      { rate: 3 },
      { rate: 4 },
    ]);
  await client.query('TRUNCATE notes');
  for (const shard of SHARDS) expect(await sharded.on(shard, NOTES)).toEqual([]);
  await expectNothingLeft(sharded);
});

test('what fails on one shard has changed nothing on any, and the client reads its error', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  await sharded.on(1, 'ALTER TABLE notes ADD CONSTRAINT short CHECK (length(text) < 9)');
  expect(await failure(client.query("UPDATE notes SET text = 'too long a text'"))).toMatchObject({ code: '23514' });
  // Found only when it is prepared, and only when it is committed.
  for (const shard of [1, 0]) {
    await sharded.on(
      shard,
      'ALTER TABLE notes ADD CONSTRAINT one UNIQUE (tenant_id, text) DEFERRABLE INITIALLY DEFERRED',
    );
    const rows = [A, C, B].map((tenant) => `(${tenant.toString()}, 7, 'same'), (${tenant.toString()}, 8, 'same')`);
    expect(await failure(client.query(`INSERT INTO notes VALUES ${rows.join(', ')}`))).toMatchObject({ code: '23505' });
    await sharded.on(shard, 'ALTER TABLE notes DROP CONSTRAINT one');
  }
  expect(await sharded.on(0, NOTES)).toEqual([A, C].map((tenant) => ({ tenant, id: 1, text: 'old' })));
  expect(await sharded.on(1, NOTES)).toEqual([{ tenant: B, id: 1, text: 'old' }]);
  expect((await client.query("UPDATE notes SET text = 'good'")).rowCount).toBe(3);
  await expectNothingLeft(sharded);
});

test('it is refused where it would not be one statement by itself, or the shards cannot commit together', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  const update = 'UPDATE notes SET text = NULL';
  for (const text of [`BEGIN; ${update}; COMMIT`, `${update}; SELECT 1`])
    expect((await failure(client.query(text))).code).toBe('0A000');
  await client.query('SET ROLE pg_monitor');
  expect((await failure(client.query('UPDATE public.notes SET text = NULL'))).message).toMatch(/after SET ROLE/);
  await client.query('RESET ROLE');
  await sharded.on(0, 'DROP SCHEMA cutover_shards CASCADE');
  expect(await failure(client.query(update))).toMatchObject({
    code: '55000',
    message: expect.stringMatching(/cannot commit together/) as unknown,
  });
  expect(await sharded.on(0, NOTES)).toHaveLength(2);
  await sharded.on(0, TWO_PHASE_DDL);
  expect((await client.query(update)).rowCount).toBe(3);
});

const message = (type: string, ...parts: readonly Buffer[]): Buffer => frame(type, ...parts);
const parse = (name: string, sql: string): Buffer => message('P', cstring(name), cstring(sql), Buffer.alloc(2));
const bind = (name: string): Buffer => message('B', cstring(''), cstring(name), Buffer.alloc(6));
const describe = message('D', Buffer.from('P'), cstring(''));
const execute = message('E', cstring(''), Buffer.alloc(4));
const close = message('C', Buffer.from('P'), cstring(''));

test('each message of the extended protocol has its answer, in its order', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const answers = async (...messages: readonly Buffer[]): Promise<string> => {
    client.send(...messages, SYNC);
    return client.types(await client.until('Z'));
  };
  const returning = 'UPDATE notes SET text = NULL RETURNING id';
  expect(await answers(parse('', returning), bind(''), describe, execute)).toBe('12TDDDCZ');
  expect(await answers(parse('', returning), bind(''), execute, close)).toBe('12DDDC3Z');
  expect(await answers(parse('u', 'UPDATE notes SET text = NULL'), bind('u'), describe, execute)).toBe('12nCZ');
  expect(await answers(bind('u'), execute)).toBe('2CZ');
  expect(await answers(bind('u'), execute, bind('u'), execute)).toBe('EZ');
  expect(await answers(parse('w', 'UPDATE notes SET id = id / 0'), bind('w'), describe, execute)).toBe('12nEZ');
  expect(await answers(parse('', 'SELECT 1'), bind(''), execute)).toBe('12DCZ');
  // A pipeline of batches: each after the one before.
  client.send(bind('u'), execute, SYNC, bind('u'), execute, SYNC, parse('', 'SELECT 1'), bind(''), execute, SYNC);
  expect(client.types(await client.until('Z', 3))).toBe('2CZ2CZ12DCZ');
  await expectNothingLeft(sharded);
});

test('what the fence of a later shard refuses runs anew, and the client is told once', async () => {
  let asked = 0;
  const sharded: Sharded = await shards((config) => config, {
    onFenceRefusal: async () => {
      asked += 1;
      await sharded.on(1, 'DROP TRIGGER fence ON notes');
    },
  });
  for (const shard of SHARDS) await sharded.on(shard, TWO_PHASE_DDL);
  await sharded.on(0, `INSERT INTO notes VALUES (${A.toString()}, 1, 'old')`);
  await sharded.on(1, `INSERT INTO notes VALUES (${B.toString()}, 1, 'old')`);
  await sharded.on(
    1,
    `CREATE FUNCTION fence() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'sealed' USING ERRCODE = 'CUT01'; END$$`,
  );
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const answers = async (sql: string): Promise<string> => {
    await sharded.on(1, 'CREATE TRIGGER fence BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION fence()');
    client.send(
      parse('u', sql),
      bind('u'),
      describe,
      execute,
      SYNC,
      message('C', Buffer.from('S'), cstring('u')),
      SYNC,
    );
    return client.types(await client.until('Z', 2));
  };
  expect(await answers("UPDATE notes SET text = 'new'")).toBe('12nCZ3Z');
  expect(asked).toBe(1);
  // A row has been passed on: it cannot be taken back.
  expect(await answers("UPDATE notes SET text = 'more' RETURNING id")).toBe('12TDEZ3Z');
  expect(asked).toBe(1);
  expect(await sharded.on(0, 'SELECT text FROM notes')).toEqual([{ text: 'new' }]);
  await expectNothingLeft(sharded);
});

test('a gate that is closed holds it, and a pause waits for the one that runs', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  const gate = sharded.proxy.gate('prod');
  await client.query('SELECT rate FROM rates');
  gate.close('pause');
  const held = client.query("UPDATE notes SET text = 'held'");
  await until('it waits', () => gate.waitingCount === 1);
  expect(gate.holders).toEqual([]);
  gate.open('pause');
  expect((await held).rowCount).toBe(3);

  const other = await clientOf(sharded.proxy, 'prod');
  await other.query('BEGIN');
  await other.query('UPDATE notes SET text = NULL WHERE tenant_id = $1', [B]);
  const running = client.query("UPDATE notes SET text = 'ran'");
  await until('it waits for the row', async () => (await sharded.on(1, WAITING)).length > 0);
  gate.close('pause');
  expect((await gate.drained(1)).holders.map(({ serverPid }) => serverPid > 0)).toEqual([true, true]);
  const drained = gate.drained(10_000);
  await other.query('COMMIT');
  expect((await running).rowCount).toBe(3);
  expect((await drained).drained).toBe(true);
  gate.open('pause');
  await expectNothingLeft(sharded);
});

const WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

test('it can be cancelled, outlives a server that is lost, and goes on to its end when its client is gone', async () => {
  const sharded = await start();
  const blocker = await clientOf(sharded.proxy, 'prod');
  const blocked = async (): Promise<void> => {
    await blocker.query('BEGIN');
    await blocker.query('UPDATE notes SET text = NULL WHERE tenant_id = $1', [B]);
  };
  const waits = (): Promise<unknown> =>
    until('it waits for the row', async () => (await sharded.on(1, WAITING)).length > 0);
  await blocked();
  const client = await clientOf(sharded.proxy, 'prod');
  const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
  const secret = Buffer.alloc(4);
  secret.writeInt32BE(secretKey);
  const cancelled = failure(client.query("UPDATE notes SET text = 'cancelled'"));
  await waits();
  new RawClient(sharded.proxy).send(cancelRequest(processID, secret));
  expect((await cancelled).code).toBe('57014');

  const lost = failure(client.query("UPDATE notes SET text = 'lost'"));
  await waits();
  await sharded.on(1, `SELECT pg_terminate_backend(pid) FROM (${WAITING}) AS waiting`);
  expect(await lost).toMatchObject({
    code: '40000',
    message: expect.stringMatching(/nothing was changed on any shard/) as unknown,
  });
  expect((await client.query('SELECT text FROM notes WHERE tenant_id = $1', [A])).rows).toEqual([{ text: 'old' }]);

  const going = await RawClient.loggedIn(sharded.proxy, 'prod');
  going.send(message('Q', cstring("UPDATE notes SET text = 'done'")));
  await waits();
  going.socket.destroy();
  await blocker.query('COMMIT');
  await until('it is done', async () => (await sharded.on(1, NOTES))[0]?.text === 'done');
  expect(await sharded.on(0, NOTES)).toEqual([A, C].map((tenant) => ({ tenant, id: 1, text: 'done' })));
  await until('the session is forgotten', () => sharded.proxy.clients().length === 2);
  await expectNothingLeft(sharded);
});

test('what a proxy that died has left prepared is ended by another, by the decision', { timeout: 60_000 }, async () => {
  const sharded = await start();
  const prepared = async (decider: number, at: number, letter: string): Promise<void> => {
    const name = `cutover_shards_${decider.toString()}_${letter}`;
    await sharded.on(
      at,
      `BEGIN; INSERT INTO notes VALUES (${letter === 'd' ? A.toString() : B.toString()}, ${letter.charCodeAt(0).toString()}, '${letter}');
      PREPARE TRANSACTION '${name}_${at.toString()}'`,
    );
  };
  await sharded.on(0, "SELECT cutover_shards.commit('cutover_shards_0_c')");
  await prepared(0, 1, 'c');
  await prepared(0, 1, 'a');
  // Decided on the second shard.
  await sharded.on(1, "SELECT cutover_shards.commit('cutover_shards_1_d')");
  await prepared(1, 0, 'd');
  const left = 'SELECT FROM pg_prepared_xacts WHERE database = current_database()';
  for (const shard of SHARDS)
    await until('nothing is left', async () => (await sharded.on(shard, left)).length === 0, 40_000);
  expect((await sharded.on(1, NOTES)).map(({ text }) => text)).toEqual(['old', 'c']);
  expect((await sharded.on(0, NOTES)).map(({ text }) => text)).toContain('d');
});
