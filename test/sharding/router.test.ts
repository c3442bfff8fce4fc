/** One task: hold the router's verdicts to a table of statements, and its bindings, hints, splits and cache to what they promise. */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Route } from '../../src/sharding/router-binding.js';
import { TextCache } from '../../src/sharding/router-cache.js';
import { NO_PARAMETERS, type StatementParameters } from '../../src/sharding/router-parameters.js';
import { REFUSAL_TEXTS } from '../../src/sharding/router-refusals.js';
import { splitInsert } from '../../src/sharding/router-split.js';
import { commonRoute, Router } from '../../src/sharding/router.js';
import { loadStatementParser, type StatementParser } from '../../src/sharding/statement-parser.js';
import { CATALOGUE, SCHEME, SEARCH_PATH } from './routing-context.js';
import * as statements from './statements.js';

let parser: StatementParser;
let router: Router;

beforeAll(async () => {
  parser = await loadStatementParser();
  router = new Router(parser, { scheme: SCHEME, catalogue: CATALOGUE });
});

function routes(sql: string, parameters: StatementParameters = NO_PARAMETERS): readonly Route[] {
  return router.route(sql, { searchPath: SEARCH_PATH, parameters }).map(({ route }) => route);
}

function shown(route: Route | undefined): string {
  switch (route?.kind) {
    case undefined:
      return 'none';
    case 'shard':
      return `shard ${route.shard.toString()}`;
    case 'any':
      return route.fixed ? 'any fixed' : 'any';
    case 'every':
      return `every${route.ddl ? ' ddl' : ''}${route.transactional ? '' : ' alone'}`;
    case 'several':
      return `several ${route.shards.join(',')}`;
    case 'rows':
      return `rows ${route.parts.map(({ shard, rows }) => `${shard.toString()}:${rows.join(',')}`).join(' ')}`;
    case 'moves-key':
      return `move ${route.from.join(',')}>${route.to?.toString() ?? '?'}`;
    case 'copy':
      return `copy ${route.copy.key?.index.toString() ?? 'all'}`;
    case 'coordinator':
    case 'refused':
      return `${route.kind} ${route.reason}`;
    case 'session':
      return route.hint === null ? 'session' : `session ${route.hint.name}=${String(route.hint.value)}`;
  }
}

describe.each([
  ['reads bound to one shard stay there', statements.PINNED_READS],
  ['a join goes to one shard only when every table is bound', statements.JOINED_READS],
  ['subqueries, WITH and set operations hide no table', statements.NESTED_READS],
  ['what is not proven is not sent to one shard', statements.UNPROVEN_READS],
  ['what every shard has is read on any', statements.ANYWHERE],
  ['a write reaches the rows it means, or is refused', statements.WRITES],
  ['commands are for the session, for every shard, or refused', statements.UTILITIES],
] as const)('%s', (_, cases) => {
  it.each(cases)('%s', (sql, expected) => {
    expect(routes(sql).map(shown)).toEqual([expected]);
  });
});

describe('a parameter is hashed as the server reads it', () => {
  const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
  const text = (...values: (string | null)[]): StatementParameters => ({
    ...NO_PARAMETERS,
    values: values.map((value) => (value === null ? null : Buffer.from(value))),
  });
  const binary = (types: readonly number[], ...values: Buffer[]): StatementParameters => ({
    ...NO_PARAMETERS,
    values,
    types,
    formats: [1],
  });
  const one = 'SELECT * FROM orders WHERE tenant_id = $1';
  const any = 'SELECT * FROM orders WHERE tenant_id = ANY ($1)';
  const mail = 'SELECT * FROM people WHERE email = $1';
  const doc = 'SELECT * FROM documents WHERE doc = $1';

  it.each<[string, StatementParameters, string]>([
    [one, text('3'), 'shard 1'],
    [one, text(' +3 '), 'shard 1'],
    [one, text('three'), 'coordinator several-shards'],
    [one, text(null), 'shard 0'],
    [one, text(), 'coordinator several-shards'],
    [one, binary([0], bytes('0000000000000003')), 'shard 1'],
    [one, binary([20], bytes('0000000000000003')), 'shard 1'],
    [one, binary([23], bytes('00000003')), 'shard 1'],
    [one, binary([21], bytes('0003')), 'shard 1'],
    [one, binary([20], bytes('ffffffffffffffff')), 'shard 1'],
    [one, binary([20], bytes('00000003')), 'coordinator several-shards'],
    [one, binary([701], bytes('4008000000000000')), 'coordinator several-shards'],
    [one, { ...text('3'), types: [1700] }, 'coordinator several-shards'],
    [one, { ...text('3'), types: [25] }, 'coordinator several-shards'],
    ['SELECT * FROM orders WHERE tenant_id = $1::bigint', { ...text('3'), types: [25] }, 'shard 1'],
    ['SELECT * FROM orders WHERE tenant_id = $1::numeric', text('3'), 'coordinator unpinned'],
    ['SELECT $1::float8 FROM orders WHERE tenant_id = $1', text('3'), 'coordinator several-shards'],
    ['SELECT $1::float8 FROM orders WHERE tenant_id = $1', { ...text('3'), types: [20] }, 'shard 1'],
    ['SELECT * FROM orders WHERE tenant_id = $1 AND id = $1', text('3'), 'shard 1'],
    ['SELECT * FROM orders WHERE tenant_id IN ($1, $2)', text('1', '2'), 'shard 0'],
    ['SELECT * FROM orders WHERE tenant_id IN ($1, $2)', text('1', '3'), 'coordinator several-shards'],
    ['SELECT * FROM orders WHERE tenant_id IS NOT DISTINCT FROM $1', text('3'), 'shard 1'],
    ['SELECT * FROM orders WHERE tenant_id IS NOT DISTINCT FROM $1', text(null), 'coordinator several-shards'],
    [any, text('{1,2,NULL}'), 'shard 0'],
    [any, text('{3,"-1"}'), 'shard 1'],
    [any, text('{1,3}'), 'coordinator several-shards'],
    [any, text('{}'), 'shard 0'],
    [any, text('{{1}}'), 'coordinator several-shards'],
    [any, text('[0:0]={1}'), 'coordinator several-shards'],
    [any, text('{1,}'), 'coordinator several-shards'],
    [any, binary([1016], bytes('00000001000000000000001400000001000000010000000800000000000000' + '03')), 'shard 1'],
    [any, binary([1007], bytes('000000010000000000000017000000010000000100000004' + '00000003')), 'shard 1'],
    [any, binary([1016], bytes('000000000000000000000014')), 'shard 0'],
    [any, binary([1016], bytes('0000000100000000000000140000000100000001000000ff')), 'coordinator several-shards'],
    [mail, text('test_value'), 'shard 1'],
    [mail, text('é'), 'shard 1'],
    [mail, { ...text('é'), utf8: false }, 'coordinator several-shards'],
    [mail, { ...text('test_value'), utf8: false }, 'shard 1'],
    [mail, { ...NO_PARAMETERS, values: [bytes('ff')] }, 'coordinator several-shards'],
    [mail, binary([1043], Buffer.from('test_value')), 'shard 1'],
    ['SELECT * FROM people WHERE email = ANY ($1::text[])', text('{"test_value"}'), 'shard 1'],
    ['INSERT INTO people (email) VALUES ($1)', text('test_value'), 'shard 1'],
    ['INSERT INTO people (email) VALUES ($1)', text('more than twenty characters'), 'refused key-not-constant'],
    [doc, text('550E8400-e29b-41d4-a716-446655440000'), 'shard 1'],
    [doc, binary([2950], bytes('550e8400e29b41d4a716446655440000')), 'shard 1'],
    [doc, binary([2950], bytes('550e')), 'coordinator several-shards'],
    ['INSERT INTO orders (tenant_id, id) VALUES ($1, 1), ($2, 2)', text('1', '3'), 'rows 0:0 1:1'],
    ['INSERT INTO orders (tenant_id, id) VALUES ($1, 1)', text(null), 'shard 0'],
    ['UPDATE orders SET tenant_id = $2 WHERE tenant_id = $1', text('3', '3'), 'shard 1'],
    ['UPDATE orders SET tenant_id = $2 WHERE tenant_id = $1', text('3', '1'), 'move 1>0'],
    ['UPDATE orders SET tenant_id = $1 WHERE id = $2', text('3', '1'), 'move 0,1>1'],
    ['DELETE FROM orders WHERE tenant_id = ANY ($1)', text('{3}'), 'shard 1'],
    ['DELETE FROM orders WHERE tenant_id = ANY ($1)', text('{3,1}'), 'several 0,1'],
  ])('%s with %j', (sql, parameters, expected) => {
    expect(routes(sql, parameters).map(shown)).toEqual([expected]);
  });
});

describe('a hint goes before what the statement itself says, but puts no row where nobody finds it', () => {
  it.each<[string, string]>([
    ['/* pgdog_shard: 1 */ SELECT * FROM orders', 'shard 1'],
    ['SELECT * FROM orders /* pgdog_shard: 1 */', 'shard 1'],
    ['SELECT * FROM orders /* pgdog_shard: 1 */;', 'shard 1'],
    ['SELECT /* pgdog_shard: 1 */ * FROM orders', 'coordinator unpinned'],
    ['/* pgdog_sharding_key: 3 */ SELECT * FROM orders WHERE tenant_id = 1', 'shard 1'],
    [
      "/* pgdog_sharding_key: 'test_value' */ SELECT * FROM people WHERE email LIKE $$t%$$ AND email = $$x$$",
      'shard 1',
    ],
    ['/* pgdog_shard: 7 */ SELECT 1', 'refused manual-shard'],
    ['/* pgdog_shard: x */ SELECT 1', 'refused manual-shard'],
    ['/* pgdog_shard: 0 */ INSERT INTO orders (tenant_id, id) VALUES (3, 1)', 'refused manual-shard'],
    ['/* pgdog_shard: 1 */ INSERT INTO orders (tenant_id, id) VALUES (3, 1)', 'shard 1'],
    ['/* pgdog_shard: 1 */ DELETE FROM orders', 'shard 1'],
    ['/* pgdog_shard: 1 */ DELETE FROM products', 'refused manual-shard'],
    ['/* pgdog_shard: 1 */ SELECT * FROM orders FOR UPDATE', 'shard 1'],
    ['/* pgdog_shard: 1 */ DO $$ BEGIN END $$', 'refused procedure'],
    ['/* pgdog_shard: 1 */ BEGIN', 'session'],
  ])('%s', (sql, expected) => {
    expect(routes(sql).map(shown)).toEqual([expected]);
  });

  it('the session sets one, and a comment goes before it', () => {
    const request = { searchPath: SEARCH_PATH, hint: { name: 'shard', value: '1' } } as const;
    expect(router.route('SELECT * FROM orders', request)[0]?.route).toMatchObject({ kind: 'shard', shard: 1 });
    const commented = router.route('/* pgdog_shard: 0 */ SELECT * FROM orders', request);
    expect(commented[0]?.route).toMatchObject({ kind: 'shard', shard: 0 });
  });
});

describe('several statements in one text', () => {
  it.each([
    ['SELECT 1; SELECT * FROM orders WHERE tenant_id = 3', 'shard 1'],
    ['SELECT * FROM orders WHERE tenant_id = 3; DELETE FROM orders WHERE tenant_id = 3;', 'shard 1'],
    [
      'SELECT * FROM orders WHERE tenant_id = 3; SELECT * FROM orders WHERE tenant_id = 1',
      'refused several-statements',
    ],
    ['SELECT * FROM orders; SELECT count(*) FROM items', 'coordinator unpinned'],
    ['BEGIN; SELECT 1', 'refused several-statements'],
    ['', 'any'],
    ['-- nothing', 'any'],
  ])('%s', (sql, expected) => {
    expect(shown(commonRoute(router.route(sql, { searchPath: SEARCH_PATH })))).toBe(expected);
  });

  it('each is found in the text, whatever its bytes', () => {
    const sql = "SELECT 'é😀'; SELECT 2 ;";
    const spans = router.route(sql, { searchPath: SEARCH_PATH }).map(({ start, end }) => sql.slice(start, end).trim());
    expect(spans).toEqual(["SELECT 'é😀'", 'SELECT 2']);
  });
});

describe('an INSERT of several shards is split', () => {
  it('into rows and parameters of each, with everything around them', () => {
    const sql =
      "INSERT INTO orders (tenant_id, id, state) VALUES ($1, 1, 'é('), ($2, $3, upper('b')) , (2, $1, $4) RETURNING id";
    const parts = splitInsert(parser, sql, [
      { shard: 0, rows: [0, 2] },
      { shard: 1, rows: [1] },
    ]);
    expect(parts?.map((part) => [part.sql, part.parameters])).toEqual([
      ["INSERT INTO orders (tenant_id, id, state) VALUES ($1, 1, 'é('), (2, $1, $2) RETURNING id", [1, 4]],
      ["INSERT INTO orders (tenant_id, id, state) VALUES ($1, $2, upper('b')) RETURNING id", [2, 3]],
    ]);
  });

  it('not where the rows of the text are not those of the verdict', () => {
    expect(splitInsert(parser, 'INSERT INTO orders VALUES (1)', [{ shard: 0, rows: [0, 1] }])).toBeNull();
    expect(splitInsert(parser, 'SELECT 1', [{ shard: 0, rows: [0] }])).toBeNull();
  });
});

describe('what a client may send is never an exception', () => {
  it.each([
    `SELECT ${'('.repeat(20_000)}1${')'.repeat(20_000)}`,
    `SELECT ${'1+'.repeat(20_000)}1`,
    `SELECT ${'NOT '.repeat(3_000)}true`,
    `SELECT ${"'x',".repeat(1_100_000)}1`,
    '\0',
    '$$',
    "'",
  ])('%#', (sql) => {
    expect(['coordinator', 'refused', 'any']).toContain(routes(sql)[0]?.kind);
  });

  it('the parser serves on after a text that was too deep for it', () => {
    expect(routes('SELECT 1').map(shown)).toEqual(['any']);
  });
});

describe('verdicts are kept by text and search path', () => {
  it('a table of another schema is another table', () => {
    const sql = 'SELECT * FROM old_orders';
    expect(router.route(sql, { searchPath: ['archive'] })[0]?.route).toMatchObject({ kind: 'shard', shard: 1 });
    expect(shown(router.route(sql, { searchPath: ['public'] })[0]?.route)).toBe('coordinator unknown-table');
    expect(shown(router.route('SELECT 1', { searchPath: ['public', 'pg_catalog'] })[0]?.route)).toBe(
      'coordinator search-path',
    );
  });

  it('within the limit of bytes, what was not used lately going first', () => {
    const cache = new TextCache<object>(64 * 1024);
    const ask = (sql: string): boolean => {
      const asked = cache.get(sql, []) === null;
      if (asked) cache.keep(sql, [], [{ verdict: { kind: 'any', fixed: false }, start: 0, end: 1 }]);
      return asked;
    };
    expect(ask('kept')).toBe(true);
    for (let index = 0; index < 1_000; index += 1) {
      ask(`SELECT ${index.toString()}`);
      expect(ask('kept')).toBe(false);
    }
    expect(cache.statistics.bytes).toBeLessThanOrEqual(64 * 1024);
    expect(ask('SELECT 0')).toBe(true);
    expect(ask('x'.repeat(10_000))).toBe(true);
    expect(ask('x'.repeat(10_000))).toBe(true);
  });
});

it('docs/routing.md has each reason with its text, and no other', () => {
  const rows = readFileSync('docs/routing.md', 'utf8').matchAll(/^\| `([a-z-]+)` \| (.*) \|$/gm);
  expect(Object.fromEntries([...rows].map(([, reason, text]) => [reason, text]))).toEqual(REFUSAL_TEXTS);
});
