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
}

export interface ParityAnswer {
  readonly level: boolean;
  /** what is missing, as words; empty when level */
  readonly missing: string;
}

const PARITY_SQL = {
  name: 'cutover_parity',
  text: `
  SELECT EXISTS (SELECT FROM cutover.marker
      WHERE cluster = $2 AND shard = $3 AND epoch = $4 AND nonce = $5 AND kind = 'seal') AS marker,
    coalesce((SELECT pg_replication_origin_progress('pg_' || s.oid, true) >= $6::pg_lsn
      FROM pg_subscription s WHERE s.subname = $1 AND s.subdbid = d.oid), false) AS flushed,
    (SELECT count(*)::int FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
      WHERE s.subname = $1 AND s.subdbid = d.oid AND r.srsubstate <> 'r') AS unsynchronised
  FROM pg_database d WHERE d.datname = current_database()`,
};

/** One look. Flushes the destination's own WAL up to the origin's progress (`pg_replication_origin_progress`, 9.28). */
export async function parityOf(destination: Connection, mark: SealMark): Promise<ParityAnswer> {
  const { rows } = await destination.query<{ marker: boolean; flushed: boolean; unsynchronised: number }>({
    ...PARITY_SQL,
    values: [mark.subscription, mark.cluster, mark.shard, mark.epoch, mark.nonce, mark.lsn],
  });
  const row = rows[0];
  if (!row) return { level: false, missing: 'no answer' };
  const missing = [
    ...(row.marker ? [] : ['marker not applied']),
    ...(row.flushed ? [] : ['origin not flushed']),
    ...(row.unsynchronised === 0 ? [] : [`${row.unsynchronised.toString()} tables not ready`]),
  ];
  return { level: missing.length === 0, missing: missing.join(', ') };
}

/** Whether the canary of `ready(epoch)`, written on `cluster`, has arrived on `source`: the way back works. */
export async function canaryArrived(
  source: Connection,
  cluster: string,
  epoch: number,
  nonce: string,
): Promise<boolean> {
  const { rows } = await source.query({
    name: 'cutover_canary',
    text: `SELECT FROM cutover.marker WHERE cluster = $1 AND epoch = $2 AND nonce = $3 AND kind = 'canary'`,
    values: [cluster, epoch, nonce],
  });
  return rows.length > 0;
}

/** Removes the canaries that `cluster`, the side of this connection, wrote: for a side no stream leaves. May be called again. */
export async function forgetCanaries(connection: Connection, cluster: string): Promise<void> {
  await connection.query(`DELETE FROM cutover.marker WHERE cluster = $1 AND kind = 'canary'`, [cluster]);
}
