/** One task: say what a side holds of the shop, on however many shards, so that two sides can be held against each other. */
import type { Place } from '../embedded-postgres.js';
import { COMMON_TABLE, TENANT_TABLES } from './shop.js';

export interface TableChecksum {
  readonly rows: number;
  /** of all columns of all rows, in whatever order; of a table that the shards have differently, one for each */
  readonly checksum: string;
}

/** By table. */
export type SideChecksums = ReadonlyMap<string, TableChecksum>;

export async function checksumsOf(shards: readonly Place[]): Promise<SideChecksums> {
  const checksums = new Map<string, TableChecksum>();
  for (const table of TENANT_TABLES) checksums.set(table, added(await onEach(shards, table)));
  checksums.set(COMMON_TABLE, alike(await onEach(shards, COMMON_TABLE)));
  return checksums;
}

/** Tables in which the two sides differ. */
export function differingTables(one: SideChecksums, other: SideChecksums): readonly string[] {
  const same = (a: TableChecksum | undefined, b: TableChecksum | undefined): boolean =>
    a?.rows === b?.rows && a?.checksum === b?.checksum;
  return [...one.keys()].filter((table) => !same(one.get(table), other.get(table)));
}

function onEach(shards: readonly Place[], table: string): Promise<readonly TableChecksum[]> {
  const read = `SELECT count(*)::int AS rows, coalesce(sum(hashtextextended(t::text, 0)), 0)::text AS checksum FROM public.${table} t`;
  return Promise.all(
    shards.map(async ({ cluster, database }) => {
      const [row] = await cluster.query<{ rows: number; checksum: string }>(database, read);
      return row ?? { rows: 0, checksum: '' };
    }),
  );
}

function added(parts: readonly TableChecksum[]): TableChecksum {
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  return { rows, checksum: parts.reduce((sum, part) => sum + BigInt(part.checksum), 0n).toString() };
}

function alike(parts: readonly TableChecksum[]): TableChecksum {
  return { rows: parts[0]?.rows ?? 0, checksum: [...new Set(parts.map(({ checksum }) => checksum))].join(' ') };
}
