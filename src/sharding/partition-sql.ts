/**
 * One task: the same mapping as declarative partitioning: what a coordinator's parent tables and their foreign partitions are made with.
 *
 * A row is then in a partition of exactly the shard that `shardOf` in hash.ts names; a row without a shard is refused by PostgreSQL.
 */
import { compareKeys, inRange } from '../config/key-values.js';
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

/** A value of a list as a range of its own. */
interface Single extends Segment {
  readonly start: KeyValue;
}

/** The ranges without the values of lists, which count first, and each such value as a range of its own. */
function segmentsOf(mapping: ValueMapping, type: KeyType): readonly Segment[] {
  const singles: readonly Single[] = mapping.lists
    .flatMap(({ values, shard }) => values.map((value) => ({ start: value, end: successor(value, type), shard })))
    .sort((a, b) => compareKeys(a.start, b.start));
  const rest = mapping.ranges.flatMap((range) =>
    without(
      range,
      singles.filter((single) => inRange(single.start, range)),
    ),
  );
  return [...singles, ...rest];
}

/** What is left of `range` between the values of `singles`, which lie inside it and are in order. */
function without(range: Segment, singles: readonly Single[]): Segment[] {
  const parts: Segment[] = [];
  let start = range.start;
  for (const single of singles) {
    if (start === null || compareKeys(start, single.start) < 0) parts.push({ ...range, start, end: single.start });
    start = single.end;
    // After the last value there is nothing left.
    if (start === null) return parts;
  }
  const open = start === null || range.end === null || compareKeys(start, range.end) < 0;
  return open ? [...parts, { ...range, start }] : parts;
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
