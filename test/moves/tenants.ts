/** One task: the shop of the tests of moves to shards: values at the edges of their types beside it, and all of its rows read from a side. */
import type { Place } from '../../src/dev/embedded-postgres.js';
import { TENANT_KEYS, type TenantKey } from '../../src/dev/tenants/key.js';
import { COMMON_TABLE, PUBLISH_SHOP, shopRows, shopSchema, TENANT_TABLES } from '../../src/dev/tenants/shop.js';
import { byHash, TEMPORARY_PARENTS, type Spread } from './spread.js';

const HISTORY_ROWS = 900;
const BIGINT_BY_HASH = byHash('bigint');

/** Keys that no tenant has, at the edges of their types: four of each. */
const ODD_KEYS: Readonly<Record<string, readonly string[]>> = {
  [TENANT_KEYS.bigint.type]: ['1', '2', '3', '-9223372036854775807'],
  [TENANT_KEYS.varchar.type]: [`''`, `' '`, `E'it''s\\t\\\\ \u{1F9E6}'`, `repeat('ж', 80)`],
  [TENANT_KEYS.uuid.type]: [
    `'00000000-0000-0000-0000-000000000000'`,
    `'ffffffff-ffff-ffff-ffff-ffffffffffff'`,
    `'80000000-0000-0000-0000-000000000000'`,
    `'7fffffff-ffff-ffff-ffff-ffffffffffff'`,
  ],
};

/** Schema and publication. */
export function schemaOf({ key, oddSchema }: Spread): string {
  return `${shopSchema(key)}
  CREATE SCHEMA IF NOT EXISTS ${oddSchema};
  CREATE TABLE ${oddSchema}.oddities (
    tenant_id ${key.type} PRIMARY KEY, bytes bytea, amount numeric, moment timestamptz, day date, wide text, list bigint[], doc jsonb);
  ${PUBLISH_SHOP}`;
}

/** Of a side with one shard. Values at the edges of their types, and rows without a key. */
export function rowsOf({ key, oddSchema }: Spread): string {
  const keys = oddKeys(key);
  return `${shopRows(HISTORY_ROWS, key)}
  INSERT INTO ${oddSchema}.oddities SELECT k, decode(repeat('00ff', n), 'hex'), amount, moment, day,
      (SELECT string_agg(md5(m::text || n::text), '') FROM generate_series(1, 1024) m), ARRAY[n, NULL, -n], '{"a": [1, null, "\\u00e9"]}'
    FROM (VALUES (1, ${keys[0] ?? ''}::${key.type}, 'NaN'::numeric, 'infinity'::timestamptz, '-infinity'::date),
      (2, ${keys[1] ?? ''}, 1e-16383, '-infinity', '4713-01-01 BC'),
      (3, ${keys[2] ?? ''}, -0.00000000000000000000000000001, '294276-12-31 23:59:59.999999+00', '5874897-12-31'),
      (4, ${keys[3] ?? ''}, 1e131071, NULL, NULL))
    AS v (n, k, amount, moment, day);`;
}

function oddKeys({ type }: TenantKey): readonly string[] {
  return ODD_KEYS[type] ?? [];
}

/** Of all these rows on one shard of several leaves those that are its own; its ids are none of another shard's. */
export function keepOwnRows(
  shard: number,
  shards: number,
  spread: Spread = BIGINT_BY_HASH,
  more: readonly string[] = [],
): string {
  const tables = [...more, 'public.history', 'public.notes', `${spread.oddSchema}.oddities`, 'public.tenants'];
  return `${TEMPORARY_PARENTS}
    ALTER SEQUENCE public.orders_id_seq INCREMENT BY ${shards.toString()} RESTART WITH ${(1 + shard).toString()};
    ${tables.map((table) => `DELETE FROM ${table} WHERE NOT ${spread.own({ table, shard, shards })};`).join('\n')}`;
}

export const TENANTS_SCHEMA = schemaOf(BIGINT_BY_HASH);
export const TENANTS_ROWS = rowsOf(BIGINT_BY_HASH);
export const TENANTS_SHARDING = (database: string): string => BIGINT_BY_HASH.rules(database, 2);

/** Tables whose rows are on one shard each, with their schemas. */
export function spreadTables({ oddSchema }: Spread): readonly string[] {
  return [...TENANT_TABLES.map((table) => `public.${table}`), `${oddSchema}.oddities`];
}

/** Every row of a side as text, by table; of tables that are the same on every shard those of one, when all are equal. */
export async function contentsOf(
  shards: readonly Place[],
  spread: Spread = BIGINT_BY_HASH,
): Promise<Record<string, readonly string[]>> {
  const contents: Record<string, readonly string[]> = {};
  const common = `public.${COMMON_TABLE}`;
  for (const table of [...spreadTables(spread), common]) {
    const rows = await Promise.all(
      shards.map(async ({ cluster, database }) => {
        const found = await cluster.query<{ row: string }>(
          database,
          `SELECT t::text AS row FROM ${table} t ORDER BY 1`,
        );
        return found.map(({ row }) => row);
      }),
    );
    const [first = []] = rows;
    if (table === common && rows.some((other) => JSON.stringify(other) !== JSON.stringify(first)))
      throw new Error(`the shards have different ${table}`);
    contents[table] = table === common ? first : rows.flat().sort();
  }
  return contents;
}
