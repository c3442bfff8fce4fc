/**
 * One task: tell which physical standbys of a side have not flushed what the side has written.
 *
 * A seal that no standby has is undone by a fail-over to it, after the destination has opened. So the commit waits for every
 * standby that streams now (docs/protocol.md, step 3). One that is not connected is not seen, and an operator must not promote it.
 */
import type { Connection } from './connection.js';

export interface StandbyAnswer {
  /** the position that was asked for; to be handed in again at the next look */
  readonly target: string;
  /** sentences: who is behind, by name; empty when all have flushed `target` */
  readonly behind: readonly string[];
}

/**
 * Walsenders without a logical slot, but neither a base backup nor pg_receivewal, which are no servers to fail over to. To a
 * role without pg_monitor every column but the pid is hidden (PostgreSQL documentation, 27.2.1): such a row counts as behind.
 */
const STANDBYS_SQL = {
  name: 'cutover_standbys',
  text: `
  SELECT t.target::text AS target, coalesce((
    SELECT array_agg('standby "' || coalesce(nullif(r.application_name, ''), 'pid ' || r.pid) || '"' || CASE
        WHEN r.flush_lsn IS NULL THEN ' does not say how far it is'
        ELSE ' is ' || pg_wal_lsn_diff(t.target, r.flush_lsn) || ' bytes behind' END ORDER BY r.pid)
    FROM pg_stat_replication r
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
      AND r.state IS DISTINCT FROM 'backup' AND (r.application_name IN ('pg_receivewal', 'pg_basebackup')) IS NOT TRUE
      AND (r.flush_lsn IS NULL OR pg_wal_lsn_diff(t.target, r.flush_lsn) > $2::float8)), '{}') AS behind
  FROM (SELECT coalesce($1::pg_lsn, pg_current_wal_lsn()) AS target) AS t`,
};

/**
 * One look at the standbys of `side`.
 *
 * @param target null at the first look: the end of what is written now
 * @param toleranceBytes how far one may be behind and still count as level
 */
export async function standbysBehind(
  side: Connection,
  target: string | null,
  toleranceBytes = 0,
): Promise<StandbyAnswer> {
  const { rows } = await side.query<StandbyAnswer>({ ...STANDBYS_SQL, values: [target, toleranceBytes] });
  return rows[0] ?? { target: target ?? '0/0', behind: ['no answer'] };
}
