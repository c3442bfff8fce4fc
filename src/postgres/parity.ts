/**
 * One task: prove that a destination has applied and flushed everything the source acknowledged before its seal.
 *
 * The marker row is the last thing the seal wrote: when it is visible, everything before it has been applied. The
 * replication origin says that it is flushed. An LSN alone would be blind to a source that failed over.
 */
import type { Connection } from './connection.js';

export interface SealMark {
  readonly subscription: string;
  /** system identifier of the sealed cluster */
  readonly cluster: string;
  readonly shard: number;
  readonly epoch: number;
  readonly nonce: string;
  readonly lsn: string;
  /** how many tables the sealed publication has, the marker included; null where the seal did not say */
  readonly tables: number | null;
  /** what applyProblems() said before the pause; null where the server does not count them */
  readonly applyProblems: number | null;
}

export interface ParityAnswer {
  readonly level: boolean;
  /** what is missing, as words; empty when level */
  readonly missing: string;
}

/**
 * What an apply worker counts when it could not do as the publisher did: errors, and from 18 on conflicts that it passed over.
 * Not `*_origin_differs`: a row that the copy brought has another origin than its first change.
 */
const APPLY_PROBLEMS = `(
    SELECT coalesce(sum(counter.value::bigint), 0)::float8
    FROM pg_stat_subscription_stats s CROSS JOIN LATERAL jsonb_each_text(to_jsonb(s)) AS counter (key, value)
    WHERE counter.key ~ '(_error_count$|^confl_)' AND counter.key !~ '_origin_differs$'
      AND s.subid IN (SELECT oid FROM pg_subscription WHERE subname = $1))`;

const paritySql = (problems: string): string => `
  SELECT EXISTS (SELECT FROM cutover.marker
      WHERE cluster = $2 AND shard = $3 AND epoch = $4 AND nonce = $5 AND kind = 'seal') AS marker,
    coalesce((SELECT pg_replication_origin_progress('pg_' || s.oid, true) >= $6::pg_lsn
      FROM pg_subscription s WHERE s.subname = $1 AND s.subdbid = d.oid), false) AS flushed,
    relations.*, ${problems} AS problems
  FROM pg_database d CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE r.srsubstate = 'r')::int AS ready, count(*) FILTER (WHERE r.srsubstate <> 'r')::int AS unready
    FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
    WHERE s.subname = $1 AND s.subdbid = d.oid) AS relations
  WHERE d.datname = current_database()`;

/** pg_stat_subscription_stats came with 15; the statement of an older server must not name it. */
const PARITY_SQL = { name: 'cutover_parity', text: paritySql('0::float8') };
const PARITY_WITH_PROBLEMS_SQL = { name: 'cutover_parity_problems', text: paritySql(APPLY_PROBLEMS) };

interface ParityRow {
  readonly marker: boolean;
  readonly flushed: boolean;
  readonly ready: number;
  readonly unready: number;
  readonly problems: number;
}

/** One look. Flushes the destination's own WAL up to the origin's progress (`pg_replication_origin_progress`, 9.28). */
export async function parityOf(destination: Connection, mark: SealMark): Promise<ParityAnswer> {
  const statement = mark.applyProblems === null ? PARITY_SQL : PARITY_WITH_PROBLEMS_SQL;
  const values = [mark.subscription, mark.cluster, mark.shard, mark.epoch, mark.nonce, mark.lsn];
  const { rows } = await destination.query<ParityRow>({ ...statement, values });
  const row = rows[0];
  if (!row) return { level: false, missing: 'no answer' };
  const unready = Math.max(row.unready, (mark.tables ?? 0) - row.ready);
  const problems = row.problems - (mark.applyProblems ?? 0);
  const missing = [
    ...(row.marker ? [] : ['marker not applied']),
    ...(row.flushed ? [] : ['origin not flushed']),
    ...(unready <= 0 ? [] : [`${unready.toString()} tables not ready`]),
    ...(problems === 0 ? [] : [`the apply worker met ${problems.toString()} errors or conflicts since the moment`]),
  ];
  return { level: missing.length === 0, missing: missing.join(', ') };
}

/**
 * How many errors and conflicts the subscription has met so far; a number to compare with, ahead of the pause.
 *
 * @returns null on a server before 15, which does not count them
 */
export async function applyProblems(destination: Connection, subscription: string): Promise<number | null> {
  const { rows } = await destination.query<{ known: boolean }>(
    `SELECT to_regclass('pg_catalog.pg_stat_subscription_stats') IS NOT NULL AS known`,
  );
  if (rows[0]?.known !== true) return null;
  const counted = await destination.query<{ problems: number }>(`SELECT ${APPLY_PROBLEMS} AS problems`, [subscription]);
  return counted.rows[0]?.problems ?? null;
}

/** Whether the canary of `ready(epoch)`, written on shard `shard` of the destination, in `cluster`, has arrived on `source`: the way back works. */
export async function canaryArrived(
  source: Connection,
  { cluster, shard, epoch, nonce }: Pick<SealMark, 'cluster' | 'shard' | 'epoch' | 'nonce'>,
): Promise<boolean> {
  const { rows } = await source.query({
    name: 'cutover_canary',
    text: `SELECT FROM cutover.marker WHERE cluster = $1 AND shard = $2 AND epoch = $3 AND nonce = $4 AND kind = 'canary'`,
    values: [cluster, shard, epoch, nonce],
  });
  return rows.length > 0;
}

/** Removes the canaries that `cluster`, the side of this connection, wrote: for a side no stream leaves. May be called again. */
export async function forgetCanaries(connection: Connection, cluster: string): Promise<void> {
  await connection.query(`DELETE FROM cutover.marker WHERE cluster = $1 AND kind = 'canary'`, [cluster]);
}
