/** One task: tell from the publisher and the subscriber of a stream whether what was sent was applied as it was sent. */
import type { Connection } from './connection.js';

/** A worker that has run this long since an error has got past it: it is started again every wal_retrieve_retry_interval (5 s). */
const STEADY_SECONDS = 6;

/**
 * An error alone is no loss: the worker starts again and applies the same change, and a publisher that was restarted counts as an
 * error too. A *conflict* (counted from PostgreSQL 18 on) is one: the change was passed over. `*_origin_differs` is none: a row
 * that the copy brought has another origin than its first change. `to_jsonb` because the columns differ between versions.
 */
const TROUBLE = `
  SELECT s.subname AS name, s.subenabled AS enabled,
    coalesce((counted.counters ->> 'apply_error_count')::float8, 0) AS errors,
    (SELECT coalesce(sum(c.value::bigint), 0)::float8 FROM jsonb_each_text(counted.counters) AS c (key, value)
      WHERE c.key ~ '^confl_' AND c.key !~ '_origin_differs$') AS conflicts,
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - a.backend_start)::float8, 'infinity')
      FROM pg_stat_subscription w JOIN pg_stat_activity a USING (pid)
      WHERE w.subid = s.oid AND w.relid IS NULL ORDER BY a.backend_start LIMIT 1) AS "steadySeconds"
  FROM pg_subscription s CROSS JOIN LATERAL (`;
const COUNTED = `SELECT coalesce((SELECT to_jsonb(st) FROM pg_stat_subscription_stats st WHERE st.subid = s.oid), '{}') AS counters`;
/** pg_stat_subscription_stats came with 15. */
const UNCOUNTED = `SELECT '{}'::jsonb AS counters`;
const OF_MIGRATION = `
  ) AS counted
  WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.subname = ANY ($1) ORDER BY s.subname`;

interface TroubleRow {
  readonly name: string;
  readonly enabled: boolean;
  readonly errors: number;
  readonly conflicts: number;
  /** how long the apply worker has run; null when none runs, infinite where the role may not see it */
  readonly steadySeconds: number | null;
}

/** Why the subscriptions of these names cannot be trusted now, as a sentence; null when they can. */
export async function applyTrouble(subscriber: Connection, names: readonly string[]): Promise<string | null> {
  const { rows: known } = await subscriber.query<{ counted: boolean }>(
    `SELECT to_regclass('pg_catalog.pg_stat_subscription_stats') IS NOT NULL AS counted`,
  );
  const statement = TROUBLE + (known[0]?.counted === true ? COUNTED : UNCOUNTED) + OF_MIGRATION;
  const { rows } = await subscriber.query<TroubleRow>(statement, [names]);
  for (const row of rows) {
    const trouble = troubleOf(row);
    if (trouble !== null) return trouble;
  }
  return null;
}

function troubleOf({ name, enabled, errors, conflicts, steadySeconds }: TroubleRow): string | null {
  if (!enabled) return `subscription ${name} is disabled`;
  if (conflicts > 0)
    return `subscription ${name} passed over ${conflicts.toString()} changes in conflict with rows of its side (pg_stat_subscription_stats)`;
  if (errors > 0 && (steadySeconds === null || steadySeconds < STEADY_SECONDS))
    return `subscription ${name} meets errors (${errors.toString()} so far): the log of its server says which`;
  return null;
}

/** A publication that leaves out a kind of change would lose it; null when it publishes all of them. */
export async function unpublishedChange(publisher: Connection, publication: string): Promise<string | null> {
  const { rows } = await publisher.query<{ whole: boolean }>(
    `SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AS whole FROM pg_publication WHERE pubname = $1`,
    [publication],
  );
  if (rows[0] === undefined) return `publication ${publication} is gone`;
  return rows[0].whole ? null : `publication ${publication} does not publish every kind of change`;
}
