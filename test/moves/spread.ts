/** One task: the ways in which the rows of the shop are spread over shards: by a key's hash, by lists, ranges and a default, by schema. */
import { TENANT_KEYS, type TenantKey } from '../../src/dev/tenants/key.js';
import { COMMON_TABLE, SHARDING_COLUMN } from '../../src/dev/tenants/shop.js';

export interface Spread {
  readonly name: string;
  readonly key: TenantKey;
  /** where the table `oddities` is; all others are in `public` */
  readonly oddSchema: string;
  /** of pgdog.toml */
  readonly rules: (database: string, shards: number) => string;
  /** SQL that is true of the rows of a table that belong on this shard, as it is said in the rules and not as the product reads them */
  readonly own: (place: { readonly table: string; readonly shard: number; readonly shards: number }) => string;
}

/** Values of a list, or from `start` on and below `end`; neither: all others, and NULL. */
interface Range {
  readonly shard: number;
  readonly values?: readonly string[];
  readonly start?: string;
  readonly end?: string;
}

type KeyName = keyof typeof TENANT_KEYS;

/** An empty table that is partitioned as the shards are: PostgreSQL's own hash of the key. */
const HASH_PARENTS: Readonly<Record<KeyName, string>> = {
  bigint: 'cutover.hash_bigint',
  varchar: 'cutover.hash_text',
  uuid: 'cutover.hash_uuid',
};
const HASHED_TYPES: Readonly<Record<KeyName, string>> = { bigint: 'bigint', varchar: 'text', uuid: 'uuid' };

/** Before a move there are no such tables; for a session. */
export const TEMPORARY_PARENTS = Object.entries(HASH_PARENTS)
  .map(([name, parent]) => {
    const type = HASHED_TYPES[name as KeyName];
    return `CREATE TEMPORARY TABLE ${parent.replace('cutover.', '')} (key ${type}) PARTITION BY HASH (key);`;
  })
  .join('\n');

export function byHash(name: KeyName): Spread {
  return {
    name: `${name} by hash`,
    key: TENANT_KEYS[name],
    oddSchema: 'public',
    rules: (database) => tableRule(database, name),
    own: ({ shard, shards }) => {
      const parent = HASH_PARENTS[name].replace('cutover.', '');
      const place = `to_regclass('pg_temp.${parent}'), to_regclass('cutover.${parent}')`;
      const key = `${SHARDING_COLUMN}::${HASHED_TYPES[name]}`;
      return `satisfies_hash_partition(coalesce(${place}), ${shards.toString()}, ${shard.toString()}, ${key})`;
    },
  };
}

/** A list beside ranges and a default: `[[sharded_tables]]` with a mapping, or `[[sharded_mappings]]`, its older form. */
export function byPlaces(name: KeyName, form: 'mapping' | 'sharded_mappings'): Spread {
  return {
    name: `${name} by list, range and default (${form})`,
    key: TENANT_KEYS[name],
    oddSchema: 'public',
    rules: (database, shards) => {
      const places = placesOf(name, shards);
      if (form === 'sharded_mappings')
        return tableRule(database, name) + places.map((place) => mappingRule(database, name, place)).join('');
      const inline = places.map((place) => `  { ${keysOf(name, place).join(', ')} },\n`).join('');
      return `${tableRule(database, name)}mapping = [\n${inline}]\n`;
    },
    own: ({ shard, shards }) => {
      const cases = placesOf(name, shards).map(
        (place) => `WHEN ${conditionOf(name, place)} THEN ${place.shard.toString()}`,
      );
      return `(CASE ${cases.join(' ')} END = ${shard.toString()})`;
    },
  };
}

/** All of `public` on the last shard, `attic` on the one before it, the price list everywhere. */
export const BY_SCHEMA: Spread = {
  name: 'schemas',
  key: TENANT_KEYS.bigint,
  oddSchema: 'attic',
  rules: (database, shards) => `
[[sharded_schemas]]
database = "${database}"
name = "public"
shard = ${(shards - 1).toString()}

[[sharded_schemas]]
database = "${database}"
name = "attic"
shard = ${(shards - 2).toString()}

[[omnisharded_tables]]
database = "${database}"
tables = ["public.${COMMON_TABLE}"]
`,
  own: ({ table, shard, shards }) => String(shard === shards - (table.startsWith('attic.') ? 2 : 1)),
};

function tableRule(database: string, name: KeyName): string {
  return `
[[sharded_tables]]
database = "${database}"
column = "${SHARDING_COLUMN}"
data_type = "${name}"
`;
}

function mappingRule(database: string, name: KeyName, place: Range): string {
  const kind = place.values ? 'list' : (place.start ?? place.end) === undefined ? 'default' : 'range';
  return `
[[sharded_mappings]]
database = "${database}"
column = "${SHARDING_COLUMN}"
kind = "${kind}"
${keysOf(name, place).join('\n')}
`;
}

/** A list with values that lie in the ranges, ranges with a gap between them, and a default; with every number of shards others. */
function placesOf(name: KeyName, shards: number): readonly Range[] {
  const keys = Array.from({ length: 40 }, (_, index) => TENANT_KEYS[name].of(index + 1));
  const inOrder = name === 'bigint' ? keys : keys.sort();
  const at = (index: number): string => inOrder[index] ?? '';
  return [
    { values: [at(2), at(8), at(21), at(35)], shard: shards - 1 },
    { end: at(6 + shards), shard: 0 },
    { start: at(6 + shards), end: at(20), shard: 1 },
    { start: at(27), end: at(33), shard: 0 },
    { shard: shards - 1 },
  ];
}

function keysOf(name: KeyName, { values, start, end, shard }: Range): readonly string[] {
  const written = (value: string): string => (name === 'bigint' ? value : JSON.stringify(value));
  return [
    ...(values ? [`values = [${values.map(written).join(', ')}]`] : []),
    ...(start === undefined ? [] : [`start = ${written(start)}`]),
    ...(end === undefined ? [] : [`end = ${written(end)}`]),
    `shard = ${shard.toString()}`,
  ];
}

function conditionOf(name: KeyName, { values, start, end }: Range): string {
  const column = name === 'varchar' ? `${SHARDING_COLUMN} COLLATE "C"` : SHARDING_COLUMN;
  const literal = (value: string): string => `'${value}'`;
  const parts = [
    ...(values ? [`${column} IN (${values.map(literal).join(', ')})`] : []),
    ...(start === undefined ? [] : [`${column} >= ${literal(start)}`]),
    ...(end === undefined ? [] : [`${column} < ${literal(end)}`]),
  ];
  return parts.length === 0 ? 'true' : parts.join(' AND ');
}
