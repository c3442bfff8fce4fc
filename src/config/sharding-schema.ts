/** One task: the keys of the tables that say how rows are spread over shards. What they must fulfil together: sharding-rows.ts. */
import { z } from 'zod';

const SHARD_MAX = 1_023;
/** So many that each may become a condition of a row filter and a partition of the coordinator. */
const PLACES_MAX = 1_000;
const VALUES_MAX = 10_000;
const text = z.string().min(1);
const shard = z.int().min(0).max(SHARD_MAX);
/** An integer, a text or a uuid; which of them is right depends on `data_type`. */
const keyValue = z.union([z.int(), z.bigint(), z.string()], { error: 'expected an integer or a text' });
const dataType = z.enum(['bigint', 'varchar', 'uuid'], {
  error: (issue) => (issue.input === 'vector' ? 'sharding by vector is not implemented' : undefined),
});

const NO_VECTOR = 'sharding by vector is not implemented, and without it rows would go to other shards';
const NO_LOOKUP = 'sharding by lookup is not implemented, and without it rows would go to other shards';

const PLACE = z.strictObject({
  values: z.array(keyValue).max(VALUES_MAX).optional(),
  start: keyValue.optional(),
  end: keyValue.optional(),
  shard,
});

const SHARDED_TABLE = z.strictObject({
  primary: z.unknown().optional(),
  centroids: z.never({ error: NO_VECTOR }).optional(),
  centroids_path: z.never({ error: NO_VECTOR }).optional(),
  centroid_probes: z.never({ error: NO_VECTOR }).optional(),
  lookup_query: z.never({ error: NO_LOOKUP }).optional(),
  lookup_result: z.never({ error: NO_LOOKUP }).optional(),
  database: text,
  name: text.optional(),
  schema: text.optional(),
  column: text,
  data_type: dataType.optional(),
  hasher: z.enum(['postgres', 'sha1']).optional(),
  mapping: z.array(PLACE).max(PLACES_MAX).optional(),
});

const SHARDED_MAPPING = z.strictObject({
  database: text,
  column: text,
  table: text.optional(),
  schema: text.optional(),
  kind: z.enum(['list', 'range', 'default']),
  ...PLACE.shape,
});

const SHARDED_SCHEMA = z.strictObject({
  database: text,
  name: text.optional(),
  shard: shard.optional(),
  all: z.boolean().optional(),
});

const OMNISHARDED_TABLES = z.strictObject({ database: text, tables: z.array(text), sticky: z.boolean().optional() });

/** The tables of pgdog.toml that this file is about. */
export const SHARDING_TABLES = {
  sharded_tables: z.array(SHARDED_TABLE).optional(),
  sharded_mappings: z.array(SHARDED_MAPPING).max(PLACES_MAX).optional(),
  sharded_schemas: z.array(SHARDED_SCHEMA).optional(),
  omnisharded_tables: z.array(OMNISHARDED_TABLES).optional(),
  sharding: z.strictObject({ coordinator: text.optional() }).optional(),
};

/** Keys of `[[sharded_tables]]` that are accepted without an effect. */
export const SHARDED_TABLES_IGNORED = ['primary'] as const;

export type PlaceKeys = z.infer<typeof PLACE>;
export type ShardedTableKeys = z.infer<typeof SHARDED_TABLE>;
export type ShardedMappingKeys = z.infer<typeof SHARDED_MAPPING>;
