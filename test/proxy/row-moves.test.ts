/** One task: an UPDATE that sets the sharding column moves its rows to their shards, on all of them or on none, as one database would. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import type { KeyType, Mapping } from '../../src/config/sharding.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import type { ProxyHooks } from '../../src/proxy/contract.js';
import { MOVED_ROWS_MAX, MovingRows } from '../../src/proxy/moving-rows.js';
import { MOVE_PROBLEMS } from '../../src/proxy/row-move-facts.js';
import { cstring, dataRow, frame, int32, uint16 } from '../../src/wire/backend.js';
import { cancelRequest, SYNC } from '../../src/wire/frontend.js';
import { Random } from '../history/random.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { failure, HERE, HERE_TOO, THERE, useShards, type Sharded } from './shards.js';
import { clientOf, RawClient } from './support.js';

const shards = useShards();
const SHARDS = [0, 1];
const [A, B, C] = [HERE, THERE, HERE_TOO].map(Number) as [number, number, number];
const NOTES = 'SELECT tenant_id::int AS tenant, id::int, text FROM notes ORDER BY 1, 2';
const MOVE = 'UPDATE notes SET tenant_id = $2 WHERE tenant_id = $1';
const WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

type Client = Awaited<ReturnType<typeof clientOf>>;

/** A role that is neither a superuser nor the owner of a table; the servers' sessions are its. */
const PLAIN = `DO $$BEGIN CREATE ROLE plain LOGIN PASSWORD 'plain'; EXCEPTION WHEN duplicate_object THEN NULL; END$$;
  GRANT SELECT, INSERT, UPDATE, DELETE ON notes, rates TO plain; GRANT USAGE ON SCHEMA other TO plain; GRANT SELECT ON other.notes TO plain`;

/** Shards that can commit together; a note of tenant A, and one of tenant B. */
async function start(
  adjust?: (config: Config) => Config,
  hooks?: ProxyHooks,
): Promise<Sharded & { readonly client: Client }> {
  const sharded = await shards(adjust, hooks);
  for (const shard of SHARDS) await sharded.on(shard, TWO_PHASE_DDL + PLAIN);
  await sharded.on(0, `INSERT INTO notes VALUES (${String(A)}, 1, 'a')`);
  await sharded.on(1, `INSERT INTO notes VALUES (${String(B)}, 2, 'b')`);
  return { ...sharded, client: await clientOf(sharded.proxy, 'prod') };
}

/** `tenant.id=text` of the notes on each shard. */
async function notes({ on }: Sharded): Promise<readonly string[]> {
  const held = await Promise.all(SHARDS.map((shard) => on(shard, NOTES)));
  return held.map((rows) =>
    rows.map(({ tenant, id, text }) => `${String(tenant)}.${String(id)}=${String(text)}`).join(' '),
  );
}

const AS_BEFORE = [`${String(A)}.1=a`, `${String(B)}.2=b`];

async function both({ on }: Sharded, sql: string): Promise<void> {
  for (const shard of SHARDS) await on(shard, sql);
}

async function expectNothingLeft({ on }: Sharded): Promise<void> {
  for (const shard of SHARDS) {
    expect(await on(shard, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')).toEqual([]);
    expect(await on(shard, 'SELECT * FROM cutover_shards.decision')).toEqual([]);
    const open = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`;
    expect(await on(shard, open)).toEqual([]);
  }
}

test('a row goes to the shard of its new key, by every form of statement, and back', async () => {
  const sharded = await start();
  const { client } = sharded;
  const there = ['', `${String(B)}.1=a ${String(B)}.2=b`];
  expect((await client.query(`UPDATE notes SET tenant_id = ${String(B)} WHERE id = 1 -- one`)).rowCount).toBe(1);
  expect(await notes(sharded)).toEqual(there);
  expect((await client.query('UPDATE notes SET tenant_id = $1 WHERE id = $2;', [A, 1])).rowCount).toBe(1);
  expect(await notes(sharded)).toEqual(AS_BEFORE);
  for (const [from, to, held] of [
    [A, B, there],
    [B, A, AS_BEFORE],
  ] as const) {
    const named = { name: 'm', text: `${MOVE} AND id = 1 RETURNING text, tenant_id::int AS t`, values: [from, to] };
    expect(await client.query(named)).toMatchObject({ rowCount: 1, rows: [{ text: 'a', t: to }] });
    expect(await notes(sharded)).toEqual(held);
  }
  expect((await client.query('UPDATE notes SET tenant_id = id WHERE id = 99')).rowCount).toBe(0);
  expect(await client.query('UPDATE notes SET tenant_id = tenant_id + 0 RETURNING *')).toMatchObject({ rowCount: 2 });
  expect((await client.query(MOVE, [A, C])).rowCount).toBe(1);
  expect(await notes(sharded)).toEqual([`${String(C)}.1=a`, AS_BEFORE[1]]);
  await expectNothingLeft(sharded);
});

const message = (type: string, ...parts: readonly Buffer[]): Buffer => frame(type, ...parts);
const execute = message('E', cstring(''), int32(0));
const describe = message('D', Buffer.from('P'), cstring(''));
const parse = (sql: string): Buffer => message('P', cstring(''), cstring(sql), uint16(0));
const bind = (...formats: readonly number[]): Buffer =>
  message('B', cstring(''), cstring(''), uint16(0), uint16(0), uint16(formats.length), ...formats.map(uint16));

test('each message of the extended protocol has its answer, with the columns and formats that were asked for', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const answer = async (...messages: readonly Buffer[]): Promise<[string, string]> => {
    client.send(...messages, SYNC);
    const messages_ = await client.until('Z');
    const rows = messages_.filter(({ type }) => type === 'D').map(({ bytes }) => bytes.toString('hex', 5));
    return [client.types(messages_), rows.join()];
  };
  const to = (tenant: number): string => `UPDATE notes SET tenant_id = ${String(tenant)} WHERE id = 1`;
  expect(await answer(parse(to(B)), bind(), describe, execute)).toEqual(['12nCZ', '']);
  expect(await answer(parse(to(A)), bind(), execute)).toEqual(['12CZ', '']);
  const returning = ' RETURNING text, id';
  const text = '0002000000016100000001' + '31';
  const binary = '0002000000016100000008' + '0000000000000001';
  expect(await answer(parse(to(B) + returning), bind(), describe, execute)).toEqual(['12TDCZ', text]);
  expect(await answer(parse(to(A) + returning), bind(1), describe, execute)).toEqual(['12TDCZ', binary]);
  expect(await answer(parse(to(B) + returning), bind(0, 1), execute)).toEqual(['12DCZ', binary]);
  expect((await answer(parse(`${to(A)} AND id / 0 = 1`), bind(), execute))[0]).toBe('12EZ');
  expect((await answer(parse('SELECT 1'), bind(), execute))[0]).toBe('12DCZ');
  await expectNothingLeft(sharded);
});

/** Values at the edges of their types, and columns that nobody gives a value. */
const WIDE = `
  CREATE TYPE mood AS ENUM ('low', 'it''s "high"');
  CREATE DOMAIN positive AS int CHECK (value > 0);
  CREATE TYPE pair AS (a int, b text);
  CREATE TABLE wide (tenant_id bigint, "Id" int GENERATED ALWAYS AS IDENTITY, t text, v varchar(3), c char(5), y bytea, n numeric(40, 20), f float8, f4 real,
    j json, jb jsonb, a text[], ts timestamptz, i interval, m mood, p positive, r pair, rs pair[], x xml, b bit(3), mo money, k int4range,
    d int DEFAULT 7, s bigint GENERATED ALWAYS AS (tenant_id * 2) STORED, vi bigint GENERATED ALWAYS AS (tenant_id * 3) VIRTUAL);
  ALTER TABLE wide DROP COLUMN d;`;
const WIDE_ROWS = String.raw`INSERT INTO wide (tenant_id, t, v, c, y, n, f, f4, j, jb, a, ts, i, m, p, r, rs, x, b, mo, k) VALUES
  (${String(A)}, E'a\tb\\n\n\r"''\\.', 'é😀', 'x ', '\x00ff5c', 1234567890.12345678901234567890, 'NaN', 1.1, '{"a" :  1}', '{"a": [null]}', '{"x,y",NULL,"NULL",""}',
   '2024-02-28 12:00:00.123456+00 BC', '1 mon -2 days 00:00:00.000001', 'it''s "high"', 5, '(1,"a,""b")', '{"(1,\"a b\")",NULL}', '<a/>', B'101', 12.34, '[1,)'),
  (${String(A)}, repeat('wide', 30000), NULL, NULL, NULL, 'NaN', 0.1 + 0.2::float8, 'Infinity', NULL, NULL, NULL, 'infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'empty'),
  (${String(A)}, '\N', '', '', '', 0, '-0', 1e-45, 'null', 'null', '{}', '-infinity', '0', 'low', 1, '(,)', '{}', 'x', B'000', 0, NULL)`;

test('every value is the same behind it, and what PostgreSQL computes is computed anew', async () => {
  const sharded = await start();
  await both(sharded, WIDE);
  await sharded.on(0, WIDE_ROWS);
  const held = `SELECT md5(string_agg((tenant_id, "Id", t, v, c, y, n, f, f4, j, jb, a, ts, i, m, p, r, rs, x, b, mo, k, s, vi)::text, '|' ORDER BY "Id")) AS rows FROM wide`;
  const before = await sharded.on(0, held);
  await sharded.client.query("SET DateStyle = 'ISO, DMY'");
  await sharded.client.query("SET TimeZone = 'Asia/Kolkata'");
  expect((await sharded.client.query(`UPDATE wide SET tenant_id = ${String(B)}`)).rowCount).toBe(3);
  const computed = (tenant: number): unknown => ({
    rows: '3',
    ids: '{1,2,3}',
    s: String(tenant * 2),
    vi: String(tenant * 3),
  });
  const count = `SELECT count(*)::text AS rows, array_agg("Id" ORDER BY 1)::text AS ids, min(s)::text AS s, max(vi)::text AS vi FROM wide`;
  expect(await sharded.on(1, count)).toEqual([computed(B)]);
  expect(await sharded.on(0, 'SELECT FROM wide')).toEqual([]);
  expect((await sharded.client.query('UPDATE wide SET tenant_id = $1', [A])).rowCount).toBe(3);
  expect(await sharded.on(0, held)).toEqual(before);
  await expectNothingLeft(sharded);
});

test('no row is changed twice, whichever way rows go', async () => {
  const sharded = await start();
  const { client } = sharded;
  const swap = `UPDATE notes SET text = text || '+', tenant_id = CASE tenant_id WHEN ${String(A)} THEN ${String(B)} ELSE ${String(A)} END`;
  const { rowCount, rows } = await client.query(`${swap} RETURNING id::int AS id, tenant_id::int AS t`);
  expect({ rowCount, rows }).toEqual({
    rowCount: 2,
    rows: [
      { id: 1, t: B },
      { id: 2, t: A },
    ],
  });
  expect(await notes(sharded)).toEqual([`${String(A)}.2=b+`, `${String(B)}.1=a+`]);
  // Each row by another table that lies with it.
  await client.query('CREATE TABLE owners (tenant_id bigint, next bigint)');
  await sharded.on(0, `INSERT INTO owners VALUES (${String(A)}, ${String(B)})`);
  await sharded.on(1, `INSERT INTO owners VALUES (${String(B)}, ${String(A)})`);
  const joined = 'UPDATE notes AS n SET tenant_id = o.next FROM owners o WHERE o.tenant_id = n.tenant_id';
  expect((await client.query(`${joined} RETURNING n.*, o.next`)).rowCount).toBe(2);
  expect(await notes(sharded)).toEqual([`${String(A)}.1=a+`, `${String(B)}.2=b+`]);
  // More than one message holds, and more than a socket takes at once.
  await sharded.on(0, `INSERT INTO notes SELECT ${String(A)}, n, repeat('x', 3000) FROM generate_series(10, 2009) n`);
  expect((await client.query(MOVE, [A, B])).rowCount).toBe(2001);
  expect(await sharded.on(1, 'SELECT count(*)::int AS n, max(length(text)) AS l FROM notes')).toEqual([
    { n: 2002, l: 3000 },
  ]);
  await expectNothingLeft(sharded);
});

test('what fails on either shard has changed nothing on any, and the client reads its error', async () => {
  const sharded = await start();
  const { client } = sharded;
  await sharded.on(1, `INSERT INTO notes VALUES (${String(B)}, 1, 'taken')`);
  await sharded.on(1, "ALTER TABLE notes ADD CONSTRAINT short CHECK (text <> 'here only')");
  await both(sharded, 'ALTER TABLE notes ADD CONSTRAINT low CHECK (id < 100)');
  const before = await notes(sharded);
  for (const [sql, code] of [
    [`UPDATE notes SET tenant_id = ${String(B)} WHERE text = 'a'`, '23505'],
    [`UPDATE notes SET tenant_id = ${String(B)}, id = 5, text = 'here only' WHERE text = 'a'`, '23514'],
    [`UPDATE notes SET tenant_id = ${String(B)}, id = 100 WHERE text = 'a'`, '23514'],
    [`UPDATE notes SET tenant_id = tenant_id / (id - 2)`, '22012'],
    ['UPDATE notes SET tenant_id = NULL', '23502'],
    ['UPDATE notes SET tenant_id = 9223372036854775807 + id', '22003'],
  ] as const) {
    expect((await failure(client.query(sql))).code, sql).toBe(code);
    await client.query('BEGIN');
    await client.query('SAVEPOINT s');
    expect((await failure(client.query(sql))).code, sql).toBe(code);
    expect((await failure(client.query('SELECT 1'))).code).toBe('25P02');
    await client.query('ROLLBACK TO s');
    await client.query('COMMIT');
    expect(await notes(sharded)).toEqual(before);
  }
  await expectNothingLeft(sharded);
});

test('it is part of a transaction, and of what is rolled back to a savepoint', async () => {
  const sharded = await start();
  const { client } = sharded;
  const text = async (tenant: number): Promise<unknown> =>
    (await client.query('SELECT string_agg(text, id::text ORDER BY id) AS t FROM notes WHERE tenant_id = $1', [tenant]))
      .rows[0];
  for (const end of ['ROLLBACK', 'COMMIT']) {
    await client.query('BEGIN');
    await client.query('UPDATE notes SET text = $2 WHERE tenant_id = $1', [A, 'first']);
    await client.query('SAVEPOINT s');
    expect((await client.query('UPDATE notes SET tenant_id = $1', [B])).rowCount).toBe(2);
    expect(await text(B)).toEqual({ t: 'first2b' });
    expect(await text(A)).toEqual({ t: null });
    await client.query('ROLLBACK TO s');
    expect(await text(A)).toEqual({ t: 'first' });
    expect((await client.query({ name: 'move', text: MOVE, values: [A, B] })).rowCount).toBe(1);
    await client.query('UPDATE notes SET text = $2 WHERE tenant_id = $1 AND id = 1', [B, 'last']);
    expect(await notes(sharded)).toEqual(AS_BEFORE);
    await client.query(end);
    expect(await notes(sharded)).toEqual(end === 'ROLLBACK' ? AS_BEFORE : ['', `${String(B)}.1=last ${String(B)}.2=b`]);
  }
  await expectNothingLeft(sharded);
});

test('two clients with the same row wait for each other, and neither misses it', async () => {
  const sharded = await start();
  const [one, other] = [sharded.client, await clientOf(sharded.proxy, 'prod')];
  const waits = (shard: number): Promise<unknown> =>
    until('one waits', async () => (await sharded.on(shard, WAITING)).length > 0);
  // The row is changed first, and moves as it is then.
  await one.query('BEGIN');
  await one.query('UPDATE notes SET text = $2 WHERE tenant_id = $1', [A, 'changed']);
  const moved = other.query('UPDATE notes SET tenant_id = $1 WHERE id = 1 RETURNING text', [B]);
  await waits(0);
  await one.query('COMMIT');
  expect((await moved).rows).toEqual([{ text: 'changed' }]);
  // The row moves first, in both directions: who looks for it on all shards finds it, who names its old key does not.
  for (const [from, to] of [
    [B, A],
    [A, B],
  ] as const) {
    await one.query('BEGIN');
    await one.query('UPDATE notes SET tenant_id = $2 WHERE tenant_id = $1 AND id = 1', [from, to]);
    const everywhere = other.query("UPDATE notes SET text = text || '!' WHERE id = 1");
    await waits(0);
    const third = await clientOf(sharded.proxy, 'prod');
    const named = third.query("UPDATE notes SET text = 'lost' WHERE id = 1 AND tenant_id = $1", [from]);
    await until(
      'both wait',
      async () => (await sharded.on(0, WAITING)).length + (await sharded.on(1, WAITING)).length > 1,
    );
    await one.query('COMMIT');
    expect((await everywhere).rowCount).toBe(1);
    expect((await named).rowCount).toBe(0);
  }
  expect(await notes(sharded)).toEqual(['', `${String(B)}.1=changed!! ${String(B)}.2=b`]);
  await expectNothingLeft(sharded);
});

const STATEMENTS_OF_EACH = THOROUGH ? 300 : 15;

test(
  'rows that are moved and looked for by many clients at once are each found, once',
  { timeout: 300_000 },
  async () => {
    const sharded = await start((config) => ({ ...config, general: { ...config.general, defaultPoolSize: 8 } }));
    await both(sharded, 'ALTER TABLE notes ADD COLUMN n int NOT NULL DEFAULT 0');
    let added = 0;
    const work = async (number: number): Promise<void> => {
      const random = new Random(1, number);
      const client = await clientOf(sharded.proxy, 'prod');
      for (let left = STATEMENTS_OF_EACH; left > 0; left -= 1) {
        const [tenant, id, kind] = [1 + random.below(20), 1 + random.below(2), random.below(4)];
        if (kind < 2) {
          const moved = await client.query('UPDATE notes SET tenant_id = $1 WHERE id = $2', [tenant, id]);
          expect(moved.rowCount).toBe(1);
          continue;
        }
        const where = kind === 2 ? 'id = $1' : `id = $1 AND tenant_id = ${String(tenant)}`;
        const { rowCount } = await client.query(`UPDATE notes SET n = n + 1 WHERE ${where}`, [id]);
        if (kind === 2) expect(rowCount).toBe(1);
        added += rowCount ?? 0;
      }
    };
    await Promise.all(Array.from({ length: 6 }, (_, number) => work(number)));
    const held = await Promise.all(SHARDS.map((shard) => sharded.on(shard, 'SELECT id::int AS id, n FROM notes')));
    const rows = held.flat() as unknown as { readonly id: number; readonly n: number }[];
    expect(rows.map(({ id }) => id).sort()).toEqual([1, 2]);
    expect(rows.reduce((sum, { n }) => sum + n, 0)).toBe(added);
    await expectNothingLeft(sharded);
  },
);

/** Another rule for one table each, with values of both shards. */
const RULES: readonly (readonly [
  table: string,
  column: string,
  type: KeyType,
  mapping: Mapping,
  here: string,
  there: string,
])[] = [
  ['texts', 'name varchar(9)', 'varchar', { kind: 'hash', hasher: 'postgres' }, 'us-east-1', 'é'],
  [
    'docs',
    'doc uuid',
    'uuid',
    { kind: 'hash', hasher: 'postgres' },
    '00000000-0000-0000-0000-000000000002',
    '550e8400-e29b-41d4-a716-446655440000',
  ],
  [
    'listed',
    'area text',
    'varchar',
    {
      kind: 'values',
      lists: [
        { values: ['eu'], shard: 0 },
        { values: ['us', "it's"], shard: 1 },
      ],
      ranges: [],
      default: null,
    },
    'eu',
    "it's",
  ],
  [
    'ranged',
    'zip int',
    'bigint',
    {
      kind: 'values',
      lists: [],
      ranges: [
        { start: null, end: 10n, shard: 0 },
        { start: 10n, end: 20n, shard: 1 },
      ],
      default: 0,
    },
    '-5',
    '10',
  ],
  ['hashed', 'code bigint', 'bigint', { kind: 'hash', hasher: 'sha1' }, '2', '1'],
];

test('keys of every type, by hash, list, range and default; a NULL where it belongs', async () => {
  const sharded = await start((config) => ({
    ...config,
    sharding: {
      ...config.sharding,
      tables: [
        ...config.sharding.tables,
        ...RULES.map(([table, column, type, mapping]) => ({
          ...{ database: 'prod', schema: null, table, type, mapping },
          column: column.split(' ')[0] ?? '',
        })),
      ],
    },
  }));
  const { client } = sharded;
  const placed = async (table: string, column: string): Promise<readonly unknown[]> =>
    Promise.all(
      SHARDS.map(async (shard) =>
        (await sharded.on(shard, `SELECT ${column}::text AS key FROM ${table}`)).map(({ key }) => key),
      ),
    );
  for (const [table, typed, , , here, there] of RULES) {
    const [column = '', ...types] = typed.split(' ');
    await client.query(`CREATE TABLE ${table} (${typed}, id int)`);
    await client.query(`INSERT INTO ${table} VALUES ($1, 1)`, [here]);
    expect((await client.query(`UPDATE ${table} SET ${column} = $1 WHERE id = 1`, [there])).rowCount).toBe(1);
    expect(await placed(table, column), table).toEqual([[], [there]]);
    const computed = `(SELECT '${here.replaceAll("'", "''")}'::${types.join(' ')})`;
    expect((await client.query(`UPDATE ${table} SET ${column} = ${computed}`)).rowCount).toBe(1);
    expect(await placed(table, column), table).toEqual([[here], []]);
  }
  await client.query('CREATE TABLE loose (tenant_id bigint, n int)');
  await client.query('INSERT INTO loose VALUES ($1, 1)', [B]);
  expect((await client.query('UPDATE loose SET tenant_id = NULL WHERE tenant_id = $1', [B])).rowCount).toBe(1);
  expect(await placed('loose', 'tenant_id')).toEqual([[null], []]);
  expect((await client.query('UPDATE loose SET tenant_id = n + $1 - 1 WHERE tenant_id IS NULL', [B])).rowCount).toBe(1);
  expect(await placed('loose', 'tenant_id')).toEqual([[], [String(B)]]);
  expect((await failure(client.query("UPDATE listed SET area = 'xx'"))).message).toMatch(/no shard is configured/);
  expect((await failure(client.query("UPDATE listed SET area = lower('XX')"))).message).toMatch(
    /no shard is configured/,
  );
  expect((await failure(client.query('UPDATE hashed SET code = NULL'))).message).toMatch(/no shard is configured/);
  expect(await placed('listed', 'area')).toEqual([['eu'], []]);
  await expectNothingLeft(sharded);
});

test('triggers of UPDATE fire once, and rows of partitions and with a computed key move too', async () => {
  const sharded = await start((config) => ({
    ...config,
    sharding: {
      ...config.sharding,
      tables: [
        ...config.sharding.tables,
        {
          database: 'prod',
          schema: null,
          table: 'parcels',
          column: 'owner',
          type: 'bigint',
          mapping: { kind: 'hash', hasher: 'postgres' },
        },
      ],
    },
  }));
  const { client, on } = sharded;
  await both(
    sharded,
    `
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.text := NEW.text || '*'; RETURN NEW; END$$;
    CREATE TRIGGER stamp BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION stamp();
    CREATE TABLE parcels (base bigint, n int, owner bigint GENERATED ALWAYS AS (base + n) STORED);
    CREATE TABLE parts (tenant_id bigint, day int, id int, PRIMARY KEY (tenant_id, day)) PARTITION BY RANGE (day);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);`,
  );
  await client.query(MOVE, [A, B]);
  expect(await notes(sharded)).toEqual(['', `${String(B)}.1=a* ${String(B)}.2=b`]);
  await on(
    0,
    `INSERT INTO parcels VALUES (${String(A)}, 0); INSERT INTO parts SELECT ${String(A)}, n, n FROM generate_series(5, 14) n`,
  );
  expect((await client.query('UPDATE parcels SET n = $1', [B - A])).rowCount).toBe(1);
  expect(await on(1, 'SELECT owner::int FROM parcels')).toEqual([{ owner: B }]);
  const merge = `MERGE INTO parcels p USING rates r ON p.owner = ${String(B)} WHEN MATCHED THEN UPDATE SET n = r.rate`;
  expect((await failure(client.query(merge))).message).toMatch(/MERGE .* changes the key/);
  expect((await client.query('UPDATE parts SET tenant_id = $1, day = 19 - day WHERE id > 6', [B])).rowCount).toBe(8);
  expect(await on(0, 'SELECT count(*)::int AS n FROM parts')).toEqual([{ n: 2 }]);
  expect(
    await on(
      1,
      'SELECT tableoid::regclass::text AS t, count(*)::int AS n, sum(id + day)::int AS s FROM parts GROUP BY 1 ORDER BY 1',
    ),
  ).toEqual([
    { t: 'parts_1', n: 5, s: 95 },
    { t: 'parts_2', n: 3, s: 57 },
  ]);
  await expectNothingLeft(sharded);
});

/** What makes it impossible, on which shards; and what undoes it. */
const HINDRANCES: Readonly<
  Record<keyof typeof MOVE_PROBLEMS, readonly [make: string, undo: string, shards: readonly number[]]>
> = {
  isolation: ["SET default_transaction_isolation = 'repeatable read'", 'RESET default_transaction_isolation', []],
  texts: ["SET DateStyle = 'SQL'", 'RESET DateStyle', []],
  encoding: ["SET client_encoding = 'LATIN1'", 'RESET client_encoding', []],
  kind: ['CREATE TABLE more () INHERITS (notes)', 'DROP TABLE more', SHARDS],
  rules: ['CREATE RULE r AS ON INSERT TO notes DO ALSO DELETE FROM rates', 'DROP RULE r ON notes', [1]],
  security: [
    'CREATE POLICY p ON notes USING (true); ALTER TABLE notes ENABLE ROW LEVEL SECURITY',
    'ALTER TABLE notes DISABLE ROW LEVEL SECURITY; DROP POLICY p ON notes',
    [1],
  ],
  triggers: ['CREATE TRIGGER t AFTER DELETE ON notes EXECUTE FUNCTION nothing()', 'DROP TRIGGER t ON notes', [0]],
  referenced: [
    'CREATE TABLE lines (t bigint, i bigint, FOREIGN KEY (t, i) REFERENCES notes ON DELETE CASCADE ON UPDATE CASCADE)',
    'DROP TABLE lines',
    [0],
  ],
  references: [
    'ALTER TABLE notes ADD CONSTRAINT k FOREIGN KEY (tenant_id) REFERENCES other.notes NOT VALID',
    'ALTER TABLE notes DROP CONSTRAINT k',
    [0],
  ],
  published: ['CREATE PUBLICATION p FOR ALL TABLES', 'DROP PUBLICATION p', [1]],
  differs: ['ALTER TABLE notes ADD COLUMN more int', 'ALTER TABLE notes DROP COLUMN more', [1]],
};

test('it is refused, with a reason, where it would not be what one database does', async () => {
  const sharded = await start((config) => ({
    ...config,
    users: config.users.map((user) => ({ ...user, serverUser: 'plain', serverPassword: 'plain' })),
  }));
  const { client, on } = sharded;
  await both(sharded, 'CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$');
  for (const [problem, [make, undo, where]] of Object.entries(HINDRANCES)) {
    for (const shard of where) await on(shard, make);
    if (where.length === 0) await client.query(make);
    const refused = await failure(client.query(MOVE, [A, B]));
    const reason = MOVE_PROBLEMS[problem as keyof typeof MOVE_PROBLEMS];
    expect(refused, problem).toMatchObject({ code: '0A000', message: expect.stringContaining(reason) as unknown });
    for (const shard of where) await on(shard, undo);
    if (where.length === 0) await client.query(undo);
    expect(await notes(sharded)).toEqual(AS_BEFORE);
  }
  for (const [sql, reason] of [
    [`UPDATE notes SET tenant_id = ${String(B)}; SELECT 1`, /beside other statements/],
    [`WITH u AS (UPDATE notes SET tenant_id = ${String(B)} RETURNING *) SELECT * FROM u`, /bind/],
    ['UPDATE notes SET tenant_id = r.rate FROM rates r, other.notes o WHERE o.tenant_id = r.rate', /bind/],
    [`/* pgdog_shard: 0 */ UPDATE notes SET tenant_id = ${String(B)} WHERE tenant_id = ${String(A)}`, /by hand/],
    [`UPDATE ONLY notes SET tenant_id = ${String(B)}`, /where rows lie/],
  ] as const) {
    const refused = await failure(client.query(sql));
    expect(refused, sql).toMatchObject({ code: '0A000', message: expect.stringMatching(reason) as unknown });
  }
  expect((await client.query(MOVE, [A, B])).rowCount).toBe(1);
  await expectNothingLeft(sharded);
});

test('what the fence of the shard that gets the row refuses runs anew, and the client is told once', async () => {
  let asked = 0;
  const drop = 'DROP TRIGGER IF EXISTS fence ON notes';
  const sharded: Sharded = await start((config) => config, {
    onFenceRefusal: async () => {
      asked += 1;
      await sharded.on(1, drop);
    },
  });
  await sharded.on(
    1,
    `CREATE SCHEMA cutover; CREATE FUNCTION cutover.fence() RETURNS trigger LANGUAGE plpgsql
      AS $$BEGIN RAISE EXCEPTION 'sealed' USING ERRCODE = 'CUT01'; END$$`,
  );
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const answers = async (sql: string): Promise<string> => {
    const fence = 'CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON notes EXECUTE FUNCTION cutover.fence()';
    await sharded.on(1, fence);
    client.send(parse(sql), bind(), describe, execute, SYNC);
    return client.types(await client.until('Z'));
  };
  const move = `UPDATE notes SET tenant_id = ${String(B)} WHERE id = 1 AND tenant_id = ${String(A)}`;
  // A row has been passed on: it cannot be taken back.
  expect(await answers(`${move} RETURNING id`)).toBe('12TDEZ');
  expect(asked).toBe(0);
  await sharded.on(1, drop);
  expect(await answers(move)).toBe('12nCZ');
  expect(asked).toBe(1);
  expect(await notes(sharded)).toEqual(['', `${String(B)}.1=a ${String(B)}.2=b`]);
  await expectNothingLeft(sharded);
});

test('a row that a trigger changes again behind its UPDATE is not moved as it was before', async () => {
  const sharded = await start();
  await both(
    sharded,
    `CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
      UPDATE notes SET text = 'again' WHERE tenant_id = NEW.tenant_id AND id = NEW.id; RETURN NULL; END$$;
    CREATE TRIGGER again AFTER UPDATE ON notes FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION again()`,
  );
  const refused = await failure(sharded.client.query(MOVE, [A, B]));
  expect(refused).toMatchObject({ code: '40000', message: expect.stringMatching(/changed again/) as unknown });
  expect(await notes(sharded)).toEqual(AS_BEFORE);
  await expectNothingLeft(sharded);
});

test('more rows than are kept are not moved', () => {
  const moving = new MovingRows(
    'prod',
    { kind: 'sharded', column: 'k', type: 'bigint', mapping: { kind: 'hash', hasher: 'postgres' } },
    2,
  );
  const row = dataRow(['kept', '(0,1)', '16384', String(B)]);
  for (let rows = 0; rows < MOVED_ROWS_MAX; rows += 1) moving.push(0, row, false);
  moving.check();
  expect(moving.groups.reduce((sum, { places }) => sum + places.length, 0)).toBe(MOVED_ROWS_MAX);
  // A row that nothing was told of would stay where nobody looks for it.
  expect(() => {
    moving.check(`UPDATE ${(MOVED_ROWS_MAX + 1).toString()}`);
  }).toThrow(/not told of all/);
  // Those that stay are not counted.
  expect(moving.push(1, row, false)).toEqual(dataRow(['kept']));
  expect(moving.push(0, row, false)).toBeNull();
  expect(() => {
    moving.check();
  }).toThrow(/moves more than 100000 rows/);
});

test('a pause holds it, and waits for the one that runs; it can be cancelled, and a lost server leaves nothing', async () => {
  const sharded = await start();
  const { client, proxy } = sharded;
  const gate = proxy.gate('prod');
  await client.query('SELECT rate FROM rates');
  gate.close('pause');
  const held = client.query(MOVE, [A, B]);
  await until('it waits', () => gate.waitingCount === 1);
  gate.open('pause');
  expect((await held).rowCount).toBe(1);

  const blocker = await clientOf(proxy, 'prod');
  await blocker.query('BEGIN');
  await blocker.query('INSERT INTO notes VALUES ($1, 1)', [A]);
  const waits = (): Promise<unknown> =>
    until('it waits for the key', async () => (await sharded.on(0, WAITING)).length > 0);
  const back = 'UPDATE notes SET tenant_id = $2 WHERE tenant_id = $1 AND id = 1';
  const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
  const cancelled = failure(client.query(back, [B, A]));
  await waits();
  new RawClient(proxy).send(cancelRequest(processID, int32(secretKey)));
  expect((await cancelled).code).toBe('57014');
  const lost = failure(client.query(back, [B, A]));
  await waits();
  await sharded.on(0, `SELECT pg_terminate_backend(pid) FROM (${WAITING}) AS waiting`);
  expect((await lost).code).toBe('40000');
  const running = client.query(back, [B, A]);
  await waits();
  gate.close('pause');
  const drained = gate.drained(10_000);
  await blocker.query('ROLLBACK');
  expect((await running).rowCount).toBe(1);
  expect((await drained).drained).toBe(true);
  gate.open('pause');
  expect(await notes(sharded)).toEqual(AS_BEFORE);
  await expectNothingLeft(sharded);
});

test('docs/routing.md has each reason', () => {
  const text = readFileSync('docs/routing.md', 'utf8').replaceAll(/\s+/g, ' ');
  for (const reason of Object.values(MOVE_PROBLEMS)) expect(text).toContain(reason);
});
