/** One task: tell from the publisher and the subscriber of a stream whether what was sent was applied as it was sent. */
import type { Connection } from './connection.js';
import { stamp, STAMP_OF_S, STAMP_READABLE } from './subscription-stamp.js';

/** A worker that has run this long since an error has got past it: it is started again every wal_retrieve_retry_interval (5 s). */
const STEADY_SECONDS = 6;

/**
 * An error alone is no loss: the worker starts again and applies the same change, and a publisher that was restarted counts as an
 * error too. A *conflict* (counted from PostgreSQL 18 on) is one: the change was passed over. `*_origin_differs` is none: a row
 * that the copy brought has another origin than its first change. `to_jsonb` because the columns differ between versions.
 */
const TROUBLE = `
  SELECT s.oid::text AS oid, s.subname AS name, s.subenabled AS enabled, counted.skip,
    coalesce((counted.counters ->> 'apply_error_count')::float8, 0) AS errors,
    (SELECT coalesce(sum(c.value::bigint), 0)::float8 FROM jsonb_each_text(counted.counters) AS c (key, value)
      WHERE c.key ~ '^confl_' AND c.key !~ '_origin_differs$') AS conflicts,
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - a.backend_start)::float8, 'infinity')
      FROM pg_stat_subscription w JOIN pg_stat_activity a USING (pid)
      WHERE w.subid = s.oid AND w.relid IS NULL ORDER BY a.backend_start LIMIT 1) AS "steadySeconds",`;
const ALTERED = `CASE WHEN s.xmin::text <> ${STAMP_OF_S} THEN s.xmin::text END AS altered`;
const ALTERED_UNSEEN = `NULL::text AS altered`;
const COUNTED = `coalesce((SELECT to_jsonb(st) FROM pg_stat_subscription_stats st WHERE st.subid = s.oid), '{}') AS counters,
    nullif(s.subskiplsn, '0/0')::text AS skip`;
/** pg_stat_subscription_stats and ALTER SUBSCRIPTION ... SKIP came with 15. */
const UNCOUNTED = `'{}'::jsonb AS counters, NULL::text AS skip`;
const OF_MIGRATION = `
  WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.subname = ANY ($1) ORDER BY s.subname`;

interface TroubleRow {
  readonly oid: string;
  readonly name: string;
  readonly enabled: boolean;
  readonly errors: number;
  readonly conflicts: number;
  /** how long the apply worker has run; null when none runs, infinite where the role may not see it */
  readonly steadySeconds: number | null;
  /** the end of the transaction that the worker is told to skip */
  readonly skip: string | null;
  /** the transaction that altered it, where that was none of the engine's */
  readonly altered: string | null;
}

/**
 * Why the subscriptions of these names cannot be trusted now, as a sentence; null when they can. One that was altered by hand while no
 * error was counted is taken as it is from here on, so that a later error is not held against it; nothing else is changed.
 */
export async function applyTrouble(subscriber: Connection, names: readonly string[]): Promise<string | null> {
  const { rows: known } = await subscriber.query<{ counted: boolean; readable: boolean }>(
    `SELECT to_regclass('pg_catalog.pg_stat_subscription_stats') IS NOT NULL AS counted, ${STAMP_READABLE} AS readable`,
  );
  const counted = known[0]?.counted === true;
  const statement = `${TROUBLE} ${known[0]?.readable === true ? ALTERED : ALTERED_UNSEEN}
    FROM pg_subscription s CROSS JOIN LATERAL (SELECT ${counted ? COUNTED : UNCOUNTED}) AS counted ${OF_MIGRATION}`;
  const { rows } = await subscriber.query<TroubleRow>(statement, [names]);
  for (const row of rows) {
    const trouble = lossOf(row) ?? (await errorsOf(subscriber, row, counted)) ?? skippedByHand(row);
    if (trouble !== null) return trouble;
    if (row.altered !== null) await stamp(subscriber, row.name, row.altered);
  }
  return null;
}

function lossOf({ name, enabled, conflicts, skip }: TroubleRow): string | null {
  if (!enabled) return `subscription ${name} is disabled`;
  if (conflicts > 0)
    return `subscription ${name} passed over ${conflicts.toString()} changes in conflict with rows of its side (pg_stat_subscription_stats)`;
  return skip === null ? null : `subscription ${name} is told to skip the transaction that ends at ${skip}`;
}

/** Where errors are not counted, a worker that was just started may be one that fails and is started again and again. */
async function errorsOf(subscriber: Connection, row: TroubleRow, counted: boolean): Promise<string | null> {
  const { oid, name, errors, steadySeconds } = row;
  if (steadySeconds !== null && steadySeconds >= STEADY_SECONDS) return null;
  if (counted && errors === 0) return null;
  const met = counted
    ? `meets errors (${errors.toString()} so far)`
    : `has no apply worker that has run for ${STEADY_SECONDS.toString()} s`;
  return `subscription ${name} ${met}: the log of its server says ${counted ? 'which' : 'why'}${await truncateRefused(subscriber, oid)}`;
}

/** Nothing that the server keeps tells a SKIP that is done from another change: but nobody skips where no error was. */
function skippedByHand({ name, errors, altered }: TroubleRow): string | null {
  if (altered === null || errors === 0) return null;
  return `subscription ${name} was altered by hand while it met errors (${errors.toString()} so far): a transaction may have been skipped`;
}

/**
 * The cause that no log of the publisher shows: there the TRUNCATE was right. An apply worker truncates what the publisher did and
 * nothing more (PostgreSQL documentation, 29.8 and TRUNCATE), so a table that refers to it from outside the stream is in the way.
 */
async function truncateRefused(subscriber: Connection, subscription: string): Promise<string> {
  const { rows } = await subscriber.query<{ truncated: string; referring: string }>(
    `SELECT format('%I.%I', tn.nspname, t.relname) AS truncated, format('%I.%I', rn.nspname, r.relname) AS referring
     FROM pg_constraint k JOIN pg_subscription_rel streamed ON streamed.srrelid = k.confrelid AND streamed.srsubid = $1
     JOIN pg_class t ON t.oid = k.confrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
     JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
     WHERE k.contype = 'f' AND NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubid = $1 AND srrelid = k.conrelid)
     ORDER BY 1, 2 LIMIT 1`,
    [subscription],
  );
  const [found] = rows;
  if (!found) return '';
  return `; a TRUNCATE of ${found.truncated} cannot be applied while ${found.referring}, which is not part of the stream, refers to it`;
}

/**
 * A publication that leaves out a kind of change would lose it; null when it publishes all of them.
 *
 * @param truncate false: TRUNCATE is left out on purpose (see truncate-guard.ts), and must be
 */
export async function unpublishedChange(
  publisher: Connection,
  publication: string,
  truncate = true,
): Promise<string | null> {
  const { rows } = await publisher.query<{ whole: boolean }>(
    `SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate = $2 AS whole FROM pg_publication WHERE pubname = $1`,
    [publication, truncate],
  );
  if (rows[0] === undefined) return `publication ${publication} is gone`;
  return rows[0].whole ? null : `publication ${publication} does not publish every kind of change`;
}
