/**
 * One task: tell how a table whose replica identity lacks its sharding columns can get one that has them: by a unique index, by the whole
 * row, or not at all.
 *
 * A row filter may name columns of the replica identity only, or UPDATE and DELETE are refused (PostgreSQL documentation, 29.4). The index must
 * never refuse a row that the application could write without it: it is made of a key that is unique already, compared as that key is, and its
 * rows are sure to fit in a page of a B-tree. Changes nothing.
 */
import type { Connection } from './connection.js';
import type { TableName } from './fence.js';

/** Columns that the replica identity of a table must have. */
export interface WantedIdentity extends TableName {
  readonly columns: readonly string[];
}

/** A table whose replica identity lacks a wanted column. */
export interface IdentityPlan extends TableName {
  /** as `public.orders`, quoted where it must be */
  readonly name: string;
  readonly lacking: readonly string[];
  /** null: neither would do */
  readonly way: 'index' | 'full' | null;
  /** of the index: the key that tells rows apart, then what is lacking; empty for the other ways */
  readonly columns: readonly string[];
  /** why it is not the index, and for null why not the whole row either; empty for an index */
  readonly reason: string;
}

interface Found extends TableName {
  readonly name: string;
  readonly identity: string;
  readonly key: readonly string[];
  readonly lacking: readonly string[];
  /** compared by the operators and collations that a new index would use */
  readonly plain: boolean | null;
  readonly nullable: readonly string[];
  /** the most bytes a row of the index may have; null: no limit is known */
  readonly bytes: number | null;
  readonly mayCreate: boolean;
  readonly generated: readonly string[];
  readonly incomparable: readonly string[];
}

/** A third of a page, less what the index itself adds (PostgreSQL documentation, 64.1.4.1: limits of B-tree). */
const INDEX_ROW_BYTES_MAX = 2_000;
/** INDEX_MAX_KEYS of a server as it is built by everybody */
const INDEX_COLUMNS_MAX = 32;

/**
 * Of a table `c`: its columns that cannot be compared. A type can be when it, or one it is binary-coercible to, has a default btree or hash
 * operator class.
 */
export const INCOMPARABLE_COLUMNS = `ARRAY(SELECT a.attname::text FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        AND y.typtype = 'b' AND y.typcategory <> 'A' AND y.oid NOT IN (SELECT type FROM comparable)
        AND NOT EXISTS (SELECT FROM pg_cast k WHERE k.castsource = y.oid AND k.castmethod = 'b'
          AND k.casttarget IN (SELECT type FROM comparable)))`;
/** The CTE that INCOMPARABLE_COLUMNS asks. */
export const COMPARABLE = `comparable AS (
    SELECT o.opcintype AS type FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
    WHERE o.opcdefault AND m.amname IN ('btree', 'hash')
  )`;

/** The most bytes that a value of a column `a` takes in an index, NULL where nothing limits it. The modifiers are PostgreSQL's own encoding of varchar(n) and numeric(p, s). */
const VALUE_BYTES = `CASE WHEN a.attlen > 0 THEN a.attlen + 8
  WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4 THEN 4 * (a.atttypmod - 4) + 8
  WHEN a.atttypid = 'numeric'::regtype AND a.atttypmod > 4 THEN ((a.atttypmod - 4) >> 16) + 24 END`;

const FOUND = `
  WITH ${COMPARABLE}, wanted AS (
    SELECT c.oid, n.nspname AS schema, c.relname AS "table", c.relreplident AS identity, t.columns,
      coalesce(pg_get_replica_identity_index(c.oid), (SELECT i.indexrelid FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)) AS key,
      pg_get_replica_identity_index(c.oid) IS NOT NULL AS identified,
      has_schema_privilege(n.oid, 'CREATE') AS may_create
    FROM json_to_recordset($1) AS t (schema text, "table" text, columns text[])
    JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t."table"
  ), keyed AS (
    SELECT w.*, ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
      WHERE i.indexrelid = w.key AND k.place <= i.indnkeyatts ORDER BY k.place) AS key_columns
    FROM wanted w
  )
  SELECT k.schema, k."table", format('%I.%I', k.schema, k."table") AS name, k.identity, k.key_columns AS key, k.may_create AS "mayCreate",
    ARRAY(SELECT u FROM unnest(k.columns) AS u WHERE NOT (k.identified AND u = ANY (k.key_columns))) AS lacking,
    (SELECT NOT EXISTS (SELECT FROM unnest(i.indclass::oid[], i.indcollation::oid[], (i.indkey::int2[])[0:i.indnkeyatts - 1]) AS p (class, sorted, number)
        LEFT JOIN pg_opclass o ON o.oid = p.class LEFT JOIN pg_attribute a ON a.attrelid = k.oid AND a.attnum = p.number
        WHERE o.opcdefault IS NOT TRUE OR p.sorted IS DISTINCT FROM a.attcollation)
      FROM pg_index i WHERE i.indexrelid = k.key) AS plain,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.oid AND a.attname = ANY (k.columns) AND NOT a.attnotnull ORDER BY 1) AS nullable,
    (SELECT CASE WHEN bool_and(b IS NOT NULL) THEN sum(b) END::int FROM (SELECT ${VALUE_BYTES} AS b FROM pg_attribute a
      WHERE a.attrelid = k.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY (k.key_columns || k.columns)) AS v) AS bytes,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.oid AND a.attgenerated <> '' AND NOT a.attisdropped ORDER BY 1) AS generated,
    (SELECT ${INCOMPARABLE_COLUMNS} FROM pg_class c WHERE c.oid = k.oid) AS incomparable
  FROM keyed k WHERE k.identity <> 'f' ORDER BY 1, 2`;

/** Those of the tables whose replica identity lacks a column, with what can be done about it. */
export async function planIdentities(
  connection: Connection,
  wanted: readonly WantedIdentity[],
): Promise<readonly IdentityPlan[]> {
  const { rows } = await connection.query<Found>(FOUND, [JSON.stringify(wanted)]);
  return rows.filter(({ lacking }) => lacking.length > 0).map(planOf);
}

function planOf(found: Found): IdentityPlan {
  const { schema, table, name, lacking } = found;
  const columns = [...found.key, ...lacking.filter((column) => !found.key.includes(column))];
  const plan = { schema, table, name, lacking };
  const noIndex = whyNoIndex(found, columns);
  if (noIndex === null) return { ...plan, way: 'index', columns, reason: '' };
  const notWhole = whyNotWhole(found);
  if (notWhole === null) return { ...plan, way: 'full', columns: [], reason: noIndex };
  return { ...plan, way: null, columns: [], reason: `${noIndex}; ${notWhole}` };
}

function whyNoIndex(found: Found, columns: readonly string[]): string | null {
  if (found.key.length === 0) return 'nothing tells its rows apart';
  if (found.nullable.length > 0) return `${found.nullable.join(', ')} may be NULL`;
  const computed = found.generated.filter((column) => columns.includes(column));
  if (computed.length > 0) return `${computed.join(', ')} is generated`;
  if (found.plain !== true) return 'its key is compared in a way of its own';
  if (columns.length > INDEX_COLUMNS_MAX) return 'its key has too many columns';
  if (found.bytes === null || found.bytes > INDEX_ROW_BYTES_MAX)
    return 'values of its key may be too long for an index';
  return found.mayCreate ? null : `the schema_admin may create nothing in the schema ${found.schema}`;
}

/** PostgreSQL 18 refuses the UPDATE of such a table with a generated column; without a key its rows are found by comparing all of them. */
function whyNotWhole({ generated, key, incomparable }: Found): string | null {
  if (generated.length > 0)
    return `with REPLICA IDENTITY FULL the generated column ${generated.join(', ')} stands in the way`;
  if (key.length === 0 && incomparable.length > 0)
    return `with REPLICA IDENTITY FULL ${incomparable.join(', ')} cannot be compared`;
  return null;
}
