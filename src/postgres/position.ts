/** One task: ask a server which role it has and how far it is, and tell how far a replica is behind its primary. */
import type { Connection } from './connection.js';

/** What a server has said. */
export interface Position {
  readonly recovering: boolean;
  /** where it writes, or up to where it has replayed, in bytes since the beginning of the log */
  readonly lsn: bigint;
  /** commit of the last transaction that a replica has replayed, by the clock of its primary; null: none yet, or a primary */
  readonly replayedMs: number | null;
  /** its own clock, when it was asked */
  readonly clockMs: number;
  /** when it was asked, by the monotonic clock of this process */
  readonly askedAtMs: number;
}

export interface Lag {
  readonly bytes: number;
  /** at most; null: nobody can tell */
  readonly ms: number | null;
}

const POSITION_SQL = {
  name: 'cutover_position',
  text: `
  SELECT recovering,
    (CASE WHEN recovering THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_lsn() END - '0/0'::pg_lsn)::text AS lsn,
    CASE WHEN recovering THEN extract(epoch FROM pg_last_xact_replay_timestamp())::float8 * 1000 END AS "replayedMs",
    extract(epoch FROM clock_timestamp())::float8 * 1000 AS "clockMs"
  FROM (SELECT pg_is_in_recovery() AS recovering) AS role`,
};

/** Only reads. @throws the error of the driver */
export async function positionOf(connection: Connection): Promise<Position> {
  const askedAtMs = performance.now();
  type Row = Omit<Position, 'lsn' | 'askedAtMs'> & { readonly lsn: string };
  const { rows } = await connection.query<Row>(POSITION_SQL);
  const [row] = rows;
  if (row === undefined) throw new Error('the server did not say which role it has');
  return { ...row, lsn: BigInt(row.lsn), askedAtMs };
}

/**
 * How far a replica was behind, where its primary was asked before it.
 *
 * Two limits hold for the time, and the lower one counts. What was committed after the last replayed commit is all that can be missing: but
 * that says too much where nothing was committed for long. And a replica has all that its primary had when it was where the replica is now.
 *
 * @param primary what it said, oldest first; the last one is that of now
 */
export function lagBehind(primary: readonly Position[], replica: Position): Lag | null {
  const now = primary.at(-1);
  if (now === undefined) return null;
  const bytes = Number(now.lsn - replica.lsn);
  if (bytes <= 0) return { bytes: 0, ms: 0 };
  const reached = primary.findLast(({ lsn }) => lsn <= replica.lsn);
  const limitsMs = [
    ...(replica.replayedMs === null ? [] : [now.clockMs - replica.replayedMs]),
    ...(reached === undefined ? [] : [replica.askedAtMs - reached.askedAtMs]),
  ];
  return { bytes, ms: limitsMs.length === 0 ? null : Math.max(0, Math.min(...limitsMs)) };
}
