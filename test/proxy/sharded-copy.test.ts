/** One task: COPY FROM STDIN on a sharded database puts each row on the shard of its key, all of them or none. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import { cancelRequest, query, startupMessage, SYNC } from '../../src/wire/frontend.js';
import { frame, int32 } from '../../src/wire/backend.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { binaryOf, copied, copyFail, copyIn, csvOf, data, DONE, inPieces, textOf, type Copied } from './copies.js';
import { failure, HERE, HERE_TOO, THERE, useShards, type Sharded } from './shards.js';
import { clientOf, RawClient } from './support.js';

const shards = useShards();
const SHARDS = [0, 1];
const [A, B, C] = [HERE, THERE, HERE_TOO].map(String) as [string, string, string];
const NOTES = 'SELECT tenant_id::text AS tenant, id::int, text FROM notes ORDER BY tenant_id, id';
const HASH = { kind: 'hash', hasher: 'postgres' } as const;

/** The same columns with a key of each type, and in `plain` the same tables again, for a database with one shard on the first one. */
const TABLES = ['bigint', 'int', 'text', 'varchar(6)', 'uuid'].map((type) => ({
  ...{ type, name: `by_${type.replace(/\W.*/, '')}` },
  hashed: type === 'int' ? 'bigint' : type === 'varchar(6)' ? 'text' : type,
}));
const SCHEMA = `${TWO_PHASE_DDL}
  CREATE SCHEMA plain;
  ${['', 'plain.']
    .flatMap((schema) =>
      TABLES.map(
        ({ name, type }) =>
          `CREATE TABLE ${schema}${name} (id int, twice int GENERATED ALWAYS AS (id * 2) STORED, key ${type}, body text);`,
      ),
    )
    .join('\n')}
  ${TABLES.map(({ hashed }) => `CREATE TABLE IF NOT EXISTS hash_${hashed} (key ${hashed}) PARTITION BY HASH (key);`).join('\n')}`;

function withKeys(config: Config): Config {
  const [database] = config.databases;
  const [user] = config.users;
  if (database === undefined || user === undefined) throw new Error('no entry');
  const types = {
    by_bigint: 'bigint',
    by_int: 'bigint',
    by_text: 'varchar',
    by_varchar: 'varchar',
    by_uuid: 'uuid',
  } as const;
  const tables = Object.entries(types).map(([table, type]) => ({
    ...{ database: 'prod', schema: null, table, column: 'key', type, mapping: HASH },
  }));
  return {
    ...config,
    databases: [...config.databases, { ...database, name: 'plain' }],
    users: [...config.users, { ...user, database: 'plain' }],
    sharding: { ...config.sharding, tables: [...config.sharding.tables, ...tables] },
  };
}

async function start(adjust: (config: Config) => Config = (config) => config): Promise<Sharded> {
  const sharded = await shards((config) => adjust(withKeys(config)));
  for (const shard of SHARDS) await sharded.on(shard, SCHEMA);
  return sharded;
}

async function expectNothingLeft({ on }: Sharded): Promise<void> {
  for (const shard of SHARDS) {
    expect(await on(shard, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')).toEqual([]);
    expect(await on(shard, 'SELECT * FROM cutover_shards.decision')).toEqual([]);
  }
}

/** Nothing is stored, nothing is left, and the session goes on. */
async function expectNothingDone(sharded: Sharded, client: RawClient): Promise<void> {
  for (const shard of SHARDS) expect(await sharded.on(shard, NOTES)).toEqual([]);
  await expectNothingLeft(sharded);
  client.send(query('SELECT rate FROM rates'));
  expect(client.types(await client.until('Z'))).toBe('TDCZ');
  expect(await copyIn(client, 'COPY notes FROM STDIN', [`${A}\t1\tx\n${B}\t1\tx\n`])).toMatchObject({ tag: 'COPY 2' });
}

const FOUR = [
  [A, '1', 'a "quote",\na\ttab\\'],
  [B, '1', null],
  [C, '1', ''],
  [B, '2', 'ü'],
] as const;
const stored = (shard: number): readonly Record<string, unknown>[] =>
  FOUR.filter(([tenant]) => (tenant === B ? 1 : 0) === shard)
    .map(([tenant, id, text]) => ({ tenant, id: Number(id), text }))
    .sort((a, b) => Number(a.tenant) - Number(b.tenant));

const bigint = (value: string): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt(value));
  return bytes;
};
const FOUR_BINARY = binaryOf(
  FOUR.map(([tenant, id, text]) => [bigint(tenant), bigint(id), text === null ? null : Buffer.from(text)]),
);
const reordered = FOUR.map(([tenant, id, text]) => [text, id, tenant]);

test('each format puts each row on its shard, and the rows are counted together', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const forms: readonly (readonly [string, Buffer | string])[] = [
    ['COPY notes FROM STDIN', textOf(FOUR)],
    ['COPY public.notes (text, id, tenant_id) FROM STDIN', `${textOf(reordered)}\\.\n`],
    [
      "COPY notes FROM STDIN (DELIMITER '|', NULL 'nil', HEADER)",
      `a|b|c\n${textOf(FOUR).replaceAll('\t', '|').replaceAll('\\N', 'nil')}`,
    ],
    ['COPY notes FROM STDIN WITH CSV', csvOf(FOUR).slice(0, -1)],
    [
      'COPY notes (text, id, tenant_id) FROM STDIN (FORMAT csv, HEADER match)',
      `text,id,tenant_id\n${csvOf(reordered)}`,
    ],
    [
      "COPY notes FROM STDIN (FORMAT csv, DELIMITER ';', QUOTE '''', NULL 'nil')",
      `${A};1;'a "quote",\na\ttab\\'\n${B};'1';nil\n${C};1;\n${B};2;ü\n`,
    ],
    ['COPY notes FROM STDIN (FORMAT binary)', FOUR_BINARY],
    ['COPY BINARY notes FROM STDIN;', FOUR_BINARY.subarray(0, -2)],
  ];
  for (const [sql, bytes] of forms)
    for (const size of [1, 7, 10_000]) {
      expect(await copyIn(client, sql, inPieces(bytes, size))).toEqual({ types: 'GCZ', tag: 'COPY 4', error: null });
      for (const shard of SHARDS) expect(await sharded.on(shard, NOTES)).toEqual(stored(shard));
      for (const shard of SHARDS) await sharded.on(shard, 'TRUNCATE notes');
    }
  expect(await copyIn(client, 'COPY notes FROM STDIN', [])).toMatchObject({ tag: 'COPY 0' });
  await expectNothingLeft(sharded);
});

test('what every shard has is copied to all of them, and counted once', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  expect(await copyIn(client, 'COPY rates FROM STDIN (FORMAT csv)', ['b,2\n', 'c,', '3\n'])).toMatchObject({
    tag: 'COPY 2',
  });
  expect(await copyIn(client, 'COPY rates FROM STDIN', ['d\t4\nb\t2\n'])).toMatchObject({ error: { code: '23505' } });
  for (const shard of SHARDS)
    expect(await sharded.on(shard, 'SELECT name, rate FROM rates ORDER BY name')).toEqual([
      { name: 'a', rate: 1 },
      { name: 'b', rate: 2 },
      { name: 'c', rate: 3 },
    ]);
  await expectNothingLeft(sharded);
});

test('a hundred thousand rows, while one server takes them slowly', { timeout: 120_000 }, async () => {
  const sharded = await start();
  await sharded.on(
    1,
    `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN IF NEW.id % 5000 = 0 THEN PERFORM pg_sleep(0.05); END IF; RETURN NEW; END';
    CREATE TRIGGER slow BEFORE INSERT ON by_bigint FOR EACH ROW EXECUTE FUNCTION slow()`,
  );
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const block = (at: number): string =>
    Array.from({ length: 1_000 }, (_, row) => {
      const id = (at * 1_000 + row).toString();
      return `${id}\t${id}\t${'y'.repeat(100)}\n`;
    }).join('');
  expect(
    await copyIn(
      client,
      'COPY by_bigint FROM STDIN',
      Array.from({ length: 100 }, (_, at) => block(at)),
    ),
  ).toMatchObject({ tag: 'COPY 100000' });
  const counts = [];
  for (const shard of SHARDS) {
    const [row] = await sharded.on(
      shard,
      `SELECT count(*)::int AS n, count(*) FILTER (WHERE NOT ${belongs('bigint', shard)})::int AS wrong FROM by_bigint`,
    );
    counts.push(row);
  }
  expect(counts.map((row) => row?.wrong)).toEqual([0, 0]);
  expect(counts.reduce((sum, row) => sum + Number(row?.n), 0)).toBe(100_000);
});

test('while one server waits, nothing more is taken from the client', async () => {
  const sharded = await start();
  const blocker = await clientOf(sharded.proxy, 'prod');
  await blocker.query('BEGIN');
  await blocker.query('INSERT INTO notes VALUES ($1, 1)', [B]);
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const rows = Array.from({ length: 400 }, (_, at) => `${B}\t${(at + 1).toString()}\t${'y'.repeat(100_000)}\n`);
  const copying = copyIn(client, 'COPY notes FROM STDIN', rows);
  let before = 0;
  let unchanged = 0;
  await until('it has been held back for twenty looks', () => {
    const now = Math.max(...sharded.proxy.clients().map(({ bytesReceived }) => bytesReceived));
    unchanged = now > 100_000 && now === before ? unchanged + 1 : 0;
    before = now;
    return unchanged === 20;
  });
  expect(before).toBeLessThan(15_000_000);
  await blocker.query('ROLLBACK');
  expect(await copying).toMatchObject({ tag: 'COPY 400' });
  await expectNothingLeft(sharded);
});

const belongs = (hashed: string, shard: number): string =>
  `satisfies_hash_partition('public.hash_${hashed}'::regclass, 2, ${shard.toString()}, key::${hashed})`;

/** The rows of a table, whole, as text. */
const whole = (table: string): string => `SELECT t::text AS row FROM ${table} t ORDER BY 1`;

/** The same COPY on the shards and on one PostgreSQL: they must agree, unless the shards have taken nothing. */
async function compare(
  sharded: Sharded,
  clients: { readonly prod: RawClient; readonly plain: RawClient },
  copy: { readonly table: (typeof TABLES)[number]; readonly options: string; readonly chunks: readonly Buffer[] },
): Promise<{ readonly prod: Copied; readonly plain: Copied }> {
  const { name, hashed } = copy.table;
  const sql = (table: string): string => `COPY ${table} (id, key, body) FROM STDIN ${copy.options}`;
  const plain = await copyIn(clients.plain, sql(`plain.${name}`), copy.chunks);
  const prod = await copyIn(clients.prod, sql(name), copy.chunks);
  const rows = async (table: string): Promise<readonly unknown[]> => {
    const each = await Promise.all((table === name ? SHARDS : [0]).map((shard) => sharded.on(shard, whole(table))));
    return each
      .flat()
      .map(({ row }) => row)
      .sort();
  };
  expect(await rows(name)).toEqual(prod.error === null ? await rows(`plain.${name}`) : []);
  if (prod.error === null) expect(prod).toEqual(plain);
  for (const shard of SHARDS)
    expect(await sharded.on(shard, `SELECT key FROM ${name} WHERE NOT ${belongs(hashed, shard)}`)).toEqual([]);
  for (const shard of SHARDS) await sharded.on(shard, `TRUNCATE ${name}, plain.${name}`);
  return { prod, plain };
}

const binaryKeys: Readonly<Record<string, (value: string) => Buffer>> = {
  by_bigint: bigint,
  by_int: (value) => int32(Number(value)),
  by_uuid: (value) => Buffer.from(value.replaceAll('-', ''), 'hex'),
};
const anyText = (maxLength: number): fc.Arbitrary<string> =>
  fc.string({
    unit: fc.constantFrom(
      'a',
      'B',
      ' ',
      ',',
      ';',
      '"',
      "'",
      '\\',
      'N',
      '.',
      '\n',
      '\r',
      '\t',
      '\x01',
      'ü',
      '\u{1f600}',
    ),
    maxLength,
  });
const keysOf = (name: string): fc.Arbitrary<string> => {
  if (name === 'by_bigint') return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String);
  if (name === 'by_int') return fc.integer().map(String);
  return name === 'by_uuid' ? fc.uuid() : anyText(6).map((text) => Array.from(text).slice(0, 6).join(''));
};

test(
  'random rows in each format are where PostgreSQL puts them, and together what PostgreSQL has',
  { timeout: 240_000 },
  async () => {
    const sharded = await start();
    const clients = {
      prod: await RawClient.loggedIn(sharded.proxy, 'prod'),
      plain: await RawClient.loggedIn(sharded.proxy, 'plain'),
    };
    const cases = fc.constantFrom(...TABLES).chain((table) =>
      fc.record({
        table: fc.constant(table),
        format: fc.constantFrom('text', 'csv', 'binary'),
        rows: fc.array(fc.tuple(fc.option(keysOf(table.name)), fc.option(anyText(12))), { maxLength: 30 }),
        size: fc.integer({ min: 1, max: 200 }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(cases, async ({ table, format, rows, size }) => {
        const texts = rows.map(([key, body], at) => [at.toString(), key, body]);
        const key = binaryKeys[table.name] ?? ((value: string) => Buffer.from(value));
        const tuples = rows.map(([value, body], at) => [
          int32(at),
          value === null ? null : key(value),
          body === null ? null : Buffer.from(body),
        ]);
        const bytes = format === 'text' ? textOf(texts) : format === 'csv' ? csvOf(texts) : binaryOf(tuples);
        const { plain, prod } = await compare(sharded, clients, {
          table,
          options: `(FORMAT ${format})`,
          chunks: inPieces(bytes, size),
        });
        expect([plain.error, prod.error]).toEqual([null, null]);
      }),
      { numRuns: THOROUGH ? 120 : 40 },
    );
    await expectNothingLeft(sharded);
  },
);

const STREAMS = THOROUGH ? 250 : 80;

test('random bytes are read as PostgreSQL reads them, or refused', { timeout: 240_000 }, async () => {
  const sharded = await start();
  const clients = {
    prod: await RawClient.loggedIn(sharded.proxy, 'prod'),
    plain: await RawClient.loggedIn(sharded.proxy, 'plain'),
  };
  const outcomes = { both: 0, neither: 0, refused: 0 };
  const cases = fc.record({
    options: fc.constantFrom(
      '',
      '(HEADER)',
      "(NULL 'a')",
      '(FORMAT csv)',
      "(FORMAT csv, DELIMITER '\t', ESCAPE '\\')",
      "(FORMAT csv, DELIMITER '\t', QUOTE 'x', FORCE_NULL (key))",
      "(FORMAT csv, DELIMITER '\t', FORCE_NOT_NULL (key), NULL 'a')",
    ),
    lines: fc.array(
      fc.tuple(
        fc.array(
          fc.constantFrom(
            'a',
            'b',
            'x',
            '4',
            '1',
            '.',
            '\\',
            '\\\\',
            '\\.',
            '\\x4',
            '\\101',
            '"',
            '""',
            '\\"',
            'ü',
            ' ',
            '\\\n',
            '"\n"',
            '\\N',
          ),
          { maxLength: 4 },
        ),
        fc.constantFrom('\n', '\n', '\n', '\n', '\n', '\n', '\r', '\r\n', ''),
      ),
      { minLength: 1, maxLength: 4 },
    ),
    size: fc.integer({ min: 1, max: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ options, lines, size }) => {
      const between = options === '(FORMAT csv)' ? ',' : '\t';
      const bytes = lines.map(([key, end], at) => [at.toString(), key.join(''), `z${end}`].join(between)).join('');
      const [, , table] = TABLES;
      if (table === undefined) throw new Error('no table');
      const { plain, prod } = await compare(sharded, clients, { table, options, chunks: inPieces(bytes, size) });
      if (plain.error !== null) expect(prod.error).not.toBeNull();
      outcomes[prod.error === null ? 'both' : plain.error === null ? 'refused' : 'neither'] += 1;
    }),
    { numRuns: STREAMS },
  );
  expect(outcomes.both).toBeGreaterThan(STREAMS * 0.2);
  expect(outcomes.neither).toBeGreaterThan(STREAMS * 0.08);
  expect(outcomes.refused).toBe(0);
});

test('keys in every spelling that PostgreSQL takes', async () => {
  const sharded = await start();
  const clients = {
    prod: await RawClient.loggedIn(sharded.proxy, 'prod'),
    plain: await RawClient.loggedIn(sharded.proxy, 'plain'),
  };
  const uuid = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
  const taken: readonly (readonly [number, readonly string[]])[] = [
    [0, [' 42 ', '+42', '-42', '007', '0x2A', '1_000', '-9223372036854775808', '9223372036854775807']],
    [1, ['42', '-2147483648', ' 0b11']],
    [3, ['abcdef', 'üüüüüü', '']],
    [4, [uuid, uuid.toUpperCase(), `{${uuid}}`, uuid.replaceAll('-', ''), 'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11']],
  ];
  const refused: readonly (readonly [number, readonly string[], string])[] = [
    [0, ['', '1 2', '0x', '1__0', '9223372036854775808', '4.0', 'x'], '22'],
    [1, ['2147483648'], '22'],
    [3, ['abcdefg'], '22'],
    [4, [`${uuid}0`, `{${uuid}`, uuid.slice(1)], '22'],
    // PostgreSQL cuts off spaces.
    [3, ['abcdef  '], '40000'],
  ];
  const line = (key: string): Buffer => Buffer.from(`1\t${key}\tx\n`);
  for (const [at, keys] of taken)
    for (const key of keys) {
      const [table = TABLES[0]] = TABLES.slice(at);
      if (table === undefined) throw new Error('no table');
      expect((await compare(sharded, clients, { table, options: '', chunks: [line(key)] })).prod.error).toBeNull();
    }
  for (const [at, keys, code] of refused)
    for (const key of keys) {
      const [table = TABLES[0]] = TABLES.slice(at);
      if (table === undefined) throw new Error('no table');
      const { prod, plain } = await compare(sharded, clients, { table, options: '', chunks: [line(key)] });
      expect(prod.error?.code).toMatch(new RegExp(`^${code}`));
      if (code === '22') expect(prod.error).toEqual(plain.error);
      else expect(prod.error?.message).toMatch(/row 1 of the COPY: its sharding key cannot be read/);
    }
});

test('what fails anywhere has changed nothing, and the client reads the server’s own error', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  await sharded.on(1, 'ALTER TABLE notes ADD CONSTRAINT short CHECK (length(text) < 9)');
  const good = `${A}\t1\tx\n${B}\t1\tx\n`;
  const many = Array.from({ length: 2_000 }, (_, at) => `${at % 2 === 0 ? A : B}\t${(at + 10).toString()}\tx\n`).join(
    '',
  );
  const failing: readonly (readonly [string, string])[] = [
    [`${good}${B}\t2\ttoo long a text\n${many}`, '23514'],
    [`${many}${B}\t2\ttoo long a text\n`, '23514'],
    [`${good}${A}\t1\ttwice\n`, '23505'],
    [`${good}${A}\n${many}`, '22P04'],
    [`${good}${A}\t3\tx\tmore\n`, '22P04'],
    [`${good}none\t3\tx\n${many}`, '22P02'],
    [`${good}\\N\t3\tx\n`, '23502'],
    [`${good}${A}\t3\tx\r\n`, '40000'],
  ];
  for (const [bytes, code] of failing) {
    const { types, error } = await copyIn(client, 'COPY notes FROM STDIN', inPieces(bytes, 1_000));
    expect({ types, code: error?.code }).toEqual({ types: 'GEZ', code });
    await expectNothingDone(sharded, client);
    for (const shard of SHARDS) await sharded.on(shard, 'TRUNCATE notes');
  }
  // Found only when it is prepared, and only when it is committed.
  for (const shard of [1, 0]) {
    await sharded.on(
      shard,
      'ALTER TABLE notes ADD CONSTRAINT one UNIQUE (tenant_id, text) DEFERRABLE INITIALLY DEFERRED',
    );
    const rows = [A, B].map((tenant) => `${tenant}\t7\tsame\n${tenant}\t8\tsame\n`).join('');
    expect((await copyIn(client, 'COPY notes FROM STDIN', [rows])).error?.code).toBe('23505');
    await sharded.on(shard, 'ALTER TABLE notes DROP CONSTRAINT one');
    await expectNothingDone(sharded, client);
    for (const at of SHARDS) await sharded.on(at, 'TRUNCATE notes');
  }
  expect((await copyIn(client, 'COPY notes (tenant_id, nothing) FROM STDIN', [good])).error?.code).toBe('42703');
  await sharded.on(0, 'DROP SCHEMA cutover_shards CASCADE');
  expect((await copyIn(client, 'COPY notes FROM STDIN', [good])).error?.code).toBe('55000');
  await sharded.on(0, TWO_PHASE_DDL);
  await expectNothingDone(sharded, client);
});

/** A COPY that has taken data on both shards and waits for more. */
async function begun(sharded: Sharded, client: RawClient): Promise<void> {
  client.send(query('COPY notes FROM STDIN'));
  await client.until('G');
  client.send(data(`${A}\t1\tx\n${B}\t1\tx\n${A}`));
  await until('both have data', async () => {
    const counts = await Promise.all(SHARDS.map((shard) => sharded.on(shard, COPYING)));
    return counts.every((rows) => rows.length === 1);
  });
}

const COPYING = 'SELECT pid FROM pg_stat_progress_copy WHERE datname = current_database() AND bytes_processed > 0';

test('the client takes it back, leaves, cancels, or breaks the protocol: nothing is stored', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  await begun(sharded, client);
  client.send(SYNC, copyFail('no more'));
  expect((await copied(client)).error).toEqual({ code: '57014', message: 'COPY from stdin failed: no more' });
  const busy = sharded.proxy.clients().find(({ user }) => user === 'postgres');
  expect(busy?.state).toBe('idle');

  const leaving = await RawClient.loggedIn(sharded.proxy, 'prod');
  await begun(sharded, leaving);
  leaving.socket.destroy();
  await until('the session is forgotten', () => sharded.proxy.clients().length === 1);
  const polite = await RawClient.loggedIn(sharded.proxy, 'prod');
  await begun(sharded, polite);
  polite.send(frame('X'));
  await until('the session is forgotten', () => sharded.proxy.clients().length === 1);
  const wrong = await RawClient.loggedIn(sharded.proxy, 'prod');
  await begun(sharded, wrong);
  wrong.send(query('SELECT 1'));
  expect(wrong.types(await wrong.until('E'))).toBe('E');
  await until('the session is forgotten', () => sharded.proxy.clients().length === 1);
  await expectNothingDone(sharded, client);
});

test('a server that is lost in the middle leaves nothing on the other one', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  for (const shard of SHARDS) {
    await begun(sharded, client);
    await sharded.on(shard, `SELECT pg_terminate_backend(pid) FROM (${COPYING}) AS copying`);
    expect((await copied(client)).error).toMatchObject({
      code: '40000',
      message: expect.stringMatching(/nothing was changed on any shard/) as unknown,
    });
    await expectNothingDone(sharded, client);
    for (const at of SHARDS) await sharded.on(at, 'TRUNCATE notes');
  }
});

const WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

/** Logs in, and cancels what the session runs when asked to. */
async function cancellable(proxy: Proxy): Promise<{ readonly client: RawClient; readonly cancel: () => void }> {
  const client = new RawClient(proxy);
  client.send(startupMessage({ user: 'postgres', database: 'prod' }));
  const key = (await client.until('Z')).find(({ type }) => type === 'K')?.bytes ?? Buffer.alloc(9);
  const request = cancelRequest(key.readInt32BE(5), key.subarray(9));
  return {
    client,
    cancel: () => {
      new RawClient(proxy).send(request);
    },
  };
}

test('a cancel ends it while it waits for data, for a table and for a row', async () => {
  const sharded = await start();
  const { client, cancel } = await cancellable(sharded.proxy);
  await begun(sharded, client);
  cancel();
  expect((await copied(client)).error?.code).toBe('57014');
  const blocker = await clientOf(sharded.proxy, 'plain');
  const blocking = [
    ['LOCK TABLE notes', 'EZ'],
    [`INSERT INTO notes VALUES (${A}, 1)`, 'GEZ'],
  ] as const;
  for (const [sql, types] of blocking) {
    await blocker.query('BEGIN');
    await blocker.query(sql);
    const copying = copyIn(client, 'COPY notes FROM STDIN', [`${A}\t1\tx\n${B}\t1\tx\n`]);
    await until('it waits', async () => (await sharded.on(0, WAITING)).length > 0);
    cancel();
    const { error, ...rest } = await copying;
    expect({ code: error?.code, types: rest.types }).toEqual({ code: '57014', types });
    await blocker.query('ROLLBACK');
  }
  await expectNothingDone(sharded, client);
});

test('a gate that is closed holds it, and a pause waits for the one that has begun', async () => {
  const sharded = await start();
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const gate = sharded.proxy.gate('prod');
  client.send(query('SELECT rate FROM rates'));
  await client.until('Z');
  gate.close('pause');
  const held = copyIn(client, 'COPY notes FROM STDIN', [`${A}\t1\tx\n`, `${B}\t1\tx\n`]);
  await until('it waits', () => gate.waitingCount === 1);
  expect(gate.holders).toEqual([]);
  gate.open('pause');
  expect(await held).toMatchObject({ tag: 'COPY 2' });
  for (const shard of SHARDS) await sharded.on(shard, 'TRUNCATE notes');

  await begun(sharded, client);
  gate.close('pause');
  expect((await gate.drained(1)).holders.map(({ serverPid }) => serverPid > 0)).toEqual([true]);
  const drained = gate.drained(10_000);
  client.send(data('\t2\ty\n'), DONE, query('SELECT rate FROM rates'));
  expect(await copied(client)).toMatchObject({ tag: 'COPY 3' });
  expect((await drained).drained).toBe(true);
  gate.open('pause');
  expect(client.types(await client.until('Z'))).toBe('TDCZ');
  await expectNothingLeft(sharded);
});

test('no lock is waited for without an end, unless the session wants it', async () => {
  const sharded = await start();
  for (const shard of SHARDS)
    await sharded.on(
      shard,
      `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.text := current_setting(''lock_timeout''); RETURN NEW; END';
      CREATE TRIGGER tell BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION tell()`,
    );
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  for (const [at, wanted] of ['1min', '5s'].entries()) {
    if (at === 1) {
      client.send(query("SET lock_timeout = '5s'"));
      await client.until('Z');
    }
    const id = at.toString();
    expect(await copyIn(client, 'COPY notes FROM STDIN', [`${A}\t${id}\n${B}\t${id}\n`])).toMatchObject({
      error: { code: '22P04' },
    });
    await copyIn(client, 'COPY notes (tenant_id, id) FROM STDIN', [`${A}\t${id}\n${B}\t${id}\n`]);
    for (const shard of SHARDS)
      expect(await sharded.on(shard, `SELECT text FROM notes WHERE id = ${id}`)).toEqual([{ text: wanted }]);
  }
});

test('in a transaction its rows are stored when that is committed, and none when it fails', async () => {
  const sharded = await start();
  const driver = await clientOf(sharded.proxy, 'prod');
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const counted = async (): Promise<unknown> => {
    const rows = await Promise.all(
      [0, 1].map(async (shard) => sharded.on(shard, 'SELECT id::int FROM notes ORDER BY 1')),
    );
    return rows.map((shard) => shard.map(({ id }) => id));
  };
  const say = async (sql: string): Promise<void> => {
    client.send(query(sql));
    await client.until('Z');
  };
  const rows = [`${A}\t1\tx\n`, `${B}\t2\ty\n`];
  const before = await counted();
  for (const end of ['ROLLBACK', 'COMMIT']) {
    await say('BEGIN');
    await say(`INSERT INTO notes VALUES (${A}, 5, 'z')`);
    expect((await copyIn(client, 'COPY notes FROM STDIN', rows)).types).toBe('GCZ');
    expect((await copyIn(client, 'COPY notes FROM STDIN', [`${B}\tno number\ty\n`])).error?.code).toBe('22P02');
    await say('ROLLBACK');
    expect(await counted()).toEqual(before);
    await say('BEGIN');
    expect((await copyIn(client, 'COPY notes FROM STDIN', rows)).types).toBe('GCZ');
    expect(await counted()).toEqual(before);
    await say(end);
  }
  expect(await counted()).not.toEqual(before);
  expect((await driver.query('SELECT text FROM notes WHERE tenant_id = $1 AND id = 2', [B])).rows).toEqual([
    { text: 'y' },
  ]);
});

test('it is refused where it would not be one statement by itself, or its rows cannot be told apart', async () => {
  const sharded = await start();
  const driver = await clientOf(sharded.proxy, 'prod');
  for (const text of ['BEGIN; COPY notes FROM STDIN; COMMIT', 'COPY notes FROM STDIN; SELECT 1'])
    expect((await failure(driver.query(text))).code).toBe('0A000');
  const client = await RawClient.loggedIn(sharded.proxy, 'prod');
  const refusal = async (sql: string): Promise<string | undefined> => {
    const { types, error } = await copyIn(client, sql, [`${A}\t1\tx\n`]);
    expect({ types, code: error?.code }).toEqual({ types: 'EZ', code: '0A000' });
    return error?.message;
  };
  expect(await refusal('COPY notes FROM STDIN WHERE id > 1')).toMatch(/with WHERE/);
  expect(await refusal('COPY notes FROM STDIN (ON_ERROR ignore)')).toMatch(/with ON_ERROR/);
  expect(await refusal("COPY notes FROM STDIN (DEFAULT 'd')")).toMatch(/with DEFAULT/);
  expect(await refusal("COPY notes FROM STDIN (ENCODING 'latin1')")).toMatch(/another encoding/);
  expect(await refusal('COPY notes (id, text) FROM STDIN')).toMatch(/a default that only the server/);
  expect(await refusal('/* pgdog_shard: 1 */ COPY notes FROM STDIN')).toMatch(/by hand/);
  client.send(query('SET client_encoding = latin1'));
  await client.until('Z');
  expect(await refusal('COPY notes FROM STDIN')).toMatch(/client_encoding/);
  client.send(query('RESET client_encoding'));
  await client.until('Z');
  client.send(query('SET ROLE pg_monitor'));
  await client.until('Z');
  expect(await refusal('COPY public.notes FROM STDIN')).toMatch(/after SET ROLE/);
  client.send(query('RESET ROLE'));
  await client.until('Z');
  await expectNothingDone(sharded, client);
});
