/** One task: tell whether the two sides of a migration hold the same rows once the stream that runs is quiet. */
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { quoteIdentifier } from '../../src/postgres/connection.js';
import { until } from '../support/wait.js';

interface TableContents extends Record<string, unknown> {
  readonly table: string;
  readonly rows: number;
  readonly checksum: string;
}

const QUIET_DEADLINE_MS = 30_000;

/** Row counts and checksums over whole rows of every table of `public`. */
export async function contentsOf(cluster: Cluster): Promise<readonly TableContents[]> {
  const tables = await cluster.query<{ name: string }>(
    'app',
    `SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`,
  );
  const selects = tables.map(
    ({ name }) =>
      `SELECT '${name}' AS table, count(*)::int AS rows, coalesce(sum(hashtextextended(t::text, 0)), 0)::text AS checksum
       FROM public.${quoteIdentifier(name)} AS t`,
  );
  return cluster.query<TableContents>('app', `${selects.join(' UNION ALL ')} ORDER BY 1`);
}

/** Waits for it within a deadline. Nobody may write meanwhile. */
export async function sameContents(one: Cluster, other: Cluster): Promise<boolean> {
  const same = async (): Promise<boolean> =>
    JSON.stringify(await contentsOf(one)) === JSON.stringify(await contentsOf(other));
  return until('both sides hold the same rows', same, QUIET_DEADLINE_MS).then(
    () => true,
    () => false,
  );
}
