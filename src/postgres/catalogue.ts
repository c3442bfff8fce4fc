/**
 * One task: tell in a moment whether the catalogue still is what it was when all that must hold of it was compared.
 *
 * What must be equal (published and fenced tables, columns on both sides) takes tens of milliseconds to compare for a thousand tables:
 * too long for the pause. So it is compared just before, and inside the pause only this is asked: are there as many rows, and
 * was none of them written since? A row's `xmin` is the transaction that wrote it (PostgreSQL documentation, 5.6); what vacuum and
 * ANALYZE write into pg_class in place leaves it alone.
 */
import type { Connection } from './connection.js';

export const CATALOGUE_DDL = `
-- The catalogue as it was when everything in it was last compared, ahead of a pause.
CREATE TABLE IF NOT EXISTS cutover.checked_catalogue (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  stream text NOT NULL,
  -- no transaction older than this was still running: whatever is written later is at least as young
  since xid8 NOT NULL,
  tables bigint[] NOT NULL,
  columns bigint[] NOT NULL,
  -- how many tables the stream publishes here; null where it publishes nothing
  published integer,
  -- every fenced table as LOCK TABLE takes it; null where there is none
  fenced text
);

-- What says which tables are moved, published, applied to and fenced: how many rows of the catalogue, and how many transactions ago
-- the youngest of them was written. Tables of no move are counted as well: a new one may belong to it.
CREATE OR REPLACE FUNCTION cutover.look_at_tables(OUT counts bigint[], OUT youngest integer)
LANGUAGE plpgsql SET jit = off AS $function$
DECLARE
  v_schemas bigint := 0;
  v_youngest integer;
BEGIN
  SELECT array_agg(l.number ORDER BY l.kind), min(l.age) INTO counts, youngest FROM (
    SELECT 1, count(*), min(age(xmin)) FROM pg_class WHERE relkind IN ('r', 'p') AND relpersistence = 'p'
    UNION ALL SELECT 2, count(*), min(age(xmin)) FROM pg_inherits
    UNION ALL SELECT 3, count(*), min(age(xmin)) FROM pg_trigger
      WHERE tgname IN ('cutover_fence_write', 'cutover_fence_truncate')
    UNION ALL SELECT 4, count(*), min(age(xmin)) FROM pg_publication
    UNION ALL SELECT 5, count(*), min(age(xmin)) FROM pg_publication_rel
    UNION ALL SELECT 6, count(*), min(age(xmin)) FROM pg_subscription_rel
  ) AS l (kind, number, age);
  -- Came with 15; no statement of an older server may name it.
  IF to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL THEN
    EXECUTE 'SELECT count(*), min(age(xmin)) FROM pg_catalog.pg_publication_namespace' INTO v_schemas, v_youngest;
  END IF;
  counts := counts || v_schemas;
  youngest := least(youngest, v_youngest);
END
$function$;

-- The same for what says how the rows of tables that last are made: names, columns, keys. A column or a key that somebody changed is a
-- row written since; only the few of those are asked whose they are, because the tables of a session come and go. One that went took its
-- table or its index with it.
CREATE OR REPLACE FUNCTION cutover.look_at_columns(p_since xid8, OUT counts bigint[], OUT youngest integer)
LANGUAGE plpgsql SET jit = off AS $function$
DECLARE
  v_written oid[];
BEGIN
  SELECT ARRAY[count(*) FILTER (WHERE relkind IN ('r', 'p')), count(*) FILTER (WHERE relkind IN ('i', 'I'))],
    min(age(xmin)) FILTER (WHERE relkind IN ('r', 'p')) INTO counts, youngest
  FROM pg_class WHERE relpersistence = 'p';
  SELECT counts || count(*), least(youngest, min(age(xmin))) INTO counts, youngest FROM pg_namespace WHERE nspname !~ '^pg_';
  v_written := ARRAY(SELECT attrelid FROM pg_attribute WHERE age(xmin) <= age(p_since::xid) AND attnum > 0
    UNION ALL SELECT indrelid FROM pg_index WHERE age(xmin) <= age(p_since::xid));
  IF EXISTS (SELECT FROM pg_class WHERE oid = ANY (v_written) AND relkind IN ('r', 'p') AND relpersistence = 'p') THEN
    youngest := 0;
  END IF;
END
$function$;

-- To be called before the comparisons, so that what changes while they run is seen later.
CREATE OR REPLACE FUNCTION cutover.remember_catalogue(p_stream text) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
  v_since xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
  INSERT INTO cutover.checked_catalogue (stream, since, tables, columns, published, fenced)
  SELECT p_stream, v_since, t.counts, c.counts,
    -- Not pg_get_publication_tables(): it would wait for a table that is being altered. The engine publishes no parents.
    (SELECT count(*) FROM pg_publication p JOIN pg_publication_rel pr ON pr.prpubid = p.oid WHERE p.pubname = p_stream HAVING count(*) > 0),
    cutover.fenced_tables()
  FROM cutover.look_at_tables() t, cutover.look_at_columns(v_since) c
  ON CONFLICT (only_row) DO UPDATE SET stream = excluded.stream, since = excluded.since, tables = excluded.tables,
    columns = excluded.columns, published = excluded.published, fenced = excluded.fenced;
END
$function$;

-- Whether a look differs from the one remembered. True as well where nothing was remembered of this stream, or so long ago that
-- transaction numbers may have come round.
CREATE OR REPLACE FUNCTION cutover.differs(p_since xid8, p_remembered bigint[], p_counts bigint[], p_youngest integer) RETURNS boolean
LANGUAGE sql AS $function$
  SELECT p_counts IS DISTINCT FROM p_remembered OR p_youngest <= age(p_since::xid)
    OR pg_snapshot_xmin(pg_current_snapshot())::text::numeric - p_since::text::numeric > 1e9
$function$;

CREATE OR REPLACE FUNCTION cutover.tables_changed(p_stream text) RETURNS boolean LANGUAGE sql AS $function$
  SELECT coalesce((SELECT cutover.differs(k.since, k.tables, l.counts, l.youngest)
    FROM cutover.checked_catalogue k, cutover.look_at_tables() l WHERE k.stream = p_stream), true)
$function$;

CREATE OR REPLACE FUNCTION cutover.columns_changed(p_stream text) RETURNS boolean LANGUAGE sql AS $function$
  SELECT coalesce((SELECT cutover.differs(k.since, k.columns, l.counts, l.youngest)
    FROM cutover.checked_catalogue k, cutover.look_at_columns(k.since) l WHERE k.stream = p_stream), true)
$function$;
`;

/**
 * Ahead of the pause, before the comparisons: from here on a change of the catalogue of this side is noticed. May be called again.
 *
 * @param stream the publication or subscription of that name
 */
export async function rememberCatalogue(connection: Connection, stream: string): Promise<void> {
  await connection.query('SELECT cutover.remember_catalogue($1)', [stream]);
}

/** Whether which tables are moved, published, applied to or fenced may have changed since; a wrong `true` costs only time. */
export function tablesChanged(connection: Connection, stream: string): Promise<boolean> {
  return changed(connection, 'tables_changed', stream);
}

/** Whether names, columns or keys of tables may have changed since; a wrong `true` costs only time. */
export function columnsChanged(connection: Connection, stream: string): Promise<boolean> {
  return changed(connection, 'columns_changed', stream);
}

async function changed(
  connection: Connection,
  what: 'tables_changed' | 'columns_changed',
  stream: string,
): Promise<boolean> {
  const { rows } = await connection.query<{ changed: boolean }>({
    name: `cutover_${what}`,
    text: `SELECT cutover.${what}($1) AS changed`,
    values: [stream],
  });
  return rows[0]?.changed !== false;
}
