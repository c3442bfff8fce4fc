/**
 * One task: let those who may read a table at the coordinator read its parts by their own names too: what the shards aggregate by themselves
 * is asked of each part.
 *
 * PostgreSQL looks at the privileges of the table that a statement names, and not at those of its partitions.
 */
import type { Connection } from '../connection.js';
import { USER_SCHEMAS } from './shape.js';

/** Of a table, and of single columns. The owner's own privileges are written down once others are granted: until then they go without saying. */
const GRANTS = `
  WITH part AS (
    SELECT p.oid AS parent, p.relacl, p.relowner, format('%I.%I', m.nspname, c.relname) AS name
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace m ON m.oid = c.relnamespace
      JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace
    WHERE c.relkind = 'f' AND m.nspname ~ '^cutover_shard_[0-9]+$' AND ${USER_SCHEMAS}
  ), readable AS (
    SELECT part.name, '' AS columns, a.grantee
    FROM part, aclexplode(coalesce(part.relacl, acldefault('r', part.relowner))) a WHERE a.privilege_type = 'SELECT'
    UNION ALL
    SELECT part.name, format('(%I)', t.attname), a.grantee
    FROM part JOIN pg_attribute t ON t.attrelid = part.parent, aclexplode(t.attacl) a
    WHERE t.attnum > 0 AND NOT t.attisdropped AND a.privilege_type = 'SELECT'
  )
  SELECT format('GRANT SELECT %s ON %s TO %s', columns, name,
    CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) AS statement
  FROM readable
  UNION ALL
  SELECT format('GRANT USAGE ON SCHEMA %I TO PUBLIC', nspname) FROM pg_namespace WHERE nspname ~ '^cutover_shard_[0-9]+$'`;

/** To be called once the tables and their privileges are there. */
export async function allowParts(connection: Connection): Promise<void> {
  const { rows } = await connection.query<{ statement: string }>(GRANTS);
  const all = rows.map(({ statement }) => statement);
  if (all.length > 0) await connection.query(all.join(';\n'));
}
