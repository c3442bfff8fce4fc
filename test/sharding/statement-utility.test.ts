/** One task: hold which changes of the schema the coordinator takes no part in, and which leave rows on the shards of their old keys. */
import { beforeAll, expect, test } from 'vitest';
import type { Catalogue } from '../../src/sharding/catalogue.js';
import { Router } from '../../src/sharding/router.js';
import { loadStatementParser, type StatementParser } from '../../src/sharding/statement-parser.js';

const NOTHING: Catalogue = {
  tables: new Map(),
  otherRelations: new Set(),
  functions: new Map(),
  unsafeOperators: new Set(),
  ownArithmetic: false,
};
let parser: StatementParser;
beforeAll(async () => {
  parser = await loadStatementParser();
});

function routed(sql: string): unknown {
  const mapping = { kind: 'hash', hasher: 'postgres' } as const;
  const key = { database: 'prod', schema: null, table: null, column: 'tenant_id', type: 'bigint', mapping } as const;
  const scheme = { database: 'prod', shards: 2, omnisharded: [], schemas: [], tables: [key], coordinator: null };
  return new Router(parser, { scheme, catalogue: NOTHING }).route(sql, { searchPath: ['public'] })[0]?.route;
}

test.each([
  ['CREATE UNIQUE INDEX ON a (b)', true],
  ['DROP INDEX i', true],
  ['ALTER INDEX i ALTER COLUMN 1 SET STATISTICS 9', true],
  ['CREATE TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f()', true],
  ["COMMENT ON TABLE a IS 'b'", true],
  ['ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c, ALTER b SET DEFAULT 3', true],
  ['ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c, ADD d int', false],
  ['ALTER TABLE a ADD PRIMARY KEY (b)', false],
  ['ALTER INDEX a_pkey RENAME TO b', false],
  ['ALTER TABLE a ENABLE ROW LEVEL SECURITY', false],
  ['DROP TABLE a', false],
  ['GRANT SELECT ON a TO b', false],
  ['CREATE VIEW v AS SELECT 1', false],
])('%s: the coordinator has no part in it: %s', (sql, beside) => {
  expect(routed(sql)).toEqual({ kind: 'every', ddl: true, transactional: true, ...(beside ? { beside: true } : {}) });
});

test.each([
  ['ALTER TABLE a ALTER tenant_id TYPE bigint USING tenant_id + 1', true],
  ['ALTER TABLE a ALTER tenant_id SET EXPRESSION AS (b + 1)', true],
  ['ALTER TABLE a ALTER tenant_id TYPE int', false],
  ['ALTER TABLE a ALTER b TYPE bigint USING b + 1', false],
])('%s: it leaves rows on the shards of their old keys: %s', (sql, rewritten) => {
  expect(routed(sql)).toMatchObject(rewritten ? { kind: 'refused', reason: 'key-rewritten' } : { kind: 'every' });
});
