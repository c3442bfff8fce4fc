/** One task: answer for each table of a database how its rows are spread over the shards. Pure. */
import type { Config } from '../config/config.js';
import { shardCount } from '../config/databases.js';
import type {
  Mapping,
  KeyType,
  OmnishardedTableEntry,
  ShardedSchemaEntry,
  ShardedTableEntry,
} from '../config/sharding.js';

export type { KeyType, KeyValue, Mapping, ValueMapping } from '../config/sharding.js';

/** How the tables of one database are spread. Plain data: a RELOAD or a swap of names makes a new one. */
export interface ShardingScheme {
  readonly database: string;
  /** number of shards, at least 1 */
  readonly shards: number;
  readonly omnisharded: readonly OmnishardedTableEntry[];
  readonly schemas: readonly ShardedSchemaEntry[];
  readonly tables: readonly ShardedTableEntry[];
  /** name of the database whose server holds the coordinator; null: the server of shard 0 */
  readonly coordinator: string | null;
}

/** Each row is on the shard that its key leads to: see `shardOf` in hash.ts. */
export interface TableRule {
  readonly kind: 'sharded';
  readonly column: string;
  readonly type: KeyType;
  readonly mapping: Mapping;
}

/** The same rows on every shard: written on all, read on any. */
export interface OmnishardedRule {
  readonly kind: 'omnisharded';
  /** one connection reads from the same shard each time */
  readonly sticky: boolean;
}

/** The whole table is on one shard. */
export interface ShardRule {
  readonly kind: 'shard';
  readonly shard: number;
}

/** The table's schema is on every shard (`all = true`): a statement goes to all of them. */
export interface SchemaAllRule {
  readonly kind: 'schema-all';
}

export type Rule = TableRule | OmnishardedRule | ShardRule | SchemaAllRule;

/** A table as the catalogue names it (no folding, no quotes), with all its columns. */
export interface TableShape {
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[];
}

/** The scheme of one database of the configuration; every table of a database with one shard is on shard 0 anyway. */
export function schemeOf(config: Pick<Config, 'databases' | 'sharding'>, database: string): ShardingScheme {
  const ofDatabase = (entry: { readonly database: string }): boolean => entry.database === database;
  return {
    database,
    shards: shardCount(config.databases, database),
    omnisharded: config.sharding.omnisharded.filter(ofDatabase),
    schemas: config.sharding.schemas.filter(ofDatabase),
    tables: config.sharding.tables.filter(ofDatabase),
    coordinator: config.sharding.coordinator,
  };
}

/**
 * How the rows of a table are spread. The first that fits, in this order: `[[omnisharded_tables]]`; `[[sharded_schemas]]` with
 * the schema's name, then one without a name; `[[sharded_tables]]` with the table's name, then those by column alone, both in the
 * order of the file; else omnisharded (docs/configuration.md). That a named table goes before a column alone is ours.
 */
export function ruleOf(scheme: ShardingScheme, table: TableShape): Rule {
  const omnisharded = scheme.omnisharded.find((entry) => entry.table === table.name && inSchema(entry, table));
  if (omnisharded !== undefined) return { kind: 'omnisharded', sticky: omnisharded.sticky };
  const schema = schemaEntryOf(scheme, table.schema);
  if (schema !== undefined) {
    return schema.shard === 'all' ? { kind: 'schema-all' } : { kind: 'shard', shard: schema.shard };
  }
  const entry =
    scheme.tables.find((row) => row.table !== null && fits(row, table)) ??
    scheme.tables.find((row) => row.table === null && fits(row, table));
  if (entry === undefined) return { kind: 'omnisharded', sticky: false };
  return { kind: 'sharded', column: entry.column, type: entry.type, mapping: entry.mapping };
}

/** The `[[sharded_schemas]]` row of a schema: its own, else the one for every other schema. */
export function schemaEntryOf(scheme: ShardingScheme, schema: string): ShardedSchemaEntry | undefined {
  return (
    scheme.schemas.find((entry) => entry.schema === schema) ?? scheme.schemas.find((entry) => entry.schema === null)
  );
}

/**
 * The `[[sharded_tables]]` rows that no table follows: a misspelt table or column, whose table would be omnisharded without
 * anyone wanting it. `tables`: all of the database.
 */
export function unusedEntries(scheme: ShardingScheme, tables: readonly TableShape[]): readonly ShardedTableEntry[] {
  return scheme.tables.filter((entry) => !tables.some((table) => fits(entry, table)));
}

function fits(entry: ShardedTableEntry, table: TableShape): boolean {
  if (entry.table !== null && entry.table !== table.name) return false;
  return inSchema(entry, table) && table.columns.includes(entry.column);
}

function inSchema(entry: { readonly schema: string | null }, table: TableShape): boolean {
  return entry.schema === null || entry.schema === table.schema;
}
