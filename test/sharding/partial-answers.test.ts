/**
 * One task: what the shards aggregate or limit by themselves has the answer of the coordinator's plain statement and of one database, in every digit,
 * name, type and format. PARTIAL_READS says how many statements; docs/evidence/sharded-reads.md has a long run.
 */
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { connect, withConnection, type Connection } from '../../src/postgres/connection.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { startProxy } from '../../src/proxy/proxy.js';
import { readCatalogue } from '../../src/sharding/catalogue.js';
import { coordinatorState, keepCoordinator } from '../../src/sharding/coordinator-keeping.js';
import { coordinatorAt } from '../../src/sharding/coordinator-place.js';
import { Router } from '../../src/sharding/router.js';
import { CREATE_HASH_PARENTS, rowFilter } from '../../src/sharding/row-filter.js';
import { partialAggregate } from '../../src/sharding/partial-aggregates.js';
import { ruleOf, schemeOf, type Mapping } from '../../src/sharding/scheme.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { frame } from '../../src/wire/backend.js';
import { SYNC } from '../../src/wire/frontend.js';
import { clientOf, configFor, RawClient } from '../proxy/support.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { COLUMNS, FILL, generatedRead, TABLES, withConstants, withParameters } from './partial-statements.js';

const clusters = useClusters({ all: { major: 18 } });
const READS = Number(process.env.PARTIAL_READS ?? '150');
const SHARDS = 2;
const TYPES = `CREATE TYPE mood AS ENUM ('bad', 'fair', 'good'); CREATE DOMAIN positive AS integer CHECK (VALUE > 0);`;
/** May read three columns of one table. */
const READER = 'partial_reader';
/** An application that is no superuser, as which whoever reads is sent on to the shards. */
const APP = 'partial_app';
/** Of these no statement of the generator is left to the plain way alone. */
const CLASSES = [
  ...['count', 'sum', 'avg', 'min', 'max', 'bool_and', 'bool_or', 'every', 'bit_and', 'bit_or', 'spread'],
  ...[
    'filter',
    'group',
    'having',
    'order',
    'limit of groups',
    'order by limit',
    'all at once',
    'state',
    'state of a group',
    'total',
  ],
];

let whole: Connection;
let coordinator: Connection;
let proxy: Proxy;
let config: Config;
/** Of a coordinator without what is made for deviations. */
let router: Router;
/** With it, where no column has few values, and where every one has: deviations of numbers are asked for as states there, in groups too. */
let others: readonly Router[];

const TENANTS = {
  schema: null,
  column: 'tenant_id',
  type: 'bigint',
  mapping: { kind: 'hash', hasher: 'postgres' },
} as const;
/** Two lists on a shard, which are one partition, and two ranges, which make the table one of scattered rows. */
const LISTS: Mapping = {
  kind: 'values',
  ranges: [],
  default: 0,
  lists: [
    { values: ['north'], shard: 0 },
    { values: ['south', 'west'], shard: 1 },
    { values: ['east'], shard: 0 },
  ],
};
const RANGES: Mapping = {
  kind: 'values',
  lists: [],
  default: null,
  ranges: [
    { start: null, end: 8n, shard: 0 },
    { start: 8n, end: 20n, shard: 1 },
    { start: 20n, end: null, shard: 0 },
  ],
};

function sharded(base: Config, names: readonly string[]): Config {
  const [first] = base.databases;
  if (first === undefined) throw new Error('no entry');
  const { password, ...entry } = first;
  const of = { database: 'prod', schema: null };
  return {
    ...base,
    databases: names.map((databaseName, shard) => ({ ...entry, databaseName, shard })),
    users: [
      ...base.users.map((user) => ({ ...user, ...(password !== undefined && { serverPassword: password }) })),
      { name: APP, database: 'prod', passwords: [APP], schemaAdmin: false },
    ],
    sharding: {
      ...base.sharding,
      tables: [
        { ...of, ...TENANTS, table: 'metrics' },
        { ...of, table: 'sales', column: 'region', type: 'varchar', mapping: LISTS },
        { ...of, table: 'readings', column: 'number', type: 'bigint', mapping: RANGES },
      ],
    },
  };
}

beforeAll(async () => {
  const cluster = clusters.all;
  const wholeName = await freshDatabase(cluster);
  const names = await Promise.all(Array.from({ length: SHARDS }, () => freshDatabase(cluster)));
  config = sharded(configFor([{ name: 'prod', cluster, databaseName: wholeName }]), names);
  await cluster.query(wholeName, `CREATE ROLE ${READER}; CREATE ROLE ${APP} LOGIN PASSWORD '${APP}'`);
  const scheme = schemeOf(config, 'prod');
  const columns = ['tenant_id', 'region', 'number'];
  for (const [at, name] of [wholeName, ...names].entries()) {
    await cluster.query(name, `CREATE SCHEMA cutover; ${CREATE_HASH_PARENTS} ${TYPES}`);
    for (const table of TABLES) {
      const kept =
        at === 0 ? 'true' : rowFilter(ruleOf(scheme, { schema: 'public', name: table, columns }), at - 1, SHARDS);
      await cluster.query(
        name,
        `CREATE TABLE ${table} (${COLUMNS}); ${FILL(table)}; DELETE FROM ${table} WHERE (${kept}) IS NOT TRUE`,
      );
    }
    await cluster.query(name, `GRANT SELECT (s, m, number) ON metrics TO ${READER}; GRANT SELECT ON metrics TO ${APP}`);
    await cluster.query(name, 'DROP SCHEMA cutover CASCADE; ANALYZE');
  }
  await keepCoordinator(config, 'prod');
  whole = await connect(cluster.endpoint(wholeName));
  coordinator = await connect(coordinatorAt(config, 'prod', cluster.endpoint(names[0] ?? '')));
  for (const connection of [whole, coordinator]) await connection.query('SET search_path = public; SET jit = off');
  await seemLarge();
  const catalogue = await withConnection(cluster.endpoint(names[0] ?? ''), readCatalogue);
  const parser = await loadStatementParser();
  router = new Router(parser, { scheme, catalogue });
  others = [new Map<string, number>(), new FewEverywhere()].map(
    (fewValues) => new Router(parser, { scheme, catalogue, fewValues }),
  );
  proxy = await startProxy({ config });
}, 120_000);

afterAll(async () => {
  await proxy.close(0);
  await Promise.all([whole.end(), coordinator.end()]);
});

class FewEverywhere extends Map<string, number> {
  override get(): number {
    return 1;
  }
}

/** Of tables with few rows it does not matter to the planner what a shard computes. */
async function seemLarge(): Promise<void> {
  await coordinator.query('SET default_transaction_read_only = off');
  await coordinator.query(`UPDATE pg_class SET reltuples = 1e6, relpages = 10000 WHERE relkind = 'f'`);
  await coordinator.query('RESET default_transaction_read_only');
}

const RAW = { getTypeParser: () => (value: unknown) => value };

interface Asked {
  readonly text: string;
  readonly values?: readonly string[];
  readonly binary?: boolean;
}

/** Rows as the server sent them, and what it says of the columns; or the error. */
async function answerOf(
  client: Pick<pg.Client, 'query'>,
  asked: Asked,
  ordered: boolean,
): Promise<{ columns: string; rows: string }> {
  try {
    const { values, ...rest } = asked;
    const query = {
      ...rest,
      ...(values === undefined ? {} : { values: [...values] }),
      rowMode: 'array' as const,
      types: RAW,
    };
    const { fields, rows } = await client.query<unknown[]>(query);
    const told = fields.map(({ name, dataTypeID, dataTypeModifier }) => [name, dataTypeID, dataTypeModifier]);
    const texts = rows.map((row) => JSON.stringify(row));
    return { columns: JSON.stringify(told), rows: (ordered ? texts : texts.sort()).join('\n') };
  } catch (error) {
    return { columns: '', rows: `error ${(error as { code?: string }).code ?? ''} ${(error as Error).message}` };
  }
}

test(`${READS.toString()} generated reads: the parts together are the whole`, async () => {
  const client = await clientOf(proxy, 'prod');
  await client.query('SET jit = off');
  const counts = new Map<string, number>();
  for (let seed = 1; seed <= READS; seed += 1) {
    const { sql, classes, ordered } = generatedRead(seed);
    const text = withConstants(sql);
    const partial = router.partial(text, ['public']);
    const expected = await answerOf(whole, { text }, ordered);
    const plain = await answerOf(coordinator, { text }, ordered);
    const why = `seed ${seed.toString()}: ${text}\n${partial ?? ''}`;
    expect(expected.rows, why).not.toContain('error');
    expect(plain.rows, why).toBe(expected.rows);
    if (partial !== null) {
      const count = (name: string): unknown => counts.set(name, (counts.get(name) ?? 0) + 1);
      classes.forEach(count);
      for (const form of new Set([partial, ...others.map((other) => other.partial(text, ['public']) ?? '')])) {
        if (form.includes('deviation_state'))
          ['state', ...(classes.includes('group') ? ['state of a group'] : [])].forEach(count);
        if (form.includes('cutover_shards.total')) count('total');
        expect(await answerOf(coordinator, { text: form }, ordered), `${why}\n${form}`).toEqual(plain);
        const scans = LOCAL.test(text) ? [] : await scansOf(form);
        if (scans.length > 0) count('all at once');
        expect(scans, `${why}\n${form}`).not.toContain('Foreign Scan');
      }
    }
    const prepared = withParameters(sql);
    const asked = { text: prepared.sql, values: prepared.values, binary: seed % 2 === 0 };
    const bound = await answerOf(coordinator, asked, ordered);
    expect(await answerOf(client, { text }, ordered), why).toEqual(plain);
    expect(await answerOf(client, asked, ordered), `${why}\n${prepared.sql}`).toEqual(bound);
  }
  if (process.env.PARTIAL_READS !== undefined) console.log(Object.fromEntries(counts));
  expect(CLASSES.filter((name) => (counts.get(name) ?? 0) === 0)).toEqual([]);
  expect(counts.get('plain')).toBeUndefined();
}, 1_200_000);

/** What postgres_fdw sends to no shard: users' own types, and these expressions. Behind `*` rows come without what they are sorted by. */
const LOCAL = /\b[eo]\b|coalesce|::text|date_trunc|\*.*ORDER BY (lower|i2 %)/;

/** Of each scan of a shard, whether it runs beside the others. */
async function scansOf(sql: string): Promise<readonly string[]> {
  const { rows } = await coordinator.query<{ 'QUERY PLAN': string }>(`EXPLAIN (COSTS OFF) ${sql}`);
  return rows.flatMap((row) => /(?:Async )?Foreign Scan/.exec(row['QUERY PLAN'])?.[0] ?? []);
}

/** With a zero beside it the deviation is as near to the middle between two answers as one can be; and what is as large as can be. */
const LARGE = [
  ...[
    '124145519261542',
    '723573111879672',
    '4217293152016490',
    '12414551926.1542',
    '72357311187967.2000',
    '7235731118796.720000000',
  ],
  ...['1e60', '3.7e200', '1e30000', '7e60000', "'NaN'", '1e-3', '0.00007'],
];

test('a root is rounded once, as PostgreSQL rounds it', async () => {
  const aggregate = partialAggregate({
    name: 'stddev',
    args: '(v)',
    condition: '',
    type: 'numeric',
    aids: false,
    areGroupsFew: false,
  });
  const parts = aggregate?.parts.map((part, index) => `${part} AS p${index.toString()}`) ?? [];
  const wholes = aggregate?.wholes(parts.map((_, index) => `p${index.toString()}`)) ?? [];
  const names = wholes.map((_, index) => `w${index.toString()}`);
  // Of one in some thousands the root with three more decimals ends on 500, which it is not quite: it must not be rounded up then.
  const { rows } = await whole.query(`
    WITH numbers AS (
      SELECT i % 40000 AS g, round((hashint4(i) % 100000000)::numeric / 10::numeric ^ (i % 40000 % 9), i % 40000 % 5) AS v FROM generate_series(1, 200000) i
      UNION ALL SELECT g, n * factor FROM (VALUES ${LARGE.map((value, index) => `(${(40_000 + index).toString()}, ${value}::numeric)`).join(', ')}) l (g, n), (VALUES (0), (1)) f (factor))
    SELECT count(*)::int AS groups, count(*) FILTER (WHERE expected::text IS DISTINCT FROM answer::text)::int AS different,
      count(*) FILTER (WHERE expected IS DISTINCT FROM round(sqrt(variance), scale(variance)))::int AS "roundedTwice"
    FROM (SELECT g, expected, variance, ${aggregate?.answer(names, 'between') ?? ''} AS answer FROM (
      SELECT *, ${aggregate?.between?.(names) ?? ''} AS between FROM (
        SELECT g, min(expected) AS expected, min(variance) AS variance, ${wholes.map((sql, index) => `${sql} AS ${names[index] ?? ''}`).join(', ')}
        FROM (SELECT g, stddev(v) AS expected, variance(v) AS variance, ${parts.join(', ')} FROM numbers GROUP BY g) p GROUP BY g) p) p) p`);
  expect(rows[0]).toMatchObject({ groups: 40_000 + LARGE.length, different: 0 });
  expect((rows[0] as { roundedTwice: number }).roundedTwice).toBeGreaterThan(0);
});

test('squares of integers on both sides of what fits one', async () => {
  const client = await clientOf(proxy, 'prod');
  for (const edge of ['+ 3037000499', '+ 3037000500', '- 3037000499', '- 3037000500'])
    for (const filter of ['', ' FILTER (WHERE i2 > 0 OR b)']) {
      const text = `SELECT var_pop(i8 - i8 ${edge} + number % 3)${filter} AS v FROM metrics`;
      expect(router.partial(text, ['public'])).toContain('UNION ALL');
      expect((await client.query(text)).rows, text).toEqual((await whole.query(text)).rows);
    }
});

test('a deviation of a number is computed in one pass where its groups are few, as the statistics tell', async () => {
  const client = await clientOf(proxy, 'prod');
  const sentFor = async (sql: string): Promise<string> => {
    const { rows } = await client.query<{ 'QUERY PLAN': string }>(`EXPLAIN (VERBOSE, COSTS OFF) ${sql}`);
    return rows.map((row) => row['QUERY PLAN']).join('\n');
  };
  const few = ['SELECT var_pop(m) AS v FROM metrics', 'SELECT b, stddev(n) AS v FROM metrics GROUP BY b ORDER BY b'];
  for (const sql of few) {
    expect(await sentFor(sql)).toMatch(/Async Foreign Scan[^]*Remote SQL: SELECT .*cutover_shards\.deviation_state\(/);
    expect((await client.query(sql)).rows, sql).toEqual((await whole.query(sql)).rows);
  }
  const app = await clientOf(proxy, 'prod', { user: APP, password: APP });
  for (const sql of few) expect((await app.query(sql)).rows, sql).toEqual((await whole.query(sql)).rows);
  // Every row has another one.
  const many = 'SELECT t, stddev(m) AS v FROM metrics GROUP BY t ORDER BY t';
  expect(await sentFor(many)).not.toContain('deviation_state');
  expect((await client.query(many)).rows).toEqual((await whole.query(many)).rows);
});

test('a user who may read some columns of a table reads them sorted and limited', async () => {
  const partial = (items: string): string =>
    `EXPLAIN ${router.partial(`SELECT ${items} FROM metrics ORDER BY m, number % 3 LIMIT 3`, ['public']) ?? ''}`;
  await coordinator.query(`SET ROLE ${READER}`);
  try {
    await coordinator.query(partial('s AS n'));
    await expect(coordinator.query(partial('s, t'))).rejects.toMatchObject({ code: '42501' });
  } finally {
    await coordinator.query('RESET ROLE');
  }
});

/** What sessions of the coordinator have been sent last. */
async function sentLast(): Promise<string> {
  const { rows } = await coordinator.query<{ query: string }>(
    `SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY query_start DESC LIMIT 1`,
  );
  return rows[0]?.query ?? '';
}

test('every form of a statement is sent so, EXPLAIN shows it, and a session with its own names gets its own tables', async () => {
  const client = await clientOf(proxy, 'prod');
  const text = 'SELECT count(*)::int AS n, sum(i2)::int AS s FROM metrics WHERE number < 25';
  const { rows: wanted } = await whole.query(text);
  const bound = { text: text.replace('25', '$1'), values: ['25'] };
  for (const form of [{ text }, bound, { ...bound, name: 'named' }, { ...bound, name: 'named' }]) {
    expect((await client.query(form)).rows).toEqual(wanted);
    expect(await sentLast()).toContain('"cutover_shard_1"."public.metrics"');
  }
  const { rows } = await client.query<{ 'QUERY PLAN': string }>(`EXPLAIN (VERBOSE, COSTS OFF) ${text}`);
  const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
  expect(plan.match(/Async Foreign Scan[^]*?Remote SQL: SELECT count\(\*\), sum\(i2\)/g)).toHaveLength(2);
  const { rows: sorted } = await client.query<{ 'QUERY PLAN': string }>(
    'EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM metrics ORDER BY m, number LIMIT 4 OFFSET 2',
  );
  expect(
    sorted
      .map((row) => row['QUERY PLAN'])
      .join('\n')
      .match(/Async Foreign Scan[^]*?LIMIT 6/g),
  ).toHaveLength(2);
  await client.query('SET search_path = nowhere, public');
  expect((await client.query(bound)).rows).toEqual(wanted);
  await client.query('SET search_path = nowhere');
  await expect(client.query(text)).rejects.toMatchObject({ code: '42P01' });
});

test('an error is PostgreSQL’s own, and points nowhere rather than to a wrong place', async () => {
  const client = await clientOf(proxy, 'prod');
  const failing: readonly (readonly [string, string, string | undefined])[] = [
    ["SELECT count(*) FROM metrics WHERE i4 = 'x'", '22P02', undefined],
    ['SELECT sum(i4 / (i4 - i4)) FROM metrics', '22012', undefined],
    ['SELECT s FROM metrics ORDER BY s LIMIT -1', '2201W', undefined],
    // Not understood, so it is sent as it came.
    ['SELECT sum(nothing) FROM metrics', '42703', '12'],
  ];
  for (const [text, code, position] of failing) {
    await expect(client.query(text), text).rejects.toMatchObject({ code, position });
    await expect(client.query({ text, name: text }), text).rejects.toMatchObject({ code, position });
  }
  await expect(client.query('SELECT s FROM metrics ORDER BY s LIMIT $1 OFFSET $2', [5, -1])).rejects.toMatchObject({
    code: '2201X',
  });
  const { rows } = await client.query('SELECT count(i4)::int AS n FROM metrics ORDER BY 1 LIMIT $1 OFFSET $2', [
    '9223372036854775807',
    0,
  ]);
  expect(rows).toEqual((await whole.query('SELECT count(i4)::int AS n FROM metrics')).rows);
});

test('what was prepared before a change of the schema is not answered by what was true then', async () => {
  const client = await clientOf(proxy, 'prod');
  const raw = await RawClient.loggedIn(proxy, 'prod');
  const text = 'SELECT sum(i2) FROM metrics';
  const values = async (): Promise<readonly unknown[]> => {
    const { rows } = await client.query<{ sum: unknown }>({ text, name: 'sum', types: RAW });
    raw.send(frame('B', Buffer.alloc(8)), frame('E', Buffer.alloc(5)), SYNC);
    const row = (await raw.until('Z')).find(({ type }) => type === 'D')?.bytes;
    return [rows[0]?.sum, row?.toString('utf8', 11)];
  };
  raw.send(frame('P', Buffer.from(`\0${text}\0\0\0`)), SYNC);
  await raw.until('Z');
  const sums = await values();
  expect(sums[0]).toMatch(/^-?\d+$/);
  expect(sums[1]).toBe(sums[0]);
  await client.query('ALTER TABLE metrics ALTER COLUMN i2 TYPE float8 USING i2 + 0.25');
  expect(await values()).toEqual(Array.from({ length: 2 }, () => (Number(sums[0]) + 240 * 0.25).toString()));
  await client.query('ALTER TABLE metrics ADD COLUMN last int DEFAULT 7');
  const { rows } = await client.query<{ last: number }>('SELECT * FROM metrics ORDER BY i8, number, t LIMIT 1');
  expect(rows[0]?.last).toBe(7);
});

test('a coordinator that was restored without the aggregates of deviations is out of step, and made anew', async () => {
  const looked = (): ReturnType<typeof coordinatorState> => coordinatorState(config, 'prod', 5_000);
  expect(await looked()).toMatchObject({ ready: true, fewValues: expect.any(Map) as unknown });
  await coordinator.query('SET default_transaction_read_only = off');
  for (const name of ['deviation_sum', 'deviation_state'])
    await coordinator.query(
      `ALTER EXTENSION plpgsql DROP AGGREGATE cutover_shards.${name}(numeric); DROP AGGREGATE cutover_shards.${name}(numeric)`,
    );
  expect(await looked()).toMatchObject({ ready: false, outOfStep: true });
  expect(await keepCoordinator(config, 'prod')).toMatchObject({ changed: true });
  expect(await looked()).toMatchObject({ ready: true, fewValues: expect.any(Map) as unknown });
});
