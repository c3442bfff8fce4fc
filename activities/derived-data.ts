/**
 * One task: bring to the side that will serve what replication does not carry and is computed from the rows: materialised views and
 * statistics. Without them its first queries read old rows and run by bad plans.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { shardsOf, type Side } from '../src/cutover/side.js';
import { withConnection, type Connection } from '../src/postgres/connection.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import type { EngineContext } from './context.js';

/** As long as it takes: the side does not serve, and whoever waits for it hears that it goes on. */
const QUERY_TIMEOUT_MS = 24 * 60 * 60_000;
const TELL_MS = 2_000;

/** In the order of dependence, through plain views too: one is refreshed after those it reads. */
const MATERIALISED_VIEWS = `
  WITH RECURSIVE reads (view, depth) AS (
    SELECT oid, 0 FROM pg_class WHERE relkind IN ('v', 'm')
    UNION
    SELECT r.ev_class, reads.depth + 1
    FROM reads JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reads.view
      AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> reads.view
  )
  SELECT format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'm' AND n.nspname NOT IN ('cutover', 'cutover_shards')
  ORDER BY (SELECT max(depth) FROM reads WHERE reads.view = c.oid), c.oid`;

/** Autovacuum analyses what changed much since; what was never analysed it may not have come to. */
const NEVER_ANALYSED = `
  SELECT format('%I.%I', s.schemaname, s.relname) AS name
  FROM pg_stat_user_tables s
  WHERE s.last_analyze IS NULL AND s.last_autoanalyze IS NULL AND s.schemaname NOT IN ('cutover', 'cutover_shards')
    AND NOT EXISTS (SELECT FROM pg_stats st WHERE st.schemaname = s.schemaname AND st.tablename = s.relname)
    AND pg_relation_size(s.relid) > 0
  ORDER BY 1`;

/**
 * Computes every materialised view of a side that does not serve anew, and its statistics. May be called again.
 *
 * @param analysed `all`: after a copy, while which autovacuum may have seen half a table; `missing`: what never was analysed
 * @param tell called every two seconds with the work at hand; what it throws ends this
 */
export async function computeDerivedData(
  context: EngineContext,
  side: Side,
  analysed: 'all' | 'missing',
  tell: (work: string) => Promise<void>,
): Promise<void> {
  for (const shard of shardsOf(side)) await computeAt(await context.directory.endpointOf(shard), analysed, tell);
}

async function computeAt(
  endpoint: Endpoint,
  analysed: 'all' | 'missing',
  tell: (work: string) => Promise<void>,
): Promise<void> {
  await withConnection(
    endpoint,
    async (connection) => {
      for (const view of await names(connection, MATERIALISED_VIEWS))
        await telling(connection.query(`REFRESH MATERIALIZED VIEW ${view}`), () => tell(`refreshing ${view}`));
      const tables = analysed === 'all' ? [''] : await names(connection, NEVER_ANALYSED);
      for (const table of tables)
        await telling(connection.query(`ANALYZE ${table}`), () => tell(`analysing ${table || 'every table'}`));
    },
    { queryTimeoutMs: QUERY_TIMEOUT_MS },
  );
}

async function names(connection: Connection, statement: string): Promise<readonly string[]> {
  const { rows } = await connection.query<{ name: string }>(statement);
  return rows.map(({ name }) => name);
}

async function telling(work: Promise<unknown>, tell: () => Promise<void>): Promise<void> {
  const done = work.then(() => true);
  // Whoever is told may end this before the work: its connection is closed then, and what it fails with is no news.
  done.catch(() => undefined);
  for (;;) {
    await tell();
    if (await Promise.race([done, delay(TELL_MS, false)])) return;
  }
}
