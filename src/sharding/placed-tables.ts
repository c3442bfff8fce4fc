/**
 * One task: tell whether a change of the schema leaves the rows of every table where the rules of sharding look for them.
 *
 * A rule names a column or a table. When that is dropped, renamed or comes to be in another place, another rule holds from then on, and the
 * rows are still where the first one put them: they would be missed, or answered once for each shard.
 */
import { isDeepStrictEqual } from 'node:util';
import { notOfExtension, USER_SCHEMAS } from '../postgres/coordinator/shape.js';
import { ruleOf, type Rule, type ShardingScheme } from './scheme.js';
import { keyTypeOf } from './statement-keys.js';

interface PlacedColumn {
  readonly name: string;
  /** stays what it is when the column gets another name */
  readonly number: number;
  /** `pg_type.typname` */
  readonly type: string;
  /** equal values are equal bytes */
  readonly exact: boolean;
}

export interface PlacedTable {
  /** stays what it is when the table gets another name */
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly PlacedColumn[];
}

/** One value, in hexadecimal digits, whatever the encoding of the session is. To be asked with the search_path `pg_catalog`. */
export const PLACED_TABLES = `
  SELECT encode(convert_to(coalesce(json_agg(t), '[]')::text, 'UTF8'), 'hex') AS tables FROM (
    SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name,
      (SELECT coalesce(json_agg(json_build_object('name', a.attname, 'number', a.attnum, 'type', y.typname,
          'exact', coalesce(l.collisdeterministic, true)) ORDER BY a.attnum), '[]')
        FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ${USER_SCHEMAS} AND ${notOfExtension('pg_class', 'c.oid')}) AS t`;

/** What {@link PLACED_TABLES} answers. */
export function placedTablesOf(hex: string): readonly PlacedTable[] {
  return JSON.parse(Buffer.from(hex, 'hex').toString('utf8')) as readonly PlacedTable[];
}

/** `always`: also when the table is empty. */
export interface PlacementProblem {
  readonly table: PlacedTable;
  readonly reason: string;
  readonly always: boolean;
}

/** The tables for which the rules do not hold as they did before; what was wrong before is passed over. */
export function placementProblems(
  scheme: ShardingScheme,
  before: readonly PlacedTable[],
  after: readonly PlacedTable[],
): readonly PlacementProblem[] {
  const earlier = new Map(before.map((table) => [table.oid, table]));
  return after.flatMap((table) => problemOf(scheme, earlier.get(table.oid), table) ?? []);
}

function problemOf(
  scheme: ShardingScheme,
  before: PlacedTable | undefined,
  table: PlacedTable,
): PlacementProblem | null {
  const name = `${table.schema}.${table.name}`;
  const [was, is] = [before === undefined ? null : placeOf(scheme, before), placeOf(scheme, table)];
  if (is.unknownKey !== null && is.unknownKey !== was?.unknownKey)
    return { table, reason: `${name}.${is.unknownKey}, so no row would find its shard`, always: true };
  if (was === null || isDeepStrictEqual(was.place, is.place)) return null;
  return {
    table,
    reason: `the rows of ${name} are on their shards by ${was.told}, and would be looked for by ${is.told}`,
    always: false,
  };
}

interface Placed {
  /** rows stay where they are as long as this is the same */
  readonly place: { readonly rule: Rule; readonly keyNumber: number | null };
  readonly told: string;
  /** the sharding column with its type, where that cannot be hashed */
  readonly unknownKey: string | null;
}

function placeOf(scheme: ShardingScheme, table: PlacedTable): Placed {
  const rule = ruleOf(scheme, { ...table, columns: table.columns.map(({ name }) => name) });
  if (rule.kind === 'shard')
    return { place: { rule, keyNumber: null }, told: `the rule of schema ${table.schema}`, unknownKey: null };
  if (rule.kind !== 'sharded')
    return { place: { rule: EVERYWHERE, keyNumber: null }, told: 'no column, on every shard', unknownKey: null };
  const column = table.columns.find(({ name }) => name === rule.column);
  const known = column?.exact === true && keyTypeOf(column.type) === rule.type;
  return {
    // Under another name the same column still tells.
    place: { rule: { ...rule, column: '' }, keyNumber: column?.number ?? null },
    told: `the column ${rule.column}`,
    unknownKey: known ? null : `${rule.column} is of type ${column?.type ?? 'unknown'} and not ${rule.type}`,
  };
}

const EVERYWHERE: Rule = { kind: 'omnisharded', sticky: false };
