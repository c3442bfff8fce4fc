/** One task: the checks on what runs right now: transactions and maintenance that a move would have to wait for. */
import type { Connection } from '../connection.js';
import { bothSides, combined, failed, listed, ok, rowsOf, warning } from './check.js';
import type { Finding, PreflightCheck } from './check.js';

/**
 * A slot is ready only when every transaction that ran at its creation has ended (PostgreSQL documentation, 47.2.5), and
 * the seal waits for writers. Other roles' transactions are visible to pg_monitor only.
 */
export const longTransactions: PreflightCheck = {
  id: 'long-transactions',
  title: 'Long transactions on the source',
  async run({ source, config }) {
    const { timeoutMs } = config.cutover;
    const rows = await rowsOf<{ holder: string }>(
      source,
      `SELECT 'pid ' || pid || ' (' || coalesce(usename, '?') || ' in ' || coalesce(datname, '?') || ', "' || application_name || '", '
         || coalesce(state, '?') || ', ' || round(extract(epoch FROM clock_timestamp() - xact_start)) || ' s)' AS holder
       FROM pg_stat_activity
       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - $1 * interval '1 millisecond'
       ORDER BY xact_start`,
      [timeoutMs],
    );
    if (rows.length === 0) return ok(`None is older than the ${timeoutMs.toString()} ms that a cutover may take.`);
    return warning(
      `The streams cannot begin before these end, and no cutover waits so long: ${listed(rows.map((r) => r.holder))}.`,
      'Wait for them, or end them (pg_terminate_backend).',
    );
  },
};

export const preparedTransactions: PreflightCheck = {
  id: 'prepared-transactions',
  title: 'Prepared transactions on the source',
  async run({ source, config }) {
    const rows = await rowsOf<{ gid: string; seconds: number }>(
      source,
      `SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds FROM pg_prepared_xacts ORDER BY prepared`,
    );
    if (rows.length === 0) return ok('There are none.');
    const names = rows.map((row) => `"${row.gid}" (${Math.round(row.seconds).toString()} s)`);
    const detail = `They count as writers in flight, and no stream begins before they end: ${listed(names)}.`;
    return rows.some((row) => row.seconds * 1000 >= config.cutover.timeoutMs)
      ? failed(detail, 'COMMIT PREPARED or ROLLBACK PREPARED those whose owner is gone.')
      : warning(detail, 'Wait until their owner has ended them.');
  },
};

/**
 * PostgreSQL documentation, 27.4 (progress reporting). Only the tables' names are shown: statements may hold secrets. An autovacuum is none:
 * it gives way to whoever wants its lock.
 */
const MAINTENANCE = `
  SELECT 'VACUUM on ' || v.relid::regclass AS work FROM pg_stat_progress_vacuum v JOIN pg_stat_activity a USING (pid)
    WHERE v.datname = current_database() AND a.backend_type = 'client backend'
  UNION SELECT command || ' on ' || relid::regclass AS work FROM pg_stat_progress_cluster WHERE datname = current_database()
  UNION SELECT command || ' on ' || relid::regclass FROM pg_stat_progress_create_index WHERE datname = current_database()
  UNION SELECT 'a session that holds ' || l.mode || ' on ' || l.relation::regclass || ' (pid ' || l.pid || ')'
    FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'cutover' AND n.nspname !~ '^pg_'
  ORDER BY 1`;

/** What runs on this side and holds locks that a move needs, a sentence each. */
export async function runningMaintenance(side: Connection): Promise<readonly string[]> {
  const { rows } = await side.query<{ work: string }>(MAINTENANCE);
  return rows.map(({ work }) => work);
}

export const maintenance: PreflightCheck = {
  id: 'maintenance',
  title: 'Running maintenance',
  async run(context) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      const running = await runningMaintenance(side.connection);
      if (running.length === 0) continue;
      findings.push(
        warning(
          `On the ${side.role} there runs ${listed(running)}.`,
          'Wait until it has ended: it holds locks that the move needs.',
        ),
      );
    }
    return findings.length > 0 ? combined(findings) : ok('None.');
  },
};
