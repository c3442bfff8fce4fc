/**
 * One task: the row filter of a publication that picks the rows of one shard.
 *
 * A row filter may use built-in immutable functions, operators, types and collations only (PostgreSQL documentation, 29.4), and a
 * row for which it is NULL is left out. So exactly one shard's filter is true for each row: `shardOf` in hash.ts names the same.
 */
import { inRange } from '../config/key-values.js';
import { invariant } from '../errors/invariant.js';
import { quoteIdentifier } from '../postgres/connection.js';
import { keyColumn, keyConstant } from './key-sql.js';
import type { KeyType, KeyValue, Rule, TableRule, ValueMapping } from './scheme.js';

/** Empty partitioned tables, one for each type of key: `satisfies_hash_partition` hashes as the partitions of one would. */
const HASH_PARENTS: Readonly<
  Record<KeyType, { readonly name: string; readonly column: string; readonly cast: string }>
> = {
  bigint: { name: 'cutover.hash_bigint', column: 'key bigint', cast: 'bigint' },
  varchar: { name: 'cutover.hash_text', column: 'key text COLLATE "C"', cast: 'text' },
  uuid: { name: 'cutover.hash_uuid', column: 'key uuid', cast: 'uuid' },
};

/** Makes those tables in the schema `cutover`, which must exist. May run twice. They must outlive the publications that use them. */
export const CREATE_HASH_PARENTS: string = Object.values(HASH_PARENTS)
  .map(({ name, column }) => `CREATE TABLE IF NOT EXISTS ${name} (${column}) PARTITION BY HASH (key);`)
  .join('\n');

/** Why the rows of such a table cannot be told apart inside PostgreSQL; null when they can. To be asked before `rowFilter`. */
export function filterProblem(rule: Rule): string | null {
  if (rule.kind !== 'sharded' || rule.mapping.kind !== 'hash' || rule.mapping.hasher === 'postgres') return null;
  return 'hasher "sha1": a row filter may use built-in functions only, and PostgreSQL has none for SHA-1';
}

/**
 * The condition for the `WHERE` of `CREATE PUBLICATION … FOR TABLE`, without the parentheses around it; `true` where the shard has
 * every row, `false` where it has none. Any table may be filtered so whose columns the rule was made for.
 *
 * UPDATE and DELETE need the key's column in the replica identity of the table, else the source refuses them (documentation, 29.4).
 *
 * @param shard from 0 to `shards` - 1
 */
export function rowFilter(rule: Rule, shard: number, shards: number): string {
  invariant(filterProblem(rule) === null, 'filterProblem was asked');
  switch (rule.kind) {
    case 'omnisharded':
    case 'schema-all':
      return 'true';
    case 'shard':
      return rule.shard === shard ? 'true' : 'false';
    case 'sharded':
      return rule.mapping.kind === 'hash' ? hashFilter(rule, shard, shards) : valueFilter(rule, rule.mapping, shard);
  }
}

/** The condition of rows that are on no shard: `false` where every row is on one. They must be moved or mapped before a move. */
export function unplacedFilter(rule: Rule): string {
  if (rule.kind !== 'sharded' || rule.mapping.kind === 'hash' || rule.mapping.default !== null) return 'false';
  return notPlaced(rule, rule.mapping, shardsOf(rule.mapping));
}

function hashFilter(rule: TableRule, shard: number, shards: number): string {
  if (shards === 1) return 'true';
  const { name, cast } = HASH_PARENTS[rule.type];
  // The arguments must have exactly the types of the parent's key: hence the cast.
  const key = `${quoteIdentifier(rule.column)}::${cast}`;
  return `satisfies_hash_partition('${name}'::regclass, ${String(shards)}, ${String(shard)}, ${key})`;
}

function valueFilter(rule: TableRule, mapping: ValueMapping, shard: number): string {
  if (mapping.default !== shard) return placed(rule, mapping, shard) ?? 'false';
  return notPlaced(
    rule,
    mapping,
    shardsOf(mapping).filter((other) => other !== shard),
  );
}

/** Rows of none of these shards, by their lists and ranges; NULL is in no list and no range. */
function notPlaced(rule: TableRule, mapping: ValueMapping, shards: readonly number[]): string {
  const elsewhere = shards.map((shard) => placed(rule, mapping, shard)).filter((condition) => condition !== null);
  if (elsewhere.length === 0) return 'true';
  return `${quoteIdentifier(rule.column)} IS NULL OR NOT (${elsewhere.join(' OR ')})`;
}

/** Rows of a shard by its lists and ranges, the default left aside; null when it has none. NULL (not true) for a null key. */
function placed(rule: TableRule, mapping: ValueMapping, shard: number): string | null {
  const column = keyColumn(rule.column, rule.type);
  const own = mapping.lists.filter((list) => list.shard === shard).flatMap(({ values }) => values);
  const others = mapping.lists.filter((list) => list.shard !== shard).flatMap(({ values }) => values);
  const conditions = own.length === 0 ? [] : [`${column} IN ${constants(own, rule.type)}`];
  for (const range of mapping.ranges.filter((candidate) => candidate.shard === shard)) {
    const inside = others.filter((value) => inRange(value, range));
    const parts = [
      ...(range.start === null ? [] : [`${column} >= ${keyConstant(range.start, rule.type)}`]),
      ...(range.end === null ? [] : [`${column} < ${keyConstant(range.end, rule.type)}`]),
      // A list counts before a range.
      ...(inside.length === 0 ? [] : [`${column} NOT IN ${constants(inside, rule.type)}`]),
    ];
    conditions.push(`(${parts.join(' AND ')})`);
  }
  return conditions.length === 0 ? null : conditions.join(' OR ');
}

function constants(values: readonly KeyValue[], type: KeyType): string {
  return `(${values.map((value) => keyConstant(value, type)).join(', ')})`;
}

/** The shards that a mapping's lists and ranges name. */
function shardsOf(mapping: ValueMapping): number[] {
  return [...new Set([...mapping.lists, ...mapping.ranges].map(({ shard }) => shard))];
}
