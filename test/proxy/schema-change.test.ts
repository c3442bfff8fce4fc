/** One task: what is taken for a change of the schema, and what is not: an application's own work must pass. */
import { parseConfig } from '../../src/config/load.js';
import { Journal } from '../../src/proxy/journal.js';
import { describe, expect, it } from 'vitest';
import { SILENT } from '../../src/proxy/logger.js';
import { refusing, schemaChangeIn } from '../../src/proxy/schema-change.js';

const guard = { migration: 'm', tables: new Set(['item', 'Order "x"', 'straße']), allowed: false };

describe('refused', () => {
  it.each([
    ['CREATE TABLE new (id int)', 'CREATE TABLE'],
    ['create unlogged table new (id int)', 'CREATE TABLE'],
    ['CREATE TABLE item_2 PARTITION OF item FOR VALUES IN (2)', 'CREATE TABLE'],
    ['CREATE TABLE copy AS SELECT * FROM item', 'CREATE TABLE'],
    ['ALTER TABLE item ADD COLUMN v int', 'ALTER TABLE'],
    ['  -- a comment\n/* and one */ ALTER  TABLE IF EXISTS ONLY public.ITEM DROP v', 'ALTER TABLE'],
    ['ALTER TABLE "public"."Order ""x""" ADD v int', 'ALTER TABLE'],
    ['ALTER TABLE straße ADD v int', 'ALTER TABLE'],
    ['DROP TABLE IF EXISTS other, item CASCADE', 'DROP TABLE'],
    ['CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY public.item (name)', 'CREATE INDEX'],
    ['CREATE INDEX ON item (name)', 'CREATE INDEX'],
    ['DROP INDEX i', 'DROP INDEX'],
    ['CREATE OR REPLACE TRIGGER t BEFORE INSERT OR UPDATE ON item EXECUTE FUNCTION f()', 'CREATE TRIGGER'],
    ['CREATE CONSTRAINT TRIGGER t AFTER INSERT ON item EXECUTE FUNCTION f()', 'CREATE TRIGGER'],
    ['DROP TRIGGER t ON item', 'DROP TRIGGER'],
    [`ALTER TYPE mood ADD VALUE 'new'`, 'ALTER TYPE'],
    ['DROP SCHEMA app', 'DROP SCHEMA'],
    [`BEGIN; INSERT INTO item VALUES (1); ALTER TABLE item ADD v int; COMMIT`, 'ALTER TABLE'],
  ])('%s', (sql, change) => {
    expect(schemaChangeIn(sql, guard)).toBe(change);
  });
});

describe('passes', () => {
  it.each([
    'SELECT 1',
    `INSERT INTO item (name) VALUES ('DROP TABLE item; ALTER TABLE item ADD v int')`,
    `SELECT $tag$; DROP TABLE item; $tag$`,
    'SELECT 1 -- ; DROP TABLE item',
    `SELECT 'it''s; DROP TABLE item'`,
    'UPDATE item SET create_table = drop_table',
    'TRUNCATE item',
    'CREATE TEMP TABLE item (id int)',
    'CREATE LOCAL TEMPORARY TABLE t (id int)',
    'CREATE TABLE pg_temp.t (id int)',
    'DROP TABLE IF EXISTS scratch',
    'ALTER TABLE scratch ADD v int',
    'CREATE INDEX ON scratch (item)',
    'CREATE VIEW v AS SELECT * FROM item',
    'CREATE SCHEMA app',
    'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; DROP TABLE item $$',
    'CREATE ROLE item',
    '',
  ])('%s', (sql) => {
    expect(schemaChangeIn(sql, guard)).toBeNull();
  });
});

it('a name cannot break out of the statement that refuses', () => {
  const { logging } = parseConfig({ file: 'c', text: '' }, { file: 'u', text: '' }, { environment: {} });
  const journal = new Journal(SILENT, () => logging);
  const hooks = { onFenceRefusal: () => Promise.resolve(), schemaGuard: () => guard };
  const refuse = refusing({ hooks, journal }, { id: 1, user: 'app', database: `a'b$cutover$; DROP TABLE item; --` });
  const refusal = refuse(() => 'ALTER TABLE item ADD v int');
  expect(refusal).toContain('RAISE');
  expect(refusal).not.toContain('DROP');
});
