/** One task: hold the short question of the pause, "is the catalogue as it was compared?", to every change that matters. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { columnsChanged, rememberCatalogue, tablesChanged } from '../../src/postgres/catalogue.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { applicationTables, armFence } from '../../src/postgres/fence.js';
import { installRecord } from '../../src/postgres/record.js';
import { ensurePublication } from '../../src/postgres/streams.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ eldest: { major: 14 }, newest: { major: 18 } });
const STREAM = 'cutover_m1_forward';

async function catalogueChanged(side: Connection, stream: string): Promise<boolean> {
  const looks = [await tablesChanged(side, stream), await columnsChanged(side, stream)];
  return looks.includes(true);
}

describe.each(['eldest', 'newest'] as const)('on the %s server', (age) => {
  let side: Connection;
  let other: Connection;

  beforeEach(async () => {
    const endpoint = clusters[age].endpoint(await freshDatabase(clusters[age]));
    side = await connect(endpoint);
    other = await connect(endpoint);
    await side.query(`
      CREATE TYPE public.mood AS ENUM ('sad', 'glad');
      CREATE TABLE public.item (id bigint PRIMARY KEY, name varchar(10), feeling public.mood);
      CREATE TABLE public.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
      CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (1000);
      CREATE UNIQUE INDEX item_name ON public.item (name);`);
    await installRecord(side, 'open');
    const tables = await applicationTables(side);
    await armFence(side, tables, 'always');
    await ensurePublication(
      side,
      STREAM,
      tables.filter((t) => t.table !== 'parted'),
    );
  });

  afterEach(async () => {
    await Promise.all([side.end(), other.end()]);
  });

  it('what was never remembered counts as changed', async () => {
    expect(await catalogueChanged(side, STREAM)).toBe(true);
    await rememberCatalogue(side, STREAM);
    expect(await catalogueChanged(side, STREAM)).toBe(false);
    expect(await catalogueChanged(side, 'cutover_m2_forward')).toBe(true);
  });

  it.each([
    'CREATE TABLE public.late (id int PRIMARY KEY)',
    'CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (1000) TO (2000)',
    'ALTER TABLE public.parted DETACH PARTITION public.parted_1',
    'DROP TABLE public.item',
    'ALTER TABLE public.item RENAME TO renamed',
    'ALTER TABLE public.item ADD COLUMN more int',
    'ALTER TABLE public.item DROP COLUMN name',
    'ALTER TABLE public.item RENAME COLUMN name TO title',
    'ALTER TABLE public.item ALTER COLUMN name TYPE varchar(20)',
    'ALTER TABLE public.item ALTER COLUMN name SET NOT NULL',
    'ALTER TABLE public.item DROP CONSTRAINT item_pkey',
    'ALTER TABLE public.item REPLICA IDENTITY FULL',
    'ALTER TABLE public.item ALTER COLUMN name SET NOT NULL; ALTER TABLE public.item REPLICA IDENTITY USING INDEX item_name',
    'ALTER SCHEMA public RENAME TO elsewhere',
    'DROP TRIGGER cutover_fence_write ON public.item',
    'ALTER TABLE public.item DISABLE TRIGGER cutover_fence_truncate',
    `ALTER PUBLICATION ${STREAM} DROP TABLE public.item`,
    `ALTER PUBLICATION ${STREAM} SET (publish = 'insert')`,
    // Gone and there again: as many rows as before, and younger ones.
    'DROP TABLE public.item; CREATE TABLE public.item (id bigint PRIMARY KEY, name varchar(10))',
  ])('a change is noticed: %s', async (change) => {
    await rememberCatalogue(side, STREAM);
    expect(await catalogueChanged(side, STREAM)).toBe(false);
    await other.query(change);
    expect(await catalogueChanged(side, STREAM)).toBe(true);
  });

  it('a change is noticed that was under way when the catalogue was remembered, once it ends', async () => {
    await other.query('BEGIN; ALTER TABLE public.item ADD COLUMN more int');
    await rememberCatalogue(side, STREAM);
    await other.query('COMMIT');
    expect(await catalogueChanged(side, STREAM)).toBe(true);
  });

  it.each([
    'CREATE TEMP TABLE mine (id int); DROP TABLE mine',
    'CREATE TEMP TABLE mine (id int PRIMARY KEY)',
    `INSERT INTO public.item SELECT i, 'item' || i FROM generate_series(1, 1000) i; ANALYZE public.item`,
    'CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$',
  ])('what does not matter to the move is no change: %s', async (change) => {
    await rememberCatalogue(side, STREAM);
    await other.query(change);
    expect(await catalogueChanged(side, STREAM)).toBe(false);
  });

  it('VACUUM and ANALYZE, which write into the catalogue in place, are no change', async () => {
    await side.query(`INSERT INTO public.item SELECT i, 'item' || i FROM generate_series(1, 1000) i`);
    await rememberCatalogue(side, STREAM);
    await other.query('VACUUM (ANALYZE, FREEZE) public.item');
    await other.query('VACUUM FREEZE pg_catalog.pg_attribute');
    expect(await catalogueChanged(side, STREAM)).toBe(false);
  });
});
