/** One task: what a replica may answer is known by PostgreSQL's own parser, and in doubt it may not. */
import { beforeAll, expect, test } from 'vitest';
import { readKind } from '../../src/sharding/plain-read.js';
import { loadStatementParser, type StatementParser } from '../../src/sharding/statement-parser.js';

let parser: StatementParser;

beforeAll(async () => {
  parser = await loadStatementParser();
});

test.each([
  'SELECT 1',
  'TABLE item',
  'VALUES (1), (2)',
  'SELECT a, count(*) FILTER (WHERE b) OVER (PARTITION BY c ORDER BY d) FROM item GROUP BY ROLLUP (a) HAVING max(b) > 1 LIMIT $1',
  'WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT * FROM t JOIN LATERAL (SELECT 1) x ON true',
  `SELECT extract(year FROM now()), pg_catalog.lower(a), a::int, a LIKE 'x%', a IN (1, 2), CURRENT_USER, ROW(1, a), ARRAY[a], b[1:2] FROM s.item`,
  `SELECT a -> 'b', jsonb_path_query(a, '$.x'), JSON_OBJECT('a': 1), CASE WHEN a THEN 1 ELSE coalesce(b, 2) END FROM item, generate_series(1, 3)`,
  'SELECT 1; SELECT 2',
])('reads: %s', (text) => {
  expect(readKind(parser, text)).toBe('read');
});

test.each([
  '',
  'no sql',
  'SELECT 1 FOR SHARE',
  '(SELECT 1 FROM item FOR UPDATE) UNION ALL SELECT 2',
  'SELECT * FROM (SELECT 1 FROM item FOR NO KEY UPDATE) x',
  'SELECT 1 INTO fresh',
  'WITH gone AS (DELETE FROM item RETURNING 1) SELECT 1',
  'SELECT (WITH t AS (SELECT nextval($1)) SELECT * FROM t)',
  ...[
    'nextval(a)',
    'setval(a, 1)',
    `set_config('a', 'b', false)`,
    'pg_advisory_lock(1)',
    'lo_create(0)',
    `pg_notify('a', 'b')`,
  ],
  ...[
    'mine()',
    's.lower(a)',
    'pg_is_in_recovery()',
    'txid_current()',
    `query_to_xml('DELETE FROM item', true, true, '')`,
  ].map((call) => `SELECT 1 FROM item WHERE ${call} IS NULL`),
  'SELECT * FROM pg_settings',
  'SELECT * FROM information_schema.tables',
  'SELECT 1; DELETE FROM item',
  'BEGIN READ ONLY; SELECT 1; COMMIT; DELETE FROM item',
  ...['SHOW port', 'EXPLAIN ANALYZE DELETE FROM item', 'COPY item TO STDOUT', 'PREPARE a AS SELECT 1', 'COMMIT'],
  'BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY',
  `SELECT '${'x'.repeat(70_000)}'`,
])('does not read, or nobody knows: %s', (text) => {
  expect(readKind(parser, text)).toBe('other');
});

test('a transaction is known by how it begins, and what is about the session alone', () => {
  expect(readKind(parser, 'START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ')).toBe('read-only');
  expect(readKind(parser, 'BEGIN')).toBe('begin');
  expect(readKind(parser, 'SET a.b = 1; LISTEN c')).toBe('session');
  expect(readKind(parser, 'BEGIN READ ONLY, READ WRITE')).toBe('begin');
});
