/** One task: tell which tables are copied in ranges of their pages, and cut each into ranges. */
import type { Connection } from '../connection.js';
import type { TableName } from '../fence.js';
import type { PublishedTable } from '../streams.js';

/** PostgreSQL 14 is the first that finds a range of ctid without reading the pages before it (release notes, E.4). */
export const TID_RANGES_SINCE = 140000;

/** However large a table is: each range is a row of the ledger and a transaction. */
const RANGES_MAX = 10_000;

export interface PageRange {
  readonly firstPage: number;
  /** the page behind the last one; null: to the end, however far the table has grown */
  readonly endPage: number | null;
}

/** A table as it was before the snapshot that its rows are read by. */
export interface RangedTable extends PublishedTable {
  /** what is copied: a generated column is computed by the destination */
  readonly columns: readonly string[];
  /** another one since then: it was rewritten, and its rows lie elsewhere */
  readonly filenode: string;
  readonly ranges: readonly PageRange[];
}

interface Shape extends TableName {
  readonly filenode: string;
  readonly bytes: number;
  readonly pages: number;
  readonly columns: readonly string[];
}

/** Of those whose rows lie in PostgreSQL's own pages, largest first; a table without a column to copy has nothing to be read by ranges. */
const SHAPES = `
  SELECT * FROM (
    SELECT t.schema, t.name AS "table", pg_relation_filenode(c.oid)::text AS filenode, pg_table_size(c.oid)::float8 AS bytes,
      (pg_relation_size(c.oid) / current_setting('block_size')::bigint)::float8 AS pages,
      ARRAY(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns
    FROM unnest($1::text[], $2::text[]) AS t (schema, name)
    JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
    JOIN pg_am am ON am.oid = c.relam WHERE am.amname = 'heap') AS shape
  WHERE cardinality(columns) > 0 ORDER BY bytes DESC, schema, "table"`;

async function shapesOf(publisher: Connection, tables: readonly TableName[]): Promise<readonly Shape[]> {
  const { rows } = await publisher.query<Shape>(SHAPES, [tables.map((t) => t.schema), tables.map((t) => t.table)]);
  return rows;
}

/** The tables that have more on disk than that and can be copied in ranges. */
export async function largerThan(
  publisher: Connection,
  tables: readonly TableName[],
  limitBytes: number,
): Promise<readonly TableName[]> {
  const shapes = await shapesOf(publisher, tables);
  return shapes.filter(({ bytes }) => bytes > limitBytes).map(({ schema, table }) => ({ schema, table }));
}

/** The tables with their ranges, largest first. */
export async function cutTables(
  publisher: Connection,
  tables: readonly PublishedTable[],
  rangeBytes: number,
): Promise<readonly RangedTable[]> {
  const byName = new Map(tables.map((table) => [`${table.schema}.${table.table}`, table]));
  const shapes = await shapesOf(publisher, tables);
  return shapes.map(({ schema, table, columns, filenode, bytes, pages }) => ({
    ...{ schema, table, columns, filenode },
    ...byName.get(`${schema}.${table}`),
    ranges: cut(pages, bytes, rangeBytes),
  }));
}

/**
 * Every page is in one range; the last range has no end. Pure.
 *
 * @param bytes of the whole table on disk, with what is stored apart from its rows
 * @param rangeBytes about as much is a range; 0: all of it
 */
export function cut(pages: number, bytes: number, rangeBytes: number): readonly PageRange[] {
  const wanted = rangeBytes > 0 ? Math.ceil(bytes / rangeBytes) : 1;
  const each = Math.ceil(pages / Math.max(1, Math.min(wanted, RANGES_MAX)));
  const ranges: PageRange[] = [];
  for (let firstPage = 0; ranges.length === 0 || firstPage < pages; firstPage += Math.max(1, each)) {
    const endPage = firstPage + Math.max(1, each);
    ranges.push({ firstPage, endPage: endPage < pages ? endPage : null });
  }
  return ranges;
}
