/** One task: tell how a table can be compared: which columns, by which key, and whether both servers sort that key alike. */
import type { Connection } from '../connection.js';
import { qualified, type TableName } from '../fence.js';

interface Column {
  readonly name: string;
  /** as a cast takes it */
  readonly type: string;
  /** its order is that of the bytes, or of the numbers: the same on every server */
  readonly ordered: boolean;
}

/**
 * How the rows of a table are found again on the other side.
 * - `range`: both servers sort the key alike, so a range of keys holds the same rows on both
 * - `lookup`: they may sort it differently; each row is looked for by its key
 * - `whole`: no key; the table is compared as a bag of rows
 */
export type Mode = 'range' | 'lookup' | 'whole';

export interface ComparedTable extends TableName {
  /** in the order of the side that serves; the other side may have another order */
  readonly columns: readonly string[];
  readonly key: readonly Column[];
  readonly mode: Mode;
}

/** Types whose order needs no collation. */
const ORDERED_TYPES = [
  ...['smallint', 'integer', 'bigint', 'oid', 'numeric', 'real', 'double precision', 'boolean', 'uuid', 'bytea'],
  ...['date', 'timestamp without time zone', 'timestamp with time zone'],
];

const COLUMNS_SQL = `
  SELECT a.attname AS name, format_type(a.atttypid, -1) AS type,
    format_type(a.atttypid, NULL) = ANY($2) OR (format_type(a.atttypid, NULL) IN ('text', 'character varying')
      AND CASE l.collname WHEN 'default' THEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'b'
          OR (coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' AND d.datcollate IN ('C', 'POSIX'))
        ELSE l.collname IN ('C', 'POSIX', 'ucs_basic') END) AS ordered
  FROM pg_attribute a JOIN pg_database d ON d.datname = current_database()
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
  WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
  ORDER BY a.attnum`;

/**
 * A key has no NULL, every row has one, and no two rows have the same. The primary key first, then the replica identity. A type of an
 * extension is passed over: its operators are not in pg_catalog, and no other schema is searched by a role with such rights.
 */
const KEY_SQL = `
  SELECT ARRAY(
      SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS key
  FROM pg_index i
  WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND NOT i.indisexclusion
    AND i.indpred IS NULL AND i.indexprs IS NULL
    AND NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
      WHERE a.attrelid = i.indrelid AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])
        AND NOT (a.attnotnull
          AND (t.typtype = 'e' OR coalesce(b.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace)))
  ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, i.indexrelid LIMIT 1`;

/**
 * What both sides say of a table.
 *
 * @returns the way to compare it, or in words why its rows cannot be compared: it is not there, or lacks columns
 */
export async function describeTable(
  serving: Connection,
  other: Connection,
  table: TableName,
): Promise<ComparedTable | string> {
  const name = qualified(table);
  const [here, there] = await Promise.all([columnsOf(serving, name), columnsOf(other, name)]);
  if (here.length === 0) return 'the table is gone on the side that serves';
  if (there.length === 0) return 'the table is missing';
  const lacking = here.filter((column) => !there.some((c) => c.name === column.name)).map((c) => c.name);
  if (lacking.length > 0) return `columns are missing: ${lacking.join(', ')}`;
  const names = await keyOf(serving, name);
  const key = names.flatMap((column) => here.filter((c) => c.name === column));
  const alike = key.every((column) => {
    const twin = there.find((c) => c.name === column.name);
    return twin?.type === column.type && twin.ordered && column.ordered;
  });
  const mode = key.length === 0 ? 'whole' : alike ? 'range' : 'lookup';
  return { ...table, columns: here.map((c) => c.name), key, mode };
}

async function columnsOf(connection: Connection, name: string): Promise<readonly Column[]> {
  return (await connection.query<Column>(COLUMNS_SQL, [name, ORDERED_TYPES])).rows;
}

async function keyOf(connection: Connection, name: string): Promise<readonly string[]> {
  return (await connection.query<{ key: readonly string[] }>(KEY_SQL, [name])).rows[0]?.key ?? [];
}
