/** One task: a text's route by its template is the route of the text itself, whatever stands in the place of its literals. */
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { NO_PARAMETERS } from '../../src/sharding/router-parameters.js';
import { Router, type RoutedStatement } from '../../src/sharding/router.js';
import { loadStatementParser, type StatementParser } from '../../src/sharding/statement-parser.js';
import { templateOf } from '../../src/sharding/statement-template.js';
import { THOROUGH } from '../support/thorough.js';
import { generatedSelect, withConstants } from './generated-statements.js';
import { choices, mutated, TEXTS, VALUES } from './other-values.js';
import { CATALOGUE, SCHEME, SEARCH_PATH } from './routing-context.js';

const RUNS = THOROUGH ? 5_000 : 800;

let parser: StatementParser;
/** One for all tests, so that a template made of one text is used for the next. */
let router: Router;
/** Keeps nothing, and looks at each text by itself. */
let reference: Router;

beforeAll(async () => {
  parser = await loadStatementParser();
  const context = { scheme: SCHEME, catalogue: CATALOGUE };
  router = new Router(parser, context);
  reference = new Router(parser, context, 0);
});

function bothWays(sql: string): readonly [byTemplate: readonly RoutedStatement[], whole: readonly RoutedStatement[]] {
  const parameters = { ...NO_PARAMETERS, values: [Buffer.from('3'), Buffer.from('1')] };
  const request = { searchPath: SEARCH_PATH, parameters };
  return [router.route(sql, request), reference.routeWhole(sql, request)];
}

function expectSame(sql: string): void {
  const [byTemplate, whole] = bothWays(sql);
  // By which literal it is keyed, only the template tells.
  expect(byTemplate.map(plain), sql).toEqual(whole.map(plain));
}

function plain({ route, start, end }: RoutedStatement): Omit<RoutedStatement, 'keyed'> {
  return { route, start, end };
}

describe('by template and by text a statement goes to the same place', () => {
  it('each of the corpora', () => {
    for (const sql of TEXTS) expectSame(sql);
  });

  it('with other values in it', () => {
    const property = fc.property(fc.constantFrom(...TEXTS), choices, (sql, chosen) => {
      expectSame(mutated(parser, sql, chosen));
    });
    fc.assert(property, { numRuns: RUNS });
  });

  it('generated, with other values in it', () => {
    const property = fc.property(fc.nat(), choices, (seed, chosen) => {
      const sql = withConstants(generatedSelect(seed));
      expectSame(sql);
      expectSame(mutated(parser, sql, chosen));
    });
    fc.assert(property, { numRuns: RUNS / 10 });
  });

  it.each([
    'SELECT * FROM orders WHERE tenant_id = V',
    'SELECT * FROM orders WHERE tenant_id = -V',
    'SELECT * FROM orders WHERE tenant_id = - V',
    'SELECT * FROM orders WHERE tenant_id = V::smallint',
    'SELECT * FROM orders WHERE tenant_id IN (1, V)',
    'SELECT * FROM people WHERE email = V',
    'SELECT * FROM documents WHERE doc = V::uuid;',
    'INSERT INTO people (email) VALUES (V)',
    'INSERT INTO orders (tenant_id, id) VALUES (V, 1), (3, V) -- 3',
    'UPDATE orders SET tenant_id = V WHERE tenant_id = 3',
    "SELECT 'é', id FROM orders WHERE tenant_id = V ORDER BY 1 LIMIT 5",
    'SELECT * FROM orders WHERE tenant_id = 1 AND amount::float(V) > 1',
    'SELECT * FROM orders WHERE tenant_id = V; SELECT * FROM orders',
    '/* pgdog_sharding_key: 3 */ SELECT * FROM orders WHERE tenant_id = V',
  ])('%s with each value', (sql) => {
    for (const value of [...VALUES, ...VALUES]) expectSame(sql.replaceAll('V', () => value));
  });
});

describe('a template', () => {
  it.each([
    ["SELECT 1, 'a' FROM t1 WHERE b = 2147483648", 'SELECT \0i, \0s FROM t1 WHERE b = \0w'],
    [
      "SELECT 'it''s', 1.5 -- 'x' 1\n, \"1\", $1 /* 1 /* 2 */ 3 */ , 7",
      'SELECT \0s, \0d -- \'x\' 1\n, "1", $1 /* 1 /* 2 */ 3 */ , \0i',
    ],
  ])('of %j', (sql, text) => {
    expect(templateOf(sql)?.text).toBe(text);
  });

  it.each(["E'a'", '$$a$$', '1e3', '.5', '1_0', "'a'\n'b'", "'a", '"a', "U&'a'", '1 /* 2', '\0 1', '$1', 'a'])(
    'not of %j',
    (sql) => {
      expect(templateOf(`SELECT ${sql}`)).toBeNull();
    },
  );

  it('is analysed once for all of its texts', () => {
    const own = new Router(parser, { scheme: SCHEME, catalogue: CATALOGUE });
    for (let tenant = 0; tenant < 1_000; tenant += 1)
      own.route(`SELECT * FROM orders WHERE tenant_id = ${tenant.toString()}`, { searchPath: SEARCH_PATH });
    expect(own.statistics).toMatchObject({ entries: 1, misses: 1 });
  });
});
