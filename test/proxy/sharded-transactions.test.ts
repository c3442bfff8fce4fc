/** One task: a transaction may use several shards, and is committed on all of them or on none. */
import { expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import { keepCoordinator } from '../../src/sharding/coordinator-keeping.js';
import { cstring, frame } from '../../src/wire/backend.js';
import { query, SYNC } from '../../src/wire/frontend.js';
import { until } from '../support/wait.js';
import { failure, HERE, HERE_TOO, THERE, useShards, type Sharded } from './shards.js';
import { clientOf, RawClient } from './support.js';

const shards = useShards();
const SHARDS = [0, 1];
const [A, B, C] = [HERE, THERE, HERE_TOO].map(Number) as [number, number, number];
const NOTES = 'SELECT tenant_id::int AS tenant, id::int, text FROM notes ORDER BY 1, 2';
const UPDATE = 'UPDATE notes SET text = $2 WHERE tenant_id = $1';

const UPDATE_ONE = (tenant: number): string => `UPDATE notes SET text = 'skipped' WHERE tenant_id = ${String(tenant)}`;
const FLUSH = frame('H');

type Client = Awaited<ReturnType<typeof clientOf>>;

/** Shards that can commit together, with a row of each of three tenants. */
async function start(adjust?: (config: Config) => Config): Promise<Sharded & { readonly client: Client }> {
  const sharded = await shards(adjust);
  for (const shard of SHARDS) await sharded.on(shard, TWO_PHASE_DDL);
  for (const tenant of [A, C]) await sharded.on(0, `INSERT INTO notes VALUES (${String(tenant)}, 1, 'old')`);
  await sharded.on(1, `INSERT INTO notes VALUES (${String(B)}, 1, 'old')`);
  return { ...sharded, client: await clientOf(sharded.proxy, 'prod') };
}

async function texts({ on }: Sharded): Promise<string> {
  const rows = (await Promise.all(SHARDS.map((shard) => on(shard, NOTES)))).flat();
  return rows.map(({ tenant, id, text }) => `${String(tenant)}.${String(id)}=${String(text)}`).join(' ');
}

const all = (text: string): string =>
  [A, C]
    .sort((a, b) => a - b)
    .concat(B)
    .map((tenant) => `${String(tenant)}.1=${text}`)
    .join(' ');

async function expectNothingLeft({ on }: Sharded): Promise<void> {
  for (const shard of SHARDS) {
    expect(await on(shard, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')).toEqual([]);
    expect(await on(shard, 'SELECT * FROM cutover_shards.decision')).toEqual([]);
    const open = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`;
    expect(await on(shard, open)).toEqual([]);
  }
}

test('statements for one shard after the other are one transaction, by every form of statement', async () => {
  const sharded = await start();
  const { client } = sharded;
  await client.query('BEGIN');
  expect((await client.query(UPDATE, [A, 'new'])).rowCount).toBe(1);
  expect((await client.query({ name: 'u', text: UPDATE, values: [B, 'new'] })).rowCount).toBe(1);
  expect((await client.query({ name: 'u', text: UPDATE, values: [C, 'new'] })).rowCount).toBe(1);
  expect(await texts(sharded)).toBe(all('old'));
  // It sees what it has written, on each of them.
  for (const tenant of [A, B, C]) {
    const { rows } = await client.query(`SELECT text FROM notes WHERE tenant_id = ${String(tenant)}`);
    expect(rows).toEqual([{ text: 'new' }]);
  }
  expect((await client.query('COMMIT')).command).toBe('COMMIT');
  expect(await texts(sharded)).toBe(all('new'));
  await client.query('BEGIN');
  for (const tenant of [B, A]) await client.query(UPDATE, [tenant, 'never']);
  expect((await client.query({ name: 'r', text: 'ROLLBACK' })).command).toBe('ROLLBACK');
  expect(await texts(sharded)).toBe(all('new'));
  await client.query('BEGIN');
  for (const tenant of [B, C]) await client.query(UPDATE, [tenant, 'last']);
  expect((await client.query({ name: 'c', text: 'COMMIT', values: [] })).command).toBe('COMMIT');
  expect((await client.query({ name: 'u', text: UPDATE, values: [A, 'last'] })).rowCount).toBe(1);
  expect(await texts(sharded)).toBe(all('last'));
  await expectNothingLeft(sharded);
});

test('a statement for several shards is part of it, before and behind those for one', async () => {
  const sharded = await start();
  const { client } = sharded;
  await client.query('BEGIN');
  expect((await client.query("UPDATE notes SET text = 'all'")).rowCount).toBe(3);
  await client.query(UPDATE, [B, 'one']);
  const { rows } = await client.query(
    `INSERT INTO notes VALUES (${String(B)}, 2, 'b'), (${String(A)}, 2, 'a') RETURNING text`,
  );
  expect(rows).toEqual([{ text: 'b' }, { text: 'a' }]);
  expect((await client.query('UPDATE rates SET rate = 5')).rowCount).toBe(1);
  expect((await client.query('SELECT rate FROM rates')).rows).toEqual([{ rate: 5 }]);
  expect((await client.query('DELETE FROM notes WHERE id = 2')).rowCount).toBe(2);
  expect(await texts(sharded)).toBe(all('old'));
  await client.query('COMMIT');
  expect(await texts(sharded)).toBe(all('all').replace(`${String(B)}.1=all`, `${String(B)}.1=one`));
  for (const shard of SHARDS) expect(await sharded.on(shard, 'SELECT rate FROM rates')).toEqual([{ rate: 5 }]);
  await expectNothingLeft(sharded);
});

test('an error on one shard fails it on all, and what was before a savepoint may stay', async () => {
  const sharded = await start();
  const { client } = sharded;
  await sharded.on(1, 'ALTER TABLE notes ADD CONSTRAINT short CHECK (length(text) < 9)');
  const tooLong = 'too long a text';
  for (const end of ['ROLLBACK', 'COMMIT']) {
    await client.query('BEGIN');
    await client.query(UPDATE, [A, 'new']);
    expect((await failure(client.query(UPDATE, [B, tooLong]))).code).toBe('23514');
    for (const tenant of [A, B]) expect((await failure(client.query(UPDATE, [tenant, 'more']))).code).toBe('25P02');
    expect((await failure(client.query("UPDATE notes SET text = 'more'"))).code).toBe('25P02');
    expect((await client.query(end)).command).toBe('ROLLBACK');
    expect(await texts(sharded)).toBe(all('old'));
  }
  await client.query('BEGIN');
  await client.query(UPDATE, [A, 'first']);
  await client.query('SAVEPOINT here');
  await client.query(UPDATE, [B, 'second']);
  await client.query('SAVEPOINT there');
  await client.query(UPDATE, [C, 'third']);
  expect((await failure(client.query(`UPDATE notes SET text = '${tooLong}'`))).code).toBe('23514');
  await client.query('ROLLBACK TO there');
  await client.query(UPDATE, [C, 'fourth']);
  await client.query('RELEASE there');
  await client.query('COMMIT');
  expect((await texts(sharded)).split(' ').sort()).toEqual(
    [`${String(A)}.1=first`, `${String(B)}.1=second`, `${String(C)}.1=fourth`].sort(),
  );
  await client.query('BEGIN');
  await client.query(UPDATE, [A, 'a']);
  await client.query('SAVEPOINT here');
  await client.query("UPDATE notes SET text = 'x'");
  await client.query('ROLLBACK TO SAVEPOINT here');
  await client.query('COMMIT');
  expect((await texts(sharded)).split(' ').sort()).toEqual(
    [`${String(A)}.1=a`, `${String(B)}.1=second`, `${String(C)}.1=fourth`].sort(),
  );
  await expectNothingLeft(sharded);
});

test('what is found at the commit is on none, and the client reads its error', async () => {
  const sharded = await start();
  const { client } = sharded;
  for (const shard of SHARDS) {
    const unique = 'ALTER TABLE notes ADD CONSTRAINT one UNIQUE (tenant_id, text) DEFERRABLE INITIALLY DEFERRED';
    await sharded.on(shard, unique);
    await client.query('BEGIN');
    for (const tenant of [A, C, B])
      await client.query(`INSERT INTO notes VALUES (${String(tenant)}, 7, 'same'), (${String(tenant)}, 8, 'same')`);
    expect((await failure(client.query('COMMIT'))).code).toBe('23505');
    expect(await texts(sharded)).toBe(all('old'));
    await sharded.on(shard, 'ALTER TABLE notes DROP CONSTRAINT one');
  }
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  await expectNothingLeft(sharded);
});

test('what was set for the transaction holds on every shard of it, and what was set in it holds behind it', async () => {
  const sharded = await start();
  const { client } = sharded;
  await client.query('BEGIN');
  await client.query("SET LOCAL application_name = 'before'");
  await client.query("SET TimeZone = 'Asia/Tokyo'");
  const shown = "current_setting('application_name') || ' ' || current_setting('TimeZone')";
  const show = async (tenant: number): Promise<unknown> =>
    (await client.query(`SELECT ${shown} AS shown FROM notes WHERE tenant_id = ${String(tenant)}`)).rows[0];
  for (const tenant of [A, B]) {
    await client.query(UPDATE, [tenant, 'set']);
    expect(await show(tenant)).toEqual({ shown: 'before Asia/Tokyo' });
  }
  await client.query("SET LOCAL application_name = 'behind'");
  for (const tenant of [A, B]) expect(await show(tenant)).toEqual({ shown: 'behind Asia/Tokyo' });
  await client.query('COMMIT');

  for (const tenant of [B, A])
    expect(await show(tenant)).toMatchObject({ shown: expect.stringMatching(/^(?!be).* Asia\/Tokyo$/) as unknown });
  const other = await clientOf(sharded.proxy, 'prod');
  for (const tenant of [A, B]) {
    const { rows } = await other.query(`SELECT ${shown} AS shown FROM notes WHERE tenant_id = ${String(tenant)}`);
    expect((rows[0] as { shown: string }).shown).not.toContain('Tokyo');
  }
});

test('reads over the shards are part of it until it has written', async () => {
  const sharded = await start();
  await keepCoordinator(sharded.config, 'prod');
  const client = await clientOf(sharded.proxy, 'prod');
  const count = 'SELECT count(*)::int AS n FROM notes';
  await client.query('BEGIN');
  expect((await client.query('SELECT text FROM notes WHERE tenant_id = $1', [B])).rows).toHaveLength(1);
  expect((await client.query(count)).rows).toEqual([{ n: 3 }]);
  await client.query(UPDATE, [A, 'new']);
  await client.query(UPDATE, [B, 'new']);
  const refused = await failure(client.query(count));
  expect(refused).toMatchObject({ code: '0A000', message: expect.stringMatching(/would not see/) as unknown });
  await client.query('ROLLBACK');
  await client.query('BEGIN');
  expect((await client.query(count)).rows).toEqual([{ n: 3 }]);
  await client.query(UPDATE, [A, 'one']);
  // Not by the coordinator, where it began.
  expect((await client.query('SELECT text FROM notes WHERE tenant_id = $1', [A])).rows).toEqual([{ text: 'one' }]);
  await client.query('COMMIT');
  expect(await sharded.on(0, `SELECT text FROM notes WHERE tenant_id = ${String(A)}`)).toEqual([{ text: 'one' }]);
  await expectNothingLeft(sharded);
});

test('what locks rows or tables does not wait for what the coordinator holds for the same transaction', async () => {
  const sharded = await start();
  await keepCoordinator(sharded.config, 'prod');
  const client = await clientOf(sharded.proxy, 'prod');
  const count = 'SELECT count(*)::int AS n FROM notes';
  await client.query('BEGIN');
  await client.query(count);
  expect((await client.query('SELECT id::int FROM notes WHERE tenant_id = $1 FOR UPDATE', [B])).rows).toEqual([
    { id: 1 },
  ]);
  expect((await client.query(UPDATE, [B, 'locked'])).rowCount).toBe(1);
  await client.query('COMMIT');
  await client.query('BEGIN');
  await client.query(count);
  expect((await failure(client.query('TRUNCATE notes'))).message).toMatch(/holds the tables/);
  await client.query('ROLLBACK');
  expect((await client.query(count)).rows).toEqual([{ n: 3 }]);
});

test('a pause waits for it to end, and it takes its servers behind the closed gate', async () => {
  const sharded = await start();
  const { client, proxy } = sharded;
  const gate = proxy.gate('prod');
  await client.query('BEGIN');
  await client.query(UPDATE, [A, 'paused']);
  gate.close('pause');
  const drained = gate.drained(10_000);
  await client.query(UPDATE, [B, 'paused']);
  await client.query("UPDATE notes SET text = 'paused'");
  expect(gate.holders).toHaveLength(1);
  const other = await clientOf(proxy, 'prod');
  const waiting = other.query(UPDATE, [B, 'behind']);
  await until('it waits', () => gate.waitingCount === 1);
  await client.query('COMMIT');
  expect((await drained).drained).toBe(true);
  expect(await texts(sharded)).toBe(all('paused'));
  gate.open('pause');
  expect((await waiting).rowCount).toBe(1);
});

test('where no further server is to be had it fails, and the others go on', async () => {
  const sharded = await start((config) => ({
    ...config,
    general: { ...config.general, defaultPoolSize: 1, checkoutTimeoutMs: 500 },
  }));
  const [one, other] = [sharded.client, await clientOf(sharded.proxy, 'prod')];
  for (const [client, tenant] of [
    [one, A],
    [other, B],
  ] as const) {
    // BEGIN is said where the session was last.
    await client.query(UPDATE, [tenant, 'old']);
    await client.query('BEGIN');
    await client.query(UPDATE, [tenant, 'mine']);
  }
  const refused = await failure(one.query(UPDATE, [B, 'mine']));
  expect(refused.code).toBe('53300');
  expect((await failure(one.query("UPDATE notes SET text = 'x'"))).code).toBe('25P02');
  expect((await one.query('COMMIT')).command).toBe('ROLLBACK');
  await other.query(UPDATE, [A, 'mine']);
  expect((await failure(one.query("UPDATE notes SET text = 'x'"))).code).toBe('53300');
  await other.query('COMMIT');
  expect((await texts(sharded)).split(' ').sort()).toEqual(
    [`${String(A)}.1=mine`, `${String(B)}.1=mine`, `${String(C)}.1=old`].sort(),
  );
  await expectNothingLeft(sharded);
});

test('it is refused where it would not be safe, and fails where it is', async () => {
  const sharded = await start();
  const { client } = sharded;
  const cases: readonly [readonly string[], RegExp][] = [
    [['BEGIN ISOLATION LEVEL REPEATABLE READ'], /READ COMMITTED/],
    [['BEGIN', 'SET LOCAL ROLE pg_monitor', 'RESET ROLE'], /SET ROLE/],
    [['BEGIN', `DECLARE c CURSOR FOR SELECT * FROM notes WHERE tenant_id = ${String(A)}`], /open cursor/],
    [['BEGIN', "SELECT set_config('my.own', 'x', true)"], /more of itself/],
  ];
  for (const [before, reason] of cases) {
    for (const text of [
      `UPDATE public.notes SET text = 'b' WHERE tenant_id = ${String(B)}`,
      "UPDATE public.notes SET text = 'b'",
    ]) {
      for (const sql of before) await client.query(sql);
      await client.query(`SELECT text FROM public.notes WHERE tenant_id = ${String(A)}`);
      const refused = await failure(client.query(text));
      expect(refused).toMatchObject({ code: '0A000', message: expect.stringMatching(reason) as unknown });
      expect((await failure(client.query('SELECT 1'))).code).toBe('25P02');
      await client.query('ROLLBACK');
    }
  }
  const spread = async (): Promise<void> => {
    await client.query('BEGIN');
    for (const tenant of [A, B]) await client.query(UPDATE, [tenant, 'never']);
  };
  for (const text of [
    'COMMIT AND CHAIN',
    "SET TimeZone = 'UTC'",
    `UPDATE notes SET text = 'x' WHERE tenant_id = ${String(B)}; COMMIT`,
    'COMMIT; BEGIN',
    "SELECT set_config('my.own', 'x', true)",
  ]) {
    await spread();
    expect((await failure(client.query(text))).code).toBe('0A000');
    expect((await client.query('COMMIT')).command).toBe('ROLLBACK');
  }
  expect(await texts(sharded)).toBe(all('old'));
  await expectNothingLeft(sharded);
});

test('behind an error that the client has not ended with a Sync, what it sends is skipped where it is', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const prepare = (name: string, sql: string): Buffer => frame('P', cstring(name), cstring(sql), Buffer.alloc(2));
  const execute = (name: string): Buffer[] => [
    frame('B', cstring(''), cstring(name), Buffer.alloc(6)),
    frame('E', cstring(''), Buffer.alloc(4)),
  ];
  const answers = async (...messages: readonly Buffer[]): Promise<string> => {
    client.send(...messages);
    return client.types(await client.until('Z'));
  };
  await answers(prepare('a', UPDATE_ONE(A)), prepare('b', UPDATE_ONE(B)), SYNC);
  for (const acted of [false, true]) {
    await answers(query('BEGIN'));
    if (acted) await answers(...execute('a'), SYNC);
    client.send(prepare('', 'SELECT FROM FROM'), FLUSH);
    await client.until('E');
    expect(await answers(...execute('b'), SYNC)).toBe('Z');
    expect(await answers(...execute('b'), SYNC)).toBe('EZ');
    expect(await answers(query('ROLLBACK'))).toBe('CZ');
  }
  expect(await texts(sharded)).toBe(all('old'));
});

test('a client that leaves, and a server that is lost, leave nothing of it', async () => {
  const sharded = await start();
  await sharded.client.query('BEGIN');
  for (const tenant of [A, B]) await sharded.client.query(UPDATE, [tenant, 'left']);
  await sharded.client.end();
  const open = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`;
  for (const shard of SHARDS)
    await until('it is rolled back', async () => (await sharded.on(shard, open)).length === 0);
  for (const shard of SHARDS) {
    const client = await clientOf(sharded.proxy, 'prod');
    let told: Error | undefined;
    client.on('error', (error) => (told ??= error));
    await client.query('BEGIN');
    for (const tenant of [A, B]) await client.query(UPDATE, [tenant, 'lost']);
    await sharded.on(shard, open.replace('pid', 'pg_terminate_backend(pid)'));
    // Where the session is it ends, as with any server that is lost; elsewhere only the transaction does.
    if (shard === 1) await until('its client is told', () => told);
    const failed = await failure(client.query('COMMIT'));
    expect(failed.code).toBe(shard === 0 ? '40000' : undefined);
    expect((told as { code?: string } | undefined)?.code).toBe(shard === 0 ? undefined : '57P01');
    expect(await texts(sharded)).toBe(all('old'));
    await client.end().catch(() => undefined);
  }
  await expectNothingLeft(sharded);
});

test('two that wait for each other on different shards do not wait for ever', async () => {
  const sharded = await start((config) => config);
  const [one, other] = [await clientOf(sharded.proxy, 'prod'), await clientOf(sharded.proxy, 'prod')];
  for (const client of [one, other]) {
    await client.query('BEGIN');
    await client.query("SET LOCAL lock_timeout = '1s'");
  }
  await one.query(UPDATE, [A, 'one']);
  await other.query(UPDATE, [B, 'other']);
  const ends = await Promise.all([
    one.query(UPDATE, [B, 'one']).then(
      () => null,
      (error: unknown) => error,
    ),
    other.query(UPDATE, [A, 'other']).then(
      () => null,
      (error: unknown) => error,
    ),
  ]);
  expect(ends.some((end) => (end as { code?: string } | null)?.code === '55P03')).toBe(true);
  for (const client of [one, other]) await client.query('ROLLBACK');
  const limit = async (tenant: number): Promise<unknown> =>
    (await one.query(`SELECT current_setting('lock_timeout') AS limit FROM notes WHERE tenant_id = ${String(tenant)}`))
      .rows[0];
  await one.query('BEGIN');
  for (const tenant of [A, B]) await one.query(UPDATE, [tenant, 'x']);
  for (const tenant of [A, B]) expect(await limit(tenant)).toEqual({ limit: '1min' });
  await one.query('ROLLBACK');
  for (const tenant of [A, B]) expect(await limit(tenant)).toEqual({ limit: '0' });
});
