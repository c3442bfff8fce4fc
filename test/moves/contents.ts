/** One task: hold the contents of the two sides of a migration against each other, table by table. */
import { expect } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { quoteIdentifier } from '../../src/postgres/connection.js';
import { until } from '../support/wait.js';

export interface TableContents {
  readonly table: string;
  readonly rows: number;
  readonly checksum: string;
}

/** Row counts and checksums over whole rows of every table outside the schema `cutover`. */
export async function contentsOf(cluster: Cluster, database = 'app'): Promise<readonly TableContents[]> {
  const tables = await cluster.query<{ name: string }>(
    database,
    `SELECT table_schema || '.' || table_name AS name FROM information_schema.tables
     WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('cutover', 'pg_catalog', 'information_schema') ORDER BY 1`,
  );
  const selects = tables.map(({ name }) => {
    const qualified = name.split('.').map(quoteIdentifier).join('.');
    return `SELECT '${name}' AS table, count(*)::int AS rows, coalesce(sum(hashtextextended(t::text, 0)), 0)::text AS checksum FROM ${qualified} t`;
  });
  return cluster.query<TableContents & Record<string, unknown>>(database, `${selects.join(' UNION ALL ')} ORDER BY 1`);
}

/** Waits until the stream that runs has carried everything: both sides then hold the same rows. */
export async function expectSameContents(one: Cluster, other: Cluster): Promise<void> {
  const same = async (): Promise<boolean> =>
    JSON.stringify(await contentsOf(one)) === JSON.stringify(await contentsOf(other));
  // On failure the difference is worth more than "never became equal".
  await until('both sides hold the same rows', same, 30_000).catch(async () => {
    expect(await contentsOf(one)).toEqual(await contentsOf(other));
  });
}

/** The last value of every sequence outside the schema `cutover`, in the direction it counts: larger is later. */
export async function sequencesOf(cluster: Cluster, database = 'app'): Promise<ReadonlyMap<string, number>> {
  const rows = await cluster.query<{ name: string; value: number }>(
    database,
    `SELECT sequencename AS name, (last_value * sign(increment_by))::float8 AS value FROM pg_sequences
     WHERE schemaname = 'public' AND last_value IS NOT NULL`,
  );
  return new Map(rows.map(({ name, value }) => [name, value]));
}
