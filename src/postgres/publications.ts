/** One task: tell which tables a migration moves: those the user's publication names, or every table. */
import { CutoverError } from '../errors/errors.js';
import type { Connection } from './connection.js';
import type { TableName } from './fence.js';

/** Tables that hold rows: not partitioned parents, temporary, unlogged, extension or `cutover` tables. */
const ALL_TABLES = `
  SELECT n.nspname AS schema, c.relname AS table
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('cutover', 'cutover_shards', 'information_schema') AND n.nspname !~ '^pg_'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY 1, 2`;

/**
 * The table set of `publication`; its filters and column lists are not used: a move takes whole tables.
 *
 * @throws CutoverError `publication_unknown`
 */
export async function publishedTables(source: Connection, publication: string | null): Promise<readonly TableName[]> {
  if (publication === null) return (await source.query<TableName>(ALL_TABLES)).rows;
  const known = await source.query('SELECT FROM pg_publication WHERE pubname = $1', [publication]);
  if (known.rows.length === 0)
    throw new CutoverError('publication_unknown', { publication, database: source.database ?? '' });
  const { rows } = await source.query<TableName>(
    `SELECT DISTINCT coalesce(l.schema, t.schemaname) AS schema, coalesce(l.name, t.tablename) AS table
     FROM pg_publication_tables t
     JOIN pg_class c ON c.relname = t.tablename JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname
     LEFT JOIN LATERAL (
       SELECT ln.nspname AS schema, lc.relname AS name FROM pg_partition_tree(c.oid) p
       JOIN pg_class lc ON lc.oid = p.relid JOIN pg_namespace ln ON ln.oid = lc.relnamespace WHERE p.isleaf
     ) l ON c.relkind = 'p'
     WHERE t.pubname = $1 AND t.schemaname NOT IN ('cutover', 'cutover_shards') ORDER BY 1, 2`,
    [publication],
  );
  return rows;
}

/** The tables with their sizes on disk (bytes), largest first. */
export async function tableSizes(
  source: Connection,
  tables: readonly TableName[],
): Promise<readonly (TableName & { bytes: number })[]> {
  const { rows } = await source.query<TableName & { bytes: number }>(
    `SELECT t.schema, t.name AS table, pg_table_size(format('%I.%I', t.schema, t.name)::regclass)::float8 AS bytes
     FROM unnest($1::text[], $2::text[]) AS t (schema, name) ORDER BY 3 DESC, 1, 2`,
    [tables.map((t) => t.schema), tables.map((t) => t.table)],
  );
  return rows;
}

/** The tables with the partitioned parents above them: what has to be fenced so that no write passes. */
export async function withParents(connection: Connection, tables: readonly TableName[]): Promise<readonly TableName[]> {
  const { rows } = await connection.query<TableName>(
    `SELECT DISTINCT n.nspname AS schema, c.relname AS table
     FROM unnest($1::text[], $2::text[]) AS t (schema, name)
     CROSS JOIN LATERAL (
       SELECT format('%I.%I', t.schema, t.name)::regclass AS relid
       UNION SELECT relid FROM pg_partition_ancestors(format('%I.%I', t.schema, t.name)::regclass)
     ) a JOIN pg_class c ON c.oid = a.relid JOIN pg_namespace n ON n.oid = c.relnamespace
     ORDER BY 1, 2`,
    [tables.map((t) => t.schema), tables.map((t) => t.table)],
  );
  return rows;
}
