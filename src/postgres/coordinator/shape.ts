/** One task: read the tables of a shard as a coordinator needs them. */
import type { Connection } from '../connection.js';
import type { TableShape } from './spec.js';

/** Schemas that are nobody's data: PostgreSQL's own, and what Cutover keeps beside it. */
export const USER_SCHEMAS = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cutover', 'cutover_shards')
  AND n.nspname !~ '^cutover_shard_[0-9]+$'`;

/** What an extension made comes and goes with it. */
export function notOfExtension(catalogue: string, oid: string): string {
  return `NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '${catalogue}'::regclass AND d.objid = ${oid} AND d.deptype = 'e')`;
}

/** A NOT NULL that was not checked for the rows already there (PostgreSQL 18) is none that a planner may believe. */
export const TABLES = `
  SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relrowsecurity AS "rowSecurity",
    coalesce((
      SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
        'collation', CASE WHEN a.attcollation <> t.typcollation THEN format('%I.%I', cn.nspname, co.collname) END,
        'notNull', a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n'
          AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated)) ORDER BY a.attnum)
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns,
    (SELECT json_build_object('name', p.conname, 'columns', (
        SELECT json_agg(a.attname ORDER BY k.position) FROM unnest(p.conkey) WITH ORDINALITY AS k (number, position)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number))
      FROM pg_constraint p WHERE p.conrelid = c.oid AND p.contype = 'p' AND NOT p.condeferrable) AS "primaryKey"
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ${USER_SCHEMAS} AND ${notOfExtension('pg_class', 'c.oid')}`;

/** All tables of the database but temporary ones, by name. */
export async function readTables(shard: Connection): Promise<readonly TableShape[]> {
  const { rows } = await shard.query<TableShape>(
    `SELECT schema, name, "rowSecurity", columns, "primaryKey" FROM (${TABLES}) AS shape ORDER BY 1, 2`,
  );
  return rows;
}

/** The roles as which views and SECURITY DEFINER functions read: they need a way to the shards too. */
export async function readDefiners(shard: Connection): Promise<readonly string[]> {
  const { rows } = await shard.query<{ role: string }>(`
    SELECT c.relowner::regrole::oid AS oid, r.rolname AS role FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.relkind IN ('v', 'm') AND ${USER_SCHEMAS}
    UNION SELECT r.oid, r.rolname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles r ON r.oid = p.proowner
    WHERE p.prosecdef AND ${USER_SCHEMAS} ORDER BY 2`);
  return rows.map((row) => row.role);
}
