/** One task: read from the coordinator's statistics by which columns there are few groups. */
import type { Connection } from '../connection.js';
import { takesStates } from './deviation-proof.js';

/** Columns whose values are few, with how many they are, by {@link columnKey}. */
export type FewValues = ReadonlyMap<string, number>;

/** Names cannot contain a zero byte, so no two columns share a key. */
export function columnKey(schema: string, table: string, column: string): string {
  return [schema, table, column].join('\0');
}

/**
 * A state is read for some microseconds and saves a tenth of one for each row: for every group there must be some hundred rows.
 * Nobody knows how many groups a read will have; the statistics know of which columns there cannot be many.
 */
export const GROUPS_MAX = 1_000;

/** Of tables that have a numeric column: of all, this would take seconds with thousands of tables. A superuser may read it. */
const FEW_VALUES = `
  SELECT n.nspname AS schema, c.relname AS table, a.attname AS column, max(s.stadistinct)::float8 AS values
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_statistic s ON s.starelid = c.oid
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = s.staattnum
  WHERE c.relkind IN ('p', 'f') AND n.nspname !~ '^(pg_|cutover|information_schema$)' AND s.stadistinct BETWEEN 1 AND $1
    AND EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = c.oid AND x.atttypid = 'numeric'::regtype)
  GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`;

/**
 * Of the coordinator, as it has been made and analysed. Never throws: without it deviations take longer.
 *
 * @returns null: it does not send the aggregates to its shards
 */
export async function readFewValues(coordinator: Connection): Promise<FewValues | null> {
  try {
    if (!(await takesStates(coordinator))) return null;
    const { rows } = await coordinator.query<{ schema: string; table: string; column: string; values: number }>(
      FEW_VALUES,
      [GROUPS_MAX],
    );
    return new Map(rows.map(({ schema, table, column, values }) => [columnKey(schema, table, column), values]));
  } catch {
    return null;
  }
}
