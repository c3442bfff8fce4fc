/** One task: the shop of the tests of moves to shards: values at the edges of their types beside it, and all of its rows read from a side. */
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import {
  COMMON_TABLE,
  PUBLISH_SHOP,
  SHARDING_COLUMN,
  SHOP_SCHEMA,
  shopRows,
  TENANT_TABLES,
} from '../../src/dev/tenants/shop.js';

const HISTORY_ROWS = 900;

export const TENANTS_SCHEMA = `${SHOP_SCHEMA}
  CREATE TABLE public.oddities (
    tenant_id bigint PRIMARY KEY, bytes bytea, amount numeric, moment timestamptz, day date, wide text, list bigint[], doc jsonb);
  ${PUBLISH_SHOP}`;

/** Of a side with one shard. Values at the edges of their types, and rows without a key. */
export const TENANTS_ROWS = `${shopRows(HISTORY_ROWS)}
  INSERT INTO public.oddities SELECT t, decode(repeat('00ff', abs(t % 5)::int), 'hex'), amount, moment, day,
      (SELECT string_agg(md5(n::text || t::text), '') FROM generate_series(1, 1024) n), ARRAY[t, NULL, t % 7], '{"a": [1, null, "\\u00e9"]}'
    FROM (VALUES (1, 'NaN'::numeric, 'infinity'::timestamptz, '-infinity'::date), (2, 1e-16383, '-infinity', '4713-01-01 BC'),
      (3, -0.00000000000000000000000000001, '294276-12-31 23:59:59.999999+00', '5874897-12-31'), (-9223372036854775807, 1e131071, NULL, NULL))
    AS v (t, amount, moment, day);`;

/** Of all these rows on one shard of several leaves those that are its own; its ids are none of another shard's. */
export function keepOwnRows(shard: number, shards: number, more: readonly string[] = []): string {
  const own = `satisfies_hash_partition('pg_temp.spread'::regclass, ${shards.toString()}, ${shard.toString()}, tenant_id)`;
  const tables = ['history', 'notes', 'oddities', 'tenants', ...more];
  return `CREATE TEMPORARY TABLE spread (key bigint) PARTITION BY HASH (key);
    ALTER SEQUENCE public.orders_id_seq INCREMENT BY ${shards.toString()} RESTART WITH ${(1 + shard).toString()};
    ${tables.map((table) => `DELETE FROM public.${table} WHERE NOT ${own};`).join('\n')}`;
}

export const TENANTS_SHARDING = (database: string): string => `
[[sharded_tables]]
database = "${database}"
column = "${SHARDING_COLUMN}"
data_type = "bigint"
`;

/** Every row of a side as text, by table; of tables that are the same on every shard those of one, when all are equal. */
export async function contentsOf(
  cluster: Cluster,
  databases: readonly string[],
): Promise<Record<string, readonly string[]>> {
  const contents: Record<string, readonly string[]> = {};
  for (const table of [...TENANT_TABLES, 'oddities', COMMON_TABLE]) {
    const rows = await Promise.all(
      databases.map(async (database) => {
        const found = await cluster.query<{ row: string }>(
          database,
          `SELECT t::text AS row FROM public.${table} t ORDER BY 1`,
        );
        return found.map(({ row }) => row);
      }),
    );
    const [first = []] = rows;
    if (table === COMMON_TABLE && rows.some((other) => JSON.stringify(other) !== JSON.stringify(first)))
      throw new Error(`the shards have different ${COMMON_TABLE}`);
    contents[table] = table === COMMON_TABLE ? first : rows.flat().sort();
  }
  return contents;
}
