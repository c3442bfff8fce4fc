/** One task: tell whether the two sides of a migration hold the same rows once the stream that runs is quiet. */
import type { Place } from '../../src/dev/embedded-postgres.js';
import { quoteIdentifier } from '../../src/postgres/connection.js';
import { until } from '../support/wait.js';

interface TableContents extends Record<string, unknown> {
  readonly table: string;
  readonly rows: number;
  readonly checksum: string;
}

const QUIET_DEADLINE_MS = 30_000;

/**
 * Row counts and checksums over whole rows of every table of `public`, of all shards of a side together.
 *
 * @param common tables that every shard has: those of one, or what differs
 */
export async function contentsOf(
  shards: readonly Place[],
  common: readonly string[] = [],
): Promise<readonly TableContents[]> {
  const [first = [], ...others] = await Promise.all(shards.map(contentsOfOne));
  return first.map((one, index) => {
    const parts = [one, ...others.map((other) => other[index] ?? one)];
    if (common.includes(one.table)) return { ...one, checksum: [...new Set(parts.map((p) => p.checksum))].join(' ') };
    const checksum = parts.reduce((sum, part) => sum + BigInt(part.checksum), 0n).toString();
    return { ...one, rows: parts.reduce((sum, part) => sum + part.rows, 0), checksum };
  });
}

async function contentsOfOne({ cluster, database }: Place): Promise<readonly TableContents[]> {
  const tables = await cluster.query<{ name: string }>(
    database,
    `SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`,
  );
  const selects = tables.map(
    ({ name }) =>
      `SELECT '${name}' AS table, count(*)::int AS rows, coalesce(sum(hashtextextended(t::text, 0)), 0)::text AS checksum
       FROM public.${quoteIdentifier(name)} AS t`,
  );
  return cluster.query<TableContents>(database, `${selects.join(' UNION ALL ')} ORDER BY 1`);
}

/** Waits for it, as long as the last changes may travel. Nobody may write meanwhile. */
export async function sameContents(
  one: readonly Place[],
  other: readonly Place[],
  common: readonly string[] = [],
  deadlineMs = QUIET_DEADLINE_MS,
): Promise<boolean> {
  const same = async (): Promise<boolean> =>
    JSON.stringify(await contentsOf(one, common)) === JSON.stringify(await contentsOf(other, common));
  return until('both sides hold the same rows', same, deadlineMs).then(
    () => true,
    () => false,
  );
}
