/** One task: the shape of a loaded sharding configuration. How a table or a key finds its shard is in src/sharding. */

/** `data_type` of a sharding key; smallint and integer columns are `bigint` here, text columns are `varchar`. */
export type KeyType = 'bigint' | 'varchar' | 'uuid';

/** A value of a sharding key: an integer, a text, or a uuid in lower case with hyphens. */
export type KeyValue = bigint | string;

/** These values are on this shard. */
export interface ListPlace {
  readonly values: readonly KeyValue[];
  readonly shard: number;
}

/** Values from `start` on and below `end` are on this shard; null: no limit on that side. */
export interface RangePlace {
  readonly start: KeyValue | null;
  readonly end: KeyValue | null;
  readonly shard: number;
}

/** By a hash of the value. */
export interface HashMapping {
  readonly kind: 'hash';
  readonly hasher: 'postgres' | 'sha1';
}

/**
 * By the value: its list, else the first range that holds it, else the default; without a default such a value is on no shard.
 *
 * No value is in two lists and no two ranges overlap. A value of a list may lie inside a range: the list counts.
 */
export interface ValueMapping {
  readonly kind: 'values';
  readonly lists: readonly ListPlace[];
  readonly ranges: readonly RangePlace[];
  readonly default: number | null;
}

export type Mapping = HashMapping | ValueMapping;

/** One `[[sharded_tables]]` row: tables sharded by `column`. */
export interface ShardedTableEntry {
  readonly database: string;
  /** null: tables of every schema */
  readonly schema: string | null;
  /** null: every table that has the column */
  readonly table: string | null;
  readonly column: string;
  readonly type: KeyType;
  readonly mapping: Mapping;
}

/** One `[[sharded_schemas]]` row: all tables of a schema are on one shard, or on every shard. */
export interface ShardedSchemaEntry {
  readonly database: string;
  /** null: every schema that no other row names */
  readonly schema: string | null;
  readonly shard: number | 'all';
}

/** One table of `[[omnisharded_tables]]`: the same rows on every shard. */
export interface OmnishardedTableEntry {
  readonly database: string;
  /** null: tables of every schema */
  readonly schema: string | null;
  readonly table: string;
  /** one connection reads from the same shard each time */
  readonly sticky: boolean;
}

/** Everything the files say about sharding, for all databases, in the order of the file. */
export interface ShardingConfig {
  readonly tables: readonly ShardedTableEntry[];
  readonly schemas: readonly ShardedSchemaEntry[];
  readonly omnisharded: readonly OmnishardedTableEntry[];
  /** name of the database whose server holds the coordinator; null: the server of shard 0 */
  readonly coordinator: string | null;
}

/** No database is sharded. */
export const NOT_SHARDED: ShardingConfig = { tables: [], schemas: [], omnisharded: [], coordinator: null };
