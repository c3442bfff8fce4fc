/** One task: give the coordinator's planner statistics of the shards' tables: neither autovacuum nor replication does. */
import type { Connection } from '../connection.js';
import { USER_SCHEMAS } from './shape.js';

export interface AnalyzeLimits {
  /** for all tables together; what is not reached is left for the next call */
  readonly deadlineMs: number;
  /** for one table. Before 16 a shard sends all rows to be sampled here; since then it samples them */
  readonly tableMs: number;
}

export interface Analyzed {
  readonly tables: number;
  /** not done within the limits */
  readonly skipped: readonly string[];
}

/** query_canceled (PostgreSQL documentation, Appendix A) */
const CANCELED = '57014';

/**
 * ANALYZE of every table, those never analysed first, then the longest ago. May be called again and while clients read.
 *
 * @throws PostgreSQL's own error when a shard cannot be reached
 */
export async function analyzeCoordinator(connection: Connection, limits: AnalyzeLimits): Promise<Analyzed> {
  const end = performance.now() + limits.deadlineMs;
  const { rows } = await connection.query<{ name: string }>(`
    SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('p', 'f') AND ${USER_SCHEMAS}
    ORDER BY pg_stat_get_last_analyze_time(c.oid) NULLS FIRST, 1`);
  const skipped: string[] = [];
  for (const { name } of rows) {
    const left = Math.min(limits.tableMs, Math.floor(end - performance.now()));
    if (left <= 0 || !(await analyzeTable(connection, name, left))) skipped.push(name);
  }
  return { tables: rows.length - skipped.length, skipped };
}

async function analyzeTable(connection: Connection, name: string, timeoutMs: number): Promise<boolean> {
  await connection.query(`SET statement_timeout = ${timeoutMs.toString()}`);
  try {
    await connection.query(`ANALYZE ${name}`);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === CANCELED) return false;
    throw error;
  } finally {
    await connection.query('RESET statement_timeout');
  }
}
