/** One task: the rows of the sharding tables of pgdog.toml: names folded as SQL does, and every combination that would mislead refused. */
import type { DatabaseEntry } from './config.js';
import type { Path } from './document.js';
import { foldName } from './identifiers.js';
import type { ConfigFile } from './schema.js';
import type {
  Mapping,
  OmnishardedTableEntry,
  ShardedSchemaEntry,
  ShardedTableEntry,
  ShardingConfig,
} from './sharding.js';
import { checkShard, valueMapping, type MappingContext, type WrittenPlace } from './sharding-mapping.js';
import type { ShardedMappingKeys, ShardedTableKeys } from './sharding-schema.js';
import type { CheckedSource } from './source.js';
import { suggest } from './suggest.js';

type Warn = (sentence: string) => void;

/**
 * What the files say about sharding.
 *
 * @param databases the rows of `source`, already checked
 * @throws CutoverError `configuration_invalid`
 */
export function shardingConfig(
  source: CheckedSource<ConfigFile>,
  databases: readonly DatabaseEntry[],
  warn: Warn,
): ShardingConfig {
  const rows = new Rows(source, databases, warn);
  return {
    tables: rows.tables(),
    schemas: rows.schemas(),
    omnisharded: rows.omnisharded(),
    coordinator: rows.coordinator(),
  };
}

/** A `[[sharded_mappings]]` row; `used` once a `[[sharded_tables]]` row has taken it. */
interface SeparatePlace extends WrittenPlace {
  readonly owner: string;
  used: boolean;
}

class Rows {
  readonly #source: CheckedSource<ConfigFile>;
  readonly #shards = new Map<string, number>();
  readonly #warn: Warn;

  constructor(source: CheckedSource<ConfigFile>, databases: readonly DatabaseEntry[], warn: Warn) {
    this.#source = source;
    this.#warn = warn;
    for (const { name, shard } of databases) this.#shards.set(name, Math.max(this.#shards.get(name) ?? 0, shard + 1));
  }

  tables(): ShardedTableEntry[] {
    const separate = this.#separatePlaces();
    const seen = new Set<string>();
    const entries = (this.#source.data.sharded_tables ?? []).map((keys, index) => {
      const path = ['sharded_tables', index];
      const context = { ...this.#context(keys.database, path), type: keys.data_type ?? ('bigint' as const) };
      const owner = this.#ownerOf(keys, keys.name, path);
      const [database, schema, table, column] = owner;
      const name = JSON.stringify(owner);
      if (seen.has(name)) throw context.invalid(path, 'a second row for the same table and column');
      seen.add(name);
      const own = separate.filter((place) => place.owner === name);
      for (const place of own) place.used = true;
      const mapping = this.#mapping(keys, path, own, context);
      if (mapping.kind === 'values' && mapping.default === null) this.#warnOfGap(path, column);
      return { database, schema, table, column, type: context.type, mapping };
    });
    const stray = separate.find((place) => !place.used);
    if (stray !== undefined) {
      throw this.#source.invalid(stray.path, 'no [[sharded_tables]] row has this database, schema, table and column');
    }
    return entries;
  }

  schemas(): ShardedSchemaEntry[] {
    const seen = new Set<string>();
    return (this.#source.data.sharded_schemas ?? []).map((keys, index) => {
      const path = ['sharded_schemas', index];
      const context = this.#context(keys.database, path);
      const schema = keys.name === undefined ? null : this.#name(keys.name, [...path, 'name']);
      const name = JSON.stringify([keys.database, schema]);
      if (seen.has(name)) throw context.invalid(path, 'a second row for the same schema');
      seen.add(name);
      if ((keys.all === true) === (keys.shard !== undefined))
        throw context.invalid(path, 'a schema is on one "shard", or on all with "all = true": write one of them');
      if (keys.shard !== undefined) checkShard(keys.shard, [...path, 'shard'], context);
      if (schema === null) this.#warnOfCatchAll(keys.database);
      return { database: keys.database, schema, shard: keys.shard ?? 'all' };
    });
  }

  omnisharded(): OmnishardedTableEntry[] {
    return (this.#source.data.omnisharded_tables ?? []).flatMap(({ database, tables, sticky = false }, index) => {
      const path = ['omnisharded_tables', index];
      this.#context(database, path);
      return tables.map((text, at) => {
        const parts = foldName(text) ?? [];
        const table = parts.at(-1);
        const schema = parts.length === 2 ? (parts[0] ?? null) : null;
        if (table === undefined || parts.length > 2)
          throw this.#source.invalid([...path, 'tables', at], 'expected "table" or "schema.table", as SQL writes them');
        return { database, schema, table, sticky };
      });
    });
  }

  coordinator(): string | null {
    const name = this.#source.data.sharding?.coordinator;
    if (name === undefined) return null;
    const path = ['sharding', 'coordinator'];
    const { shards } = this.#context(name, [], path);
    if (shards > 1) throw this.#source.invalid(path, `database "${name}" is sharded itself: name one with one server`);
    return name;
  }

  /** @throws CutoverError `configuration_invalid` when there is no such database: its rows would silently count for none */
  #context(database: string, row: Path, at: Path = [...row, 'database']): Omit<MappingContext, 'type'> {
    const shards = this.#shards.get(database);
    if (shards !== undefined) return { database, shards, invalid: this.#source.invalid.bind(this.#source) };
    const meant = suggest(database, [...this.#shards.keys()]);
    const problem = `no [[databases]] row has the name "${database}"`;
    throw this.#source.invalid(at, problem + (meant === null ? '' : `, did you mean "${meant}"?`));
  }

  #separatePlaces(): SeparatePlace[] {
    const rows = this.#source.data.sharded_mappings ?? [];
    if (rows.length > 0)
      this.#warn('[[sharded_mappings]] is the old form: "mapping" in [[sharded_tables]] says the same in one place');
    return rows.map((keys, index) => {
      const path = ['sharded_mappings', index];
      const context = this.#context(keys.database, path);
      const problem = kindProblem(keys);
      if (problem !== null) throw context.invalid([...path, 'kind'], problem);
      return { keys, path, owner: JSON.stringify(this.#ownerOf(keys, keys.table, path)), used: false };
    });
  }

  /** Database, schema, table and column that a row is about. */
  #ownerOf(
    keys: { readonly database: string; readonly schema?: string | undefined; readonly column: string },
    table: string | undefined,
    path: Path,
  ): [database: string, schema: string | null, table: string | null, column: string] {
    const tableKey = path[0] === 'sharded_tables' ? 'name' : 'table';
    return [
      keys.database,
      keys.schema === undefined ? null : this.#name(keys.schema, [...path, 'schema']),
      table === undefined ? null : this.#name(table, [...path, tableKey]),
      this.#name(keys.column, [...path, 'column']),
    ];
  }

  #mapping(keys: ShardedTableKeys, path: Path, separate: readonly WrittenPlace[], context: MappingContext): Mapping {
    const own = keys.mapping?.map((place, index) => ({ keys: place, path: [...path, 'mapping', index] }));
    if (own !== undefined && separate.length > 0)
      throw context.invalid([...path, 'mapping'], 'this row has [[sharded_mappings]] too: keep one of the two');
    const places = own ?? separate;
    if (own?.length === 0) throw context.invalid([...path, 'mapping'], '"mapping" is empty, so no key has a shard');
    if (places.length === 0) return { kind: 'hash', hasher: keys.hasher ?? 'postgres' };
    if (keys.hasher !== undefined) this.#warn(`"hasher" of ${nameOf(path)} has no effect: its mapping counts`);
    return valueMapping(places, context);
  }

  /** One name, folded. */
  #name(text: string, path: Path): string {
    const parts = foldName(text);
    const [name] = parts ?? [];
    if (name !== undefined && parts?.length === 1) return name;
    const advice =
      parts === null ? 'write it in double quotes inside the quotes: \'"Name"\'' : 'the schema has a key of its own';
    throw this.#source.invalid(path, `not one name as SQL writes it: ${advice}`);
  }

  #warnOfGap(path: Path, column: string): void {
    this.#warn(
      `the mapping of ${nameOf(path)} has no default: a row whose "${column}" is NULL or in none of its places has no shard`,
    );
  }

  #warnOfCatchAll(database: string): void {
    if (!(this.#source.data.sharded_tables ?? []).some((row) => row.database === database)) return;
    this.#warn(
      `[[sharded_schemas]] of database "${database}" has a row without a name, which takes every schema: [[sharded_tables]] has no effect there`,
    );
  }
}

function kindProblem({ kind, values, start, end }: ShardedMappingKeys): string | null {
  const ranged = start !== undefined || end !== undefined;
  const fits = {
    list: values !== undefined && !ranged,
    range: ranged && values === undefined,
    default: values === undefined && !ranged,
  };
  if (fits[kind]) return null;
  const needs = { list: '"values" only', range: '"start" or "end" or both, and no "values"', default: '"shard" only' };
  return `kind "${kind}" needs ${needs[kind]}`;
}

/** `[[sharded_tables]] row 2`, counted from 1 for the reader. */
function nameOf(path: Path): string {
  return `[[${String(path[0])}]] row ${String(Number(path[1]) + 1)}`;
}
