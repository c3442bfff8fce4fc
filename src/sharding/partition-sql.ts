/**
 * One task: the same mapping as declarative partitioning: what a coordinator's parent tables and their foreign partitions are made with.
 *
 * A row is then in a partition of exactly the shard that `shardOf` in hash.ts names; a row without a shard is refused by PostgreSQL.
 */
import { compareKeys } from '../config/key-values.js';
import { invariant } from '../errors/invariant.js';
import { quoteIdentifier } from '../postgres/connection.js';
import { keyConstant } from './key-sql.js';
import type { KeyType, KeyValue, Rule, TableRule, ValueMapping } from './scheme.js';

/** One partition of a parent table. Several may be on one shard: one for each of its lists and ranges. */
export interface Partition {
  readonly shard: number;
  /** what follows `PARTITION OF parent`: `FOR VALUES …` or `DEFAULT` */
  readonly bound: string;
}

/** The key column's type, from `format_type`: bounds outside of a smaller integer type would be refused. */
export type IntegerType = 'smallint' | 'integer' | 'bigint';

const INTEGER_BITS: Readonly<Record<IntegerType, bigint>> = { smallint: 16n, integer: 32n, bigint: 64n };
const UUID_VALUES = 2n ** 128n;

/** Values from `start` on and below `end`; null: no limit. */
interface Segment {
  readonly start: KeyValue | null;
  readonly end: KeyValue | null;
  readonly shard: number;
}

/** Why a table of this rule cannot be a partitioned parent; null when it can. To be asked before the other functions. */
export function partitionProblem(rule: Rule): string | null {
  if (rule.kind !== 'sharded' || rule.mapping.kind !== 'hash' || rule.mapping.hasher === 'postgres') return null;
  return 'hasher "sha1": PostgreSQL partitions by its own hash only';
}

/**
 * The clause that follows the columns of `CREATE TABLE`.
 *
 * HASH and LIST use the column's own collation, so that the planner can prune: equal texts are equal bytes in every deterministic
 * collation (documentation, 23.2.2.4; a column with another collation must be refused before). RANGE needs the order of bytes.
 */
export function partitionClause(rule: TableRule): string {
  const column = quoteIdentifier(rule.column);
  switch (strategyOf(rule)) {
    case 'hash':
      return `PARTITION BY HASH (${column})`;
    case 'list':
      return `PARTITION BY LIST (${column})`;
    case 'range':
      return `PARTITION BY RANGE (${column}${rule.type === 'varchar' ? ' COLLATE "C"' : ''})`;
  }
}

/**
 * All partitions of a table with this rule.
 *
 * @param shards number of shards
 * @param integerType of the key's column; bounds that it has no room for are cut to it
 */
export function partitionsOf(
  rule: TableRule,
  shards: number,
  integerType: IntegerType = 'bigint',
): readonly Partition[] {
  const { mapping, type } = rule;
  if (mapping.kind === 'hash') return hashPartitions(rule, shards);
  const placed =
    strategyOf(rule) === 'list'
      ? listPartitions(mapping, type, integerType)
      : rangePartitions(mapping, type, integerType);
  return mapping.default === null ? placed : [...placed, { shard: mapping.default, bound: 'DEFAULT' }];
}

/** A table has one way of partitioning: lists beside ranges are ranges of one value each. */
function strategyOf({ mapping }: TableRule): 'hash' | 'list' | 'range' {
  if (mapping.kind === 'hash') return 'hash';
  return mapping.ranges.length === 0 ? 'list' : 'range';
}

function hashPartitions(rule: TableRule, shards: number): Partition[] {
  invariant(partitionProblem(rule) === null, 'partitionProblem was asked');
  return Array.from({ length: shards }, (_, shard) => ({
    shard,
    bound: `FOR VALUES WITH (MODULUS ${String(shards)}, REMAINDER ${String(shard)})`,
  }));
}

function listPartitions(mapping: ValueMapping, type: KeyType, integerType: IntegerType): Partition[] {
  return mapping.lists.flatMap(({ values, shard }) => {
    const possible = values.filter((value) => typeof value === 'string' || fits(value, integerType));
    if (possible.length === 0) return [];
    return [{ shard, bound: `FOR VALUES IN (${possible.map((value) => keyConstant(value, type)).join(', ')})` }];
  });
}

function rangePartitions(mapping: ValueMapping, type: KeyType, integerType: IntegerType): Partition[] {
  return segmentsOf(mapping, type)
    .flatMap((segment) => cutToColumn(segment, integerType))
    .map(({ start, end, shard }) => {
      const from = start === null ? 'MINVALUE' : keyConstant(start, type);
      const to = end === null ? 'MAXVALUE' : keyConstant(end, type);
      return { shard, bound: `FOR VALUES FROM (${from}) TO (${to})` };
    });
}

/** The ranges, and each value of a list as a range of its own, cut out of the range that holds it: a list counts first. */
function segmentsOf(mapping: ValueMapping, type: KeyType): readonly Segment[] {
  let segments: readonly Segment[] = mapping.ranges;
  for (const { values, shard } of mapping.lists) {
    for (const value of values) {
      const single = { start: value, end: successor(value, type), shard };
      segments = [...segments.flatMap((segment) => without(segment, single)), single];
    }
  }
  return segments;
}

/** What is left of `segment` below and above the one value of `single`. */
function without(segment: Segment, single: { readonly start: KeyValue; readonly end: KeyValue | null }): Segment[] {
  const { start, end } = segment;
  const holds =
    (start === null || compareKeys(single.start, start) >= 0) && (end === null || compareKeys(single.start, end) < 0);
  if (!holds) return [segment];
  const below = { ...segment, end: single.start };
  const above = { ...segment, start: single.end };
  const parts = start !== null && compareKeys(start, single.start) === 0 ? [] : [below];
  if (single.end === null || (end !== null && compareKeys(single.end, end) === 0)) return parts;
  return [...parts, above];
}

/** The next value in order; null after the last. A text is followed by itself with the smallest character there is. */
function successor(value: KeyValue, type: KeyType): KeyValue | null {
  if (typeof value === 'bigint') return fits(value + 1n, 'bigint') ? value + 1n : null;
  if (type === 'varchar') return `${value}\u0001`;
  const next = BigInt(`0x${value.replaceAll('-', '')}`) + 1n;
  if (next === UUID_VALUES) return null;
  const digits = next.toString(16).padStart(32, '0');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** The part of the segment that an integer column can hold; none when there is no such part. */
function cutToColumn(segment: Segment, integerType: IntegerType): Segment[] {
  const { start, end } = segment;
  const limit = 2n ** (INTEGER_BITS[integerType] - 1n);
  if (typeof start === 'bigint' && start >= limit) return [];
  if (typeof end === 'bigint' && end <= -limit) return [];
  return [
    {
      ...segment,
      start: typeof start === 'bigint' && start <= -limit ? null : start,
      end: typeof end === 'bigint' && end >= limit ? null : end,
    },
  ];
}

function fits(value: bigint, integerType: IntegerType): boolean {
  return BigInt.asIntN(Number(INTEGER_BITS[integerType]), value) === value;
}
