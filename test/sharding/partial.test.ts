/** One task: hold what is written for the coordinator to a table of statements: those that the shards answer in parts, and those that stay. */
import { beforeAll, describe, expect, it } from 'vitest';
import { catalogueKey } from '../../src/sharding/catalogue.js';
import { Router } from '../../src/sharding/router.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { CATALOGUE, SCHEME, SEARCH_PATH } from './routing-context.js';

const FACTS = { volatility: 'immutable', aggregate: true, window: false, set: false, native: true } as const;
const AGGREGATES = ['stddev', 'bool_or', 'string_agg', 'array_agg', 'every'].map(
  (name) => [catalogueKey('pg_catalog', name), FACTS] as const,
);
const CONTEXT = {
  scheme: SCHEME,
  catalogue: { ...CATALOGUE, functions: new Map([...CATALOGUE.functions, ...AGGREGATES]) },
};

let router: Router;

beforeAll(async () => {
  router = new Router(await loadStatementParser(), CONTEXT);
});

const part = (shard: number, name: string): string => `"cutover_shard_${shard.toString()}"."public.${name}"`;

describe('in parts', () => {
  it('names the parts of the table, each with what the whole statement asks of it', () => {
    const where = `state <> $1`;
    const branch = (shard: number): string =>
      `SELECT state AS cutover_k1, pg_catalog.count(*) AS cutover_a1, pg_catalog.sum(amount) FILTER (WHERE id > 3) AS cutover_a2 ` +
      `FROM ${part(shard, 'orders')} AS "o" WHERE ${where} GROUP BY state`;
    const sql = `/* é */ select state, COUNT(*), sum(amount) FILTER (WHERE id > 3) + 1 AS "é" -- here
      from public.orders AS o where ${where} group by 1 order by 3 desc nulls last, o.state limit $2;`;
    expect(router.partial(sql, SEARCH_PATH)).toBe(
      `/* é */ SELECT cutover_p.cutover_k1 AS "state", ` +
        `cutover_p.cutover_w1 AS "count", cutover_p.cutover_w2 + 1 AS "é" FROM (` +
        `SELECT cutover_p.cutover_k1, pg_catalog.sum(cutover_p.cutover_a1 & (-1)::pg_catalog.int8)::pg_catalog.int8 AS cutover_w1, ` +
        `pg_catalog.sum(cutover_p.cutover_a2) AS cutover_w2 ` +
        `FROM (${branch(0)} UNION ALL ${branch(1)} OFFSET 0) AS cutover_p GROUP BY cutover_p.cutover_k1) AS cutover_p ` +
        `ORDER BY 3 DESC NULLS LAST, cutover_p.cutover_k1 limit $2;`,
    );
  });

  it('sorts each part by what a name or a number of the result stands for, and takes no column that is not needed', () => {
    const branch = (shard: number): string =>
      `(SELECT "id", "state", "amount", ((lower(state))) AS cutover_o1 FROM ${part(shard, 'orders')} AS "orders" WHERE id > 4 ` +
      `ORDER BY (id) DESC, (lower(state)), orders.amount LIMIT 15)`;
    const [head, tail] = [
      'SELECT id AS amount, lower(state) ',
      'ORDER BY 1 DESC, lower, orders.amount LIMIT 10 OFFSET 5',
    ];
    expect(router.partial(`${head}FROM orders WHERE id > 4 ${tail}`, SEARCH_PATH)).toBe(
      `${head}FROM ((${branch(0)} UNION ALL ${branch(1)}) OFFSET 0) AS "orders" ${tail}`,
    );
    const named = router.partial('SELECT id AS amount FROM orders ORDER BY amount LIMIT 3', SEARCH_PATH);
    expect(named).toContain(`SELECT "id" FROM ${part(0, 'orders')}`);
    expect(router.partial('SELECT *, 1 FROM orders ORDER BY id LIMIT 3', SEARCH_PATH)).toContain('(SELECT * FROM');
  });

  it('has a condition behind every aggregate that could be the first row in an order', () => {
    const text = router.partial(
      'SELECT min(id), max(state), every(id > 1), bool_or(id > 2), stddev(id) FROM orders',
      SEARCH_PATH,
    );
    expect(text?.match(/(min|max|every|bool_or)\([^)]*\) FILTER \(WHERE true\)/g)).toHaveLength(8);
  });

  it.each([
    'SELECT count(*) FROM orders',
    'EXPLAIN (ANALYZE, VERBOSE) SELECT count(*) FROM orders',
    'SELECT count(id), sum(id), min(state), max(amount), avg(product_id) FROM orders',
    'SELECT stddev(product_id), bool_or(id > 3), every(amount > 0) FROM orders',
    'SELECT sum(CASE WHEN state = $1 THEN amount ELSE 0 END) FROM orders WHERE id < $2',
    'SELECT state FROM orders GROUP BY state HAVING count(*) > $1',
    'SELECT state FROM orders GROUP BY state HAVING bool_or(id > 3) OR max(id) IS NULL',
    'SELECT state FROM orders GROUP BY state HAVING every(id > 3)',
    'SELECT count(*) FROM orders HAVING sum(id) BETWEEN 1 AND 5',
    'SELECT lower(state) AS s, max(id) FROM orders GROUP BY s ORDER BY max(id) DESC, lower(state)',
    'SELECT (amount + 1) * 2, count(*) FROM orders GROUP BY (amount+1) * 2',
    'SELECT coalesce(sum(quantity), 0) FROM items WHERE tenant_id IN (1, 2, 3, 4, 5)',
    'SELECT count(*) FROM orders WHERE tenant_id = $1',
    'SELECT o.* FROM orders o ORDER BY o.amount LIMIT 3',
    'SELECT id FROM orders ORDER BY id FETCH FIRST 3 ROWS ONLY',
    'SELECT count(*) FROM people',
  ])('%s', (sql) => {
    expect(router.partial(sql, SEARCH_PATH)).toContain('UNION ALL');
  });
});

describe('as it came', () => {
  it.each([
    ['groups that the coordinator pushes down itself', 'SELECT tenant_id, count(*) FROM orders GROUP BY tenant_id'],
    ['a table of every shard', 'SELECT count(*) FROM products'],
    ['a view', 'SELECT count(*) FROM order_view'],
    ['a HAVING that is a number', 'SELECT count(*) FROM orders HAVING count(*)'],
    ['a HAVING that is nothing', 'SELECT state FROM orders GROUP BY state HAVING nullif(count(*), 1)'],
    ['a HAVING that is a sum', 'SELECT state FROM orders GROUP BY state HAVING count(*) + 1'],
    ['a join', 'SELECT count(*) FROM orders JOIN items USING (tenant_id)'],
    ['two tables', 'SELECT count(*) FROM orders, items'],
    ['a subquery', 'SELECT count(*) FROM orders WHERE id IN (SELECT order_id FROM items)'],
    ['a subquery in FROM', 'SELECT count(*) FROM (SELECT * FROM orders) o'],
    ['WITH', 'WITH a AS (SELECT 1) SELECT count(*) FROM orders'],
    ['a set operation', 'SELECT count(*) FROM orders UNION ALL SELECT 1'],
    ['DISTINCT', 'SELECT DISTINCT state FROM orders ORDER BY 1 LIMIT 1'],
    ['an aggregate of distinct values', 'SELECT count(DISTINCT id) FROM orders'],
    ['an aggregate in an order', 'SELECT string_agg(state, $1 ORDER BY id) FROM orders'],
    ['an aggregate that has no parts', 'SELECT array_agg(id) FROM orders'],
    ['a window', 'SELECT count(*) OVER () FROM orders ORDER BY id LIMIT 1'],
    ['grouping sets', 'SELECT state, count(*) FROM orders GROUP BY ROLLUP (state)'],
    ['a volatile function', 'SELECT random(), count(*) FROM orders'],
    ['several rows out of one', 'SELECT unnest(ARRAY[1, 2]) FROM orders ORDER BY id LIMIT 1'],
    ['a group inside of another expression', 'SELECT (amount + 1) * 2, count(*) FROM orders GROUP BY amount + 1'],
    ['a column that its group implies', 'SELECT tenant_id, id, state, count(*) FROM orders GROUP BY state, id'],
    ['an order by a constant', 'SELECT id, 2 FROM orders ORDER BY 2 LIMIT 3'],
    ['ties', 'SELECT id FROM orders ORDER BY id FETCH FIRST 3 ROWS WITH TIES'],
    ['rows without an order', 'SELECT id FROM orders LIMIT 3'],
    ['an order without a limit', 'SELECT id FROM orders ORDER BY id'],
    ['LIMIT ALL', 'SELECT id FROM orders ORDER BY id LIMIT ALL'],
    ['a limit beyond all numbers', 'SELECT id FROM orders ORDER BY id LIMIT 9223372036854775807 OFFSET 1'],
    ['a parameter whose type another clause may decide', 'SELECT sum(amount * $1) FROM orders WHERE id = $1'],
    ['a parameter in ORDER BY', 'SELECT id FROM orders ORDER BY id + $1 LIMIT 3'],
    ['a column that is not known', 'SELECT sum(nothing) FROM orders'],
    ['a sum whose type is not certain', 'SELECT sum(length(state)) FROM orders'],
    ['several statements', 'SELECT count(*) FROM orders; SELECT 1'],
    ['a cursor', 'DECLARE c CURSOR FOR SELECT count(*) FROM orders'],
    ['a write', 'DELETE FROM orders'],
    ['no SQL', 'SELECT count(* FROM orders'],
    ['a text too long to be worth it', `SELECT count(*) FROM orders WHERE state <> '${'x'.repeat(70_000)}'`],
  ])('%s', (_, sql) => {
    expect(router.partial(sql, SEARCH_PATH)).toBeNull();
  });

  it('where an aggregate or an operator may be the users’ own', async () => {
    const functions = new Map([...CONTEXT.catalogue.functions, [catalogueKey('public', 'sum'), FACTS] as const]);
    const own = new Router(await loadStatementParser(), { ...CONTEXT, catalogue: { ...CONTEXT.catalogue, functions } });
    expect(own.partial('SELECT sum(id) FROM orders', SEARCH_PATH)).toBeNull();
    expect(own.partial('SELECT sum(id) FROM public.orders', ['archive'])).not.toBeNull();
    const catalogue = { ...CONTEXT.catalogue, ownArithmetic: true };
    const operators = new Router(await loadStatementParser(), { ...CONTEXT, catalogue });
    expect(operators.partial('SELECT sum(id + 1) FROM orders', SEARCH_PATH)).toBeNull();
    expect(operators.partial('SELECT sum(id) FROM orders', SEARCH_PATH)).not.toBeNull();
  });

  it('where names may mean something else', () => {
    expect(router.partial('SELECT count(*) FROM orders', ['archive'])).toBeNull();
    expect(router.partial('SELECT count(*) FROM orders', ['public', 'pg_catalog'])).toBeNull();
  });
});
