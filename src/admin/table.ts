/** One task: make an `AdminResult` of rows and a list of columns. */
import { suggest } from '../config/suggest.js';
import { CutoverError } from '../errors/errors.js';
import type { AdminColumn, AdminResult } from '../proxy/contract.js';
import { formatTime } from './format.js';

export type Cell = string | number | boolean | Date | null;

export interface Column<Row> extends AdminColumn {
  value(row: Row): Cell;
}

export function text<Row>(name: string, value: (row: Row) => Cell): Column<Row> {
  return { name, type: 'text', value };
}

export function bigint<Row>(name: string, value: (row: Row) => number | null): Column<Row> {
  return { name, type: 'bigint', value: (row) => rounded(value(row)) };
}

export function numeric<Row>(name: string, value: (row: Row) => number | null, decimals = 3): Column<Row> {
  return { name, type: 'numeric', value: (row) => value(row)?.toFixed(decimals) ?? null };
}

export function bool<Row>(name: string, value: (row: Row) => boolean | null): Column<Row> {
  return { name, type: 'bool', value };
}

/** Rows of SHOW, in the order given. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[], tag = 'SHOW'): AdminResult {
  return {
    tag,
    columns: columns.map(({ name, type }) => ({ name, type })),
    rows: rows.map((row) => columns.map((column) => encoded(column.value(row)))),
  };
}

/**
 * The columns a client asked for by name, plus those that tell the rows apart; all of them when it asked for none,
 * but for those that PgDog does not have.
 *
 * @param own columns that are shown only to who names them
 *
 * @throws CutoverError `admin_syntax` for a name that is not a column
 */
export function selected<Row>(
  columns: readonly Column<Row>[],
  names: readonly string[],
  always: readonly string[],
  own: readonly Column<Row>[] = [],
): readonly Column<Row>[] {
  const all = [...columns, ...own];
  const known = all.map((column) => column.name);
  const wanted = new Set([...names.map((name) => name.toLowerCase()), ...always]);
  if (names.length === 0) return columns;
  for (const name of wanted) {
    if (known.includes(name)) continue;
    const meant = suggest(name, known);
    const usage = meant === null ? `The columns are ${known.join(', ')}.` : `Did you mean ${meant}?`;
    throw new CutoverError('admin_syntax', { problem: `there is no column "${name}"`, usage });
  }
  return all.filter((column) => wanted.has(column.name));
}

/** A command that answers with its tag alone. */
export function done(tag: string, notices: readonly string[] = []): AdminResult {
  return { tag, columns: [], rows: [], notices };
}

function encoded(cell: Cell): string | null {
  if (cell === null) return null;
  if (cell instanceof Date) return formatTime(cell);
  if (typeof cell === 'boolean') return cell ? 't' : 'f';
  return cell.toString();
}

function rounded(value: number | null): number | null {
  return value === null ? null : Math.round(value);
}
