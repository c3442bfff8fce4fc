/** One task: tell how far the tables have come that are copied into a database in ranges. */
import type { Connection } from '../connection.js';
import type { TableName } from '../fence.js';

export interface RangedProgress extends TableName {
  readonly stream: string;
  /** of ranges that are done and of those under way */
  readonly rows: number;
  readonly bytes: number;
  /** when this attempt has begun */
  readonly startedAt: Date;
  readonly sql: string;
}

const PROGRESS = `
  SELECT schema, "table", stream, sum(rows)::float8 AS rows, sum(bytes)::float8 AS bytes, r.begun_at AS "startedAt",
    format('COPY %I.%I FROM STDIN', schema, "table") AS sql
  FROM (
    SELECT stream, schema, "table", rows, bytes FROM cutover.copied_range
    UNION ALL
    SELECT substring(a.application_name FROM '^(.*)_copy$'), n.nspname, c.relname, p.tuples_processed, p.bytes_processed
    FROM pg_stat_progress_copy p JOIN pg_stat_activity a ON a.pid = p.pid
    JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.datname = current_database() AND p.command = 'COPY FROM' AND a.application_name ~ '^cutover_.*_copy$') AS came
  JOIN cutover.range_copy r ON starts_with(came.stream, 'cutover_' || r.migration || '_')
  GROUP BY schema, "table", stream, r.begun_at ORDER BY 5 DESC`;

/** One row for each table and stream that has begun; nothing once the streams run. */
export async function rangedProgress(destination: Connection): Promise<readonly RangedProgress[]> {
  const { rows } = await destination.query<{ present: boolean }>(
    `SELECT to_regclass('cutover.copied_range') IS NOT NULL AS present`,
  );
  if (rows[0]?.present !== true) return [];
  return (await destination.query<RangedProgress>(PROGRESS)).rows;
}
