/** One task: statements of a sharded database run on the shard of their key, and nothing is ever answered from another. */
import { expect, test } from 'vitest';
import { showShards } from '../../src/admin/show-shards.js';
import { COORDINATOR } from '../../src/proxy/routes.js';
import { keepCoordinator } from '../../src/sharding/coordinator-keeping.js';
import { cstring, frame } from '../../src/wire/backend.js';
import { SYNC } from '../../src/wire/frontend.js';
import { until } from '../support/wait.js';
import { failure, HERE, HERE_TOO, THERE, useShards } from './shards.js';
import { clientOf, RawClient } from './support.js';

const start = useShards();

test('each row is written to the shard of its key and read from there, by every form of statement', async () => {
  const { proxy, on } = await start();
  const client = await clientOf(proxy, 'prod');
  for (const tenant of [HERE, THERE, HERE_TOO]) {
    await client.query(`INSERT INTO notes VALUES (${tenant.toString()}, 1, 'simple')`);
    await client.query('INSERT INTO notes VALUES ($1, 2, $2)', [tenant, 'unnamed']);
    await client.query({ name: 'insert', text: 'INSERT INTO notes VALUES ($1, 3, $2)', values: [tenant, 'named'] });
    const { rows } = await client.query('SELECT text FROM notes WHERE tenant_id = $1 ORDER BY id', [tenant]);
    expect(rows.map((row: { text: string }) => row.text)).toEqual(['simple', 'unnamed', 'named']);
  }
  const tenants = 'SELECT DISTINCT tenant_id::int AS tenant FROM notes ORDER BY 1';
  expect(await on(0, tenants)).toEqual([{ tenant: Number(HERE) }, { tenant: Number(HERE_TOO) }]);
  expect(await on(1, tenants)).toEqual([{ tenant: Number(THERE) }]);
});

test('a client whose settings its server gets ahead of its first statement is answered', async () => {
  const { proxy } = await start();
  for (const name of ['one', 'other']) {
    const client = await clientOf(proxy, 'prod', { application_name: name });
    for (const tenant of [HERE, THERE]) {
      const { rows } = await client.query('SELECT text FROM notes WHERE tenant_id = $1', [tenant]);
      expect(rows).toEqual([]);
    }
    expect((await client.query('SHOW application_name')).rows).toEqual([{ application_name: name }]);
  }
});

test('a transaction begins anew on the shard of its first statement, with what it has said before', async () => {
  const { proxy, on } = await start();
  const client = await clientOf(proxy, 'prod');
  for (const tenant of [HERE, THERE, HERE_TOO, THERE]) {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ -- a comment goes to the end of its line');
    await client.query("SET LOCAL application_name = 'mine'");
    await client.query('SAVEPOINT one');
    const settings = "current_setting('transaction_isolation') || current_setting('application_name')";
    await client.query(
      `INSERT INTO notes SELECT $1, coalesce(max(id), 0) + 1, ${settings} FROM notes WHERE tenant_id = $1`,
      [tenant],
    );
    await client.query('SAVEPOINT two');
    await client.query('UPDATE notes SET text = NULL WHERE tenant_id = $1', [tenant]);
    await client.query('ROLLBACK TO two');
    await client.query('COMMIT');
  }
  const written = 'SELECT tenant_id::int AS tenant, text FROM notes ORDER BY 1, id';
  const text = 'repeatable readmine';
  expect(await on(1, written)).toEqual([
    { tenant: Number(THERE), text },
    { tenant: Number(THERE), text },
  ]);
  expect(await on(0, written)).toHaveLength(2);
  await client.query('BEGIN');
  await client.query('DELETE FROM notes WHERE tenant_id = $1', [THERE]);
  await client.query('ROLLBACK');
  expect(await on(1, written)).toHaveLength(2);
});

test('a read of what every shard has does not hold a transaction to a shard, unless it could be told', async () => {
  const { proxy } = await start();
  const client = await clientOf(proxy, 'prod');
  const insert = 'INSERT INTO notes VALUES ($1, $2)';
  let id = 0;
  const outcomes = async (begin: string, read: string): Promise<readonly string[]> => {
    const seen: string[] = [];
    // From a shard to the other one and back: one of them is not where the session is.
    for (const tenant of [HERE, THERE, HERE]) {
      await client.query(begin);
      await client.query(read);
      id += 1;
      seen.push(
        await client.query(insert, [tenant, id]).then(
          () => 'written',
          () => 'refused',
        ),
      );
      await client.query('COMMIT');
    }
    return seen;
  };
  for (const read of ['SELECT rate FROM rates', 'SELECT 1;', 'SHOW server_version'])
    expect([read, await outcomes('BEGIN', read)]).toEqual([read, ['written', 'written', 'written']]);
  for (const [begin, read] of [
    ['BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT rate FROM rates'],
    ['BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT now()'],
    ['BEGIN', 'DECLARE c CURSOR FOR SELECT rate FROM rates'],
  ] as const)
    expect([read, await outcomes(begin, read)]).toEqual([read, expect.arrayContaining(['refused'])]);
});

test('what a transaction that must not be spread sends for another shard fails it, and nothing of it stays', async () => {
  const { proxy, on } = await start();
  const client = await clientOf(proxy, 'prod');
  for (const form of ['simple', 'extended']) {
    await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
    await client.query('INSERT INTO notes VALUES ($1, 1, $2)', [HERE, form]);
    const other = `INSERT INTO notes VALUES (${THERE.toString()}, 1, 'x')`;
    const error = await failure(
      form === 'simple' ? client.query(other) : client.query(`${other} RETURNING $1::int`, [1]),
    );
    expect(error.code).toBe('0A000');
    expect(error.message).toBe(
      'the transaction runs on shard 0 of "prod" and this statement belongs to shard 1: only one that is READ COMMITTED may use several shards',
    );
    expect((await failure(client.query('SELECT 1'))).code).toBe('25P02');
    await client.query('ROLLBACK');
  }
  expect(await on(0, 'SELECT FROM notes')).toEqual([]);
  expect(await on(1, 'SELECT FROM notes')).toEqual([]);
});

test('what is not proven to be on one shard is refused with the reason, and the session goes on', async () => {
  const { proxy } = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('INSERT INTO notes VALUES ($1, 1, $2)', [THERE, 'x']);
  const refused: readonly [sql: string, reason: RegExp][] = [
    ['SELECT count(*) FROM notes', /there is no coordinator/],
    ['CREATE INDEX CONCURRENTLY ON notes (text)', /cannot run inside a transaction/],
    ['UPDATE notes SET text = NULL; DELETE FROM notes', /parts belong to different places/],
    ["/* done */ PREPARE TRANSACTION 'x'", /prepared transaction/],
    ['PREPARE p AS SELECT 1', /PREPARE leaves something/],
    ['LISTEN channel', /LISTEN leaves something/],
    [`SET search_path = other; DELETE FROM notes WHERE tenant_id = ${THERE.toString()}`, /changes what names mean/],
    ["SELECT set_config('search_path', 'other', false)", /with SET only/],
    ['SELEC 1', /there is no coordinator/],
  ];
  for (const [sql, reason] of refused) {
    for (const values of sql.includes(';') ? [undefined] : [undefined, []]) {
      const error = await failure(client.query(sql, values));
      expect([sql, error.code]).toEqual([sql, '0A000']);
      expect(error.message).toMatch(reason);
    }
    await client.query('BEGIN');
    expect((await failure(client.query(sql))).message).toMatch(reason);
    expect((await client.query('ROLLBACK')).command).toBe('ROLLBACK');
  }
  const { rows } = await client.query('SELECT text FROM notes WHERE tenant_id = $1', [THERE]);
  expect(rows).toEqual([{ text: 'x' }]);
  expect((await client.query('SELECT rate FROM rates')).rows).toEqual([{ rate: 1 }]);
});

const parse = (sql: string): Buffer => frame('P', cstring(''), cstring(sql), Buffer.alloc(2));
const bind = (): Buffer => frame('B', cstring(''), cstring(''), Buffer.alloc(6));
const execute = (): Buffer => frame('E', cstring(''), Buffer.alloc(4));
const run = (sql: string): Buffer => Buffer.concat([parse(sql), bind(), execute()]);
const insert = (tenant: bigint, id: number): string =>
  `INSERT INTO notes VALUES (${tenant.toString()}, ${id.toString()})`;

test('batches in a pipeline each go to their shard, and a batch of two shards is one transaction that fails', async () => {
  const { proxy, on } = await start();
  const client = await RawClient.loggedIn(proxy, 'prod');
  const batches = [HERE, THERE, HERE_TOO].flatMap((tenant) => [run(insert(tenant, 1)), run(insert(tenant, 2)), SYNC]);
  client.send(...batches, run('BEGIN'), run(insert(THERE, 3)), SYNC, run('COMMIT'), SYNC);
  expect(client.types(await client.until('Z', 5))).toBe('12C12CZ'.repeat(4) + '12CZ');
  expect(await on(0, 'SELECT FROM notes')).toHaveLength(4);
  expect(await on(1, 'SELECT FROM notes')).toHaveLength(3);

  client.send(run(insert(HERE, 5)), run(insert(THERE, 5)), run(insert(HERE, 6)), SYNC, run(insert(THERE, 7)), SYNC);
  expect(client.types(await client.until('Z', 2))).toBe('12C12EZ12CZ');
  expect(await on(0, 'SELECT FROM notes WHERE id > 4')).toEqual([]);
  expect(await on(1, 'SELECT id::int FROM notes WHERE id > 4')).toEqual([{ id: 7 }]);
});

test('a value of a megabyte before the key, in pieces, is waited for', async () => {
  const { proxy, on } = await start();
  const client = await clientOf(proxy, 'prod');
  const text = 'x'.repeat(1_048_576);
  const sql = 'INSERT INTO notes (text, tenant_id, id) VALUES ($1, $2, 1)';
  for (const tenant of [HERE, THERE]) await client.query(sql, [text, tenant]);
  await client.query('BEGIN');
  await client.query(sql.replace('1)', '2)'), [text, THERE]);
  await client.query(`INSERT INTO notes (text, tenant_id, id) VALUES ('${text}', ${THERE.toString()}, 3)`);
  await client.query('COMMIT');
  expect(await on(0, 'SELECT length(text) FROM notes')).toHaveLength(1);
  expect(await on(1, 'SELECT length(text) FROM notes')).toEqual([1, 2, 3].map(() => ({ length: text.length })));
});

test('a statement too long to be looked at is refused', async () => {
  const { proxy } = await start();
  const client = await clientOf(proxy, 'prod');
  const text = 'x'.repeat(17 * 1_048_576);
  const error = await failure(client.query('INSERT INTO notes (text, tenant_id, id) VALUES ($1, $2, 1)', [text, HERE]));
  expect(error.message).toMatch(/longer than/);
  const another = await clientOf(proxy, 'prod');
  expect((await another.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a table made on every shard is known soon to a statement that names it', async () => {
  const { proxy, on } = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('SELECT 1');
  for (const shard of [0, 1]) await on(shard, 'CREATE TABLE later (tenant_id bigint PRIMARY KEY)');
  await until(
    'the table is known',
    async () => (await client.query('INSERT INTO later VALUES ($1)', [THERE])).rowCount,
  );
  expect(await on(1, 'SELECT FROM later')).toHaveLength(1);
});

test('a shard asked for by hand, in a comment or for the session', async () => {
  const { proxy } = await start();
  const client = await clientOf(proxy, 'prod');
  for (const [tenant, id] of [
    [HERE, 1],
    [THERE, 2],
  ] as const)
    await client.query('INSERT INTO notes VALUES ($1, $2)', [tenant, id]);
  const count = 'SELECT id::int FROM notes';
  expect((await client.query(`/* pgdog_shard: 1 */ ${count}`)).rows).toEqual([{ id: 2 }]);
  await client.query('SET pgdog.shard = 0');
  expect((await client.query(count)).rows).toEqual([{ id: 1 }]);
  await client.query('BEGIN');
  await client.query('SET LOCAL pgdog.shard = 1');
  expect((await client.query(count)).rows).toEqual([{ id: 2 }]);
  await client.query('COMMIT');
  expect((await client.query(count)).rows).toEqual([{ id: 1 }]);
  await client.query('RESET pgdog.shard');
  expect((await failure(client.query(count))).code).toBe('0A000');
});

test('search_path decides which table a name means, within a transaction too', async () => {
  const { proxy, on } = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('SET search_path TO other, public');
  await client.query('INSERT INTO notes VALUES ($1)', [THERE]);
  expect(await on(1, 'SELECT FROM other.notes')).toHaveLength(1);
  await client.query('BEGIN');
  await client.query('SET LOCAL search_path = public');
  expect((await failure(client.query('INSERT INTO notes VALUES ($1, 1)', [THERE]))).message).toMatch(/catalogue/);
  await client.query('ROLLBACK');
  await client.query('INSERT INTO public.notes VALUES ($1, 1)', [THERE]);
  expect(await on(1, 'SELECT FROM public.notes')).toHaveLength(1);
});

test('session mode is transaction mode on shards', async () => {
  const { proxy } = await start((config) => ({ ...config, general: { ...config.general, poolerMode: 'session' } }));
  const client = await clientOf(proxy, 'prod');
  for (const tenant of [HERE, THERE]) await client.query('INSERT INTO notes VALUES ($1, 1)', [tenant]);
  expect(proxy.pools().map(({ shard, poolerMode }) => [shard, poolerMode])).toEqual([
    [0, 'transaction'],
    [COORDINATOR, 'transaction'],
    [1, 'transaction'],
  ]);
  expect(proxy.servers().every(({ clientId }) => clientId === null)).toBe(true);
});

test('with a coordinator, reads over several shards are answered by it, in a transaction too', async () => {
  const { proxy, config, on } = await start();
  expect((await keepCoordinator(config, 'prod')).changed).toBe(true);
  const client = await clientOf(proxy, 'prod');
  for (const tenant of [HERE, THERE]) await client.query('INSERT INTO notes VALUES ($1, 1, $2)', [tenant, 'x']);
  const count = 'SELECT count(*)::int AS notes, max(rate) AS rate FROM notes, rates';
  const one = `SELECT id::int FROM notes WHERE tenant_id = ${THERE.toString()}`;
  expect((await client.query(count)).rows).toEqual([{ notes: 2, rate: 1 }]);
  expect((await client.query(`${count} WHERE id = $1`, [1])).rows).toEqual([{ notes: 2, rate: 1 }]);

  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  expect((await client.query(count)).rows).toEqual([{ notes: 2, rate: 1 }]);
  expect((await client.query(one)).rows).toEqual([{ id: 1 }]);
  expect((await client.query('SELECT rate FROM rates')).rows).toEqual([{ rate: 1 }]);
  expect((await failure(client.query(`/* pgdog_shard: 1 */ ${one}`))).message).toMatch(
    /runs on the coordinator .* belongs to shard 1/,
  );
  await client.query('ROLLBACK');

  await client.query('BEGIN');
  await client.query('INSERT INTO notes VALUES ($1, 2, $2)', [THERE, 'y']);
  expect((await failure(client.query(count))).message).toMatch(/runs on shard 1 .* belongs to the coordinator/);
  await client.query('ROLLBACK');

  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await client.query(count);
  expect((await failure(client.query('INSERT INTO notes VALUES ($1, 3)', [THERE]))).code).toBe('0A000');
  await client.query('ROLLBACK');
  expect(await on(1, 'SELECT FROM notes')).toHaveLength(1);
});

test('SHOW SHARDS says where each shard is and whether reads over several are answered', async () => {
  const { config } = await start();
  const shown = async (): Promise<readonly unknown[]> =>
    (await showShards(config)).rows.map(([database, shard, role, , , , state]) => [database, shard, role, state]);
  const shards = [
    ['prod', '0', 'shard', null],
    ['prod', '1', 'shard', null],
  ];
  expect(await shown()).toEqual([...shards, ['prod', null, 'coordinator', 'there is no coordinator']]);
  await keepCoordinator(config, 'prod');
  expect(await shown()).toEqual([...shards, ['prod', null, 'coordinator', 'in step']]);
});

test('EXPLAIN says where a statement runs', async () => {
  const { proxy, config } = await start();
  await keepCoordinator(config, 'prod');
  const client = await clientOf(proxy, 'prod');
  const notices: (string | undefined)[] = [];
  client.on('notice', ({ message }) => notices.push(message));
  await client.query(`EXPLAIN SELECT * FROM notes WHERE tenant_id = ${THERE.toString()}`);
  await client.query('EXPLAIN SELECT * FROM notes WHERE tenant_id = $1', [HERE]);
  await client.query('EXPLAIN SELECT count(*) FROM notes');
  await client.query('BEGIN');
  await client.query(`EXPLAIN DELETE FROM notes WHERE tenant_id = ${THERE.toString()}`);
  await client.query('COMMIT');
  await client.query('SELECT 1');
  expect(notices).toEqual(
    ['shard 1', 'shard 0', 'the coordinator', 'shard 1'].map((place) => `runs on ${place} of "prod"`),
  );
});

test('a coordinator that is not in step, or lacks what is named, is not asked', { timeout: 120_000 }, async () => {
  const { proxy, config, on } = await start();
  for (const shard of [0, 1]) {
    await on(shard, 'CREATE VIEW latest AS SELECT ctid, tenant_id FROM notes');
    await on(shard, 'CREATE TABLE own (tenant_id bigint PRIMARY KEY); ALTER TABLE own ENABLE ROW LEVEL SECURITY');
    await on(shard, 'CREATE TABLE bills (id bigint PRIMARY KEY, tenant_id bigint, due date)');
  }
  const { leftOut } = await keepCoordinator(config, 'prod');
  expect(leftOut.map(({ object }) => object).sort()).toEqual([
    'primary key of table public.bills',
    'table public.own',
    'view public.latest',
  ]);
  const client = await clientOf(proxy, 'prod');
  expect((await failure(client.query('SELECT count(*) FROM own'))).message).toMatch(/does not have table public.own/);
  expect((await failure(client.query('SELECT * FROM latest'))).message).toMatch(/does not have view public.latest/);
  expect((await client.query('SELECT count(*)::int AS notes FROM notes')).rows).toEqual([{ notes: 0 }]);
  // Nothing but GROUP BY asks for a primary key.
  expect((await client.query('SELECT max(id) AS newest FROM bills')).rows).toEqual([{ newest: null }]);
  const grouped = failure(client.query('SELECT id, due, count(*) FROM bills GROUP BY id'));
  expect((await grouped).message).toMatch(/does not have primary key of table public.bills/);
  for (const shard of [0, 1]) await on(shard, 'ALTER TABLE notes ADD COLUMN more int');
  const another = await start(() => config);
  const late = await clientOf(another.proxy, 'prod');
  expect((await failure(late.query('SELECT * FROM notes'))).message).toMatch(/not in step: .*notes/);
  // The proxy brings it in step by itself, and tries again after half a minute.
  await until('it is asked again', () => late.query('SELECT more FROM notes'), 70_000);
});

test('a Bind that counts more than it holds ends that session only', async () => {
  const { proxy } = await start();
  for (const body of ['ffff', '0000ffff', '0000000100000010', '000000017fffffff', '00010001']) {
    const client = await RawClient.loggedIn(proxy, 'prod');
    const counts = Buffer.from(body, 'hex');
    client.send(parse('SELECT $1'), frame('B', cstring(''), cstring(''), counts), execute(), SYNC);
    const [error] = await client.until('E');
    expect([body, error?.bytes.toString('latin1')]).toEqual([body, expect.stringContaining('08P01')]);
  }
  const another = await clientOf(proxy, 'prod');
  expect((await another.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});
