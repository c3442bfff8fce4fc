/** One task: say what a function call in a statement means for where the statement may run. */
import { findFunction, type Catalogue, type FoundFunction } from './catalogue.js';

export interface FunctionVerdict {
  /** it may read tables, or nobody knows it: no single shard has all it may read */
  readonly reads: 'function' | 'unknown-function' | null;
  /** not in a statement that runs on a shard chosen by keys, and not on the coordinator */
  readonly refused: 'sequence' | 'advisory-lock' | 'large-object' | 'set-config' | null;
  /** alone, without a table, it may run where all clients run it */
  readonly alone: boolean;
  /** nextval: on any shard, never on the coordinator, whose sequences are not those of the shards */
  readonly advances: boolean;
  /** two shards may get different values from it */
  readonly varies: boolean;
  readonly aggregate: boolean;
  readonly window: boolean;
}

/** PostgreSQL's own functions that read tables by name or by query text (documentation, 9.15.4, 12.4 and 9.13.1). */
const READS_TABLES =
  /^(query_to_xml|table_to_xml|cursor_to_xml|schema_to_xml|database_to_xml|xpath_table|ts_stat$|ts_rewrite$)/;
const ADVISORY = /^pg_(try_)?advisory_|^pg_notify$/;
const LARGE_OBJECT = /^lo_|^lo(read|write)$/;
/** Values that belong to one server's sequence, as the session or as everybody sees it. */
const SEQUENCE_STATE = new Set(['currval', 'lastval', 'setval']);
/** Functions of the extensions uuid-ossp and pgcrypto that are volatile because they are random. */
const RANDOM_ONLY = /^(uuid_generate_v\w+|gen_random_uuid|gen_random_bytes|gen_salt|crypt)$/;

const HARMLESS: FunctionVerdict = {
  reads: null,
  refused: null,
  alone: false,
  advances: false,
  varies: false,
  aggregate: false,
  window: false,
};

/** @param name as called, with or without its schema */
export function functionVerdict(
  catalogue: Catalogue,
  searchPath: readonly string[],
  name: readonly string[],
): FunctionVerdict {
  const bare = name.at(-1) ?? '';
  const found = findFunction(catalogue, searchPath, name.at(-2) ?? null, bare);
  if (found === null) return { ...HARMLESS, reads: 'unknown-function', varies: true };
  const shared = { ...HARMLESS, aggregate: found.aggregate, window: found.window };
  if (!found.builtIn) return { ...shared, ...ofUser(found, bare) };
  return { ...shared, varies: found.volatility !== 'immutable', ...ofServer(bare) };
}

function ofUser(found: FoundFunction, name: string): Partial<FunctionVerdict> {
  if (found.native && RANDOM_ONLY.test(name)) return { varies: true };
  // An immutable function promises to read no table (PostgreSQL documentation, 36.7).
  return found.volatility === 'immutable' ? {} : { reads: 'function', varies: true };
}

function ofServer(name: string): Partial<FunctionVerdict> {
  if (READS_TABLES.test(name)) return { reads: 'function' };
  if (name === 'nextval') return { advances: true };
  if (SEQUENCE_STATE.has(name)) return { refused: 'sequence' };
  if (ADVISORY.test(name)) return { refused: 'advisory-lock', alone: true };
  if (LARGE_OBJECT.test(name)) return { refused: 'large-object' };
  if (name === 'set_config') return { refused: 'set-config' };
  return {};
}
