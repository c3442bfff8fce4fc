/** One task: the `[[databases]]` rows: defaults, and the combinations that would serve wrongly. */
import type { DatabaseEntry } from './config.js';
import { aliasProblem, poolKeys } from './pool-keys.js';
import { automaticRows, readReplicas, roleKeys } from './replicas.js';
import type { ConfigFile, DatabaseKeys } from './schema.js';
import type { CheckedSource } from './source.js';

type Warn = (sentence: string) => void;

const PORT = 5432;

export function databaseEntries(source: CheckedSource<ConfigFile>): readonly DatabaseEntry[] {
  return (source.data.databases ?? []).map((keys, index) => {
    const problem = aliasProblem(keys);
    if (problem !== null) throw source.invalid(['databases', index, 'max_pool_size'], problem);
    return databaseEntry(keys);
  });
}

/** How many shards a database has; 1 for one that is not configured. Those of a configuration are numbered from 0 on without a gap. */
export function shardCount(databases: readonly DatabaseEntry[], name: string): number {
  return Math.max(0, ...databases.filter((entry) => entry.name === name).map(({ shard }) => shard)) + 1;
}

function databaseEntry(keys: DatabaseKeys): DatabaseEntry {
  return {
    name: keys.name,
    host: keys.host,
    port: keys.port ?? PORT,
    role: keys.role ?? 'primary',
    shard: keys.shard ?? 0,
    databaseName: keys.database_name ?? keys.name,
    ...(keys.user === undefined ? {} : { user: keys.user }),
    ...(keys.password === undefined ? {} : { password: keys.password }),
    ...poolKeys(keys),
    ...roleKeys(keys),
  };
}

/**
 * Refuses what would serve wrongly, warns of what would merely surprise.
 *
 * @param entries the rows of `source`, in the order of the file
 * @param how.asked whether servers are asked which role they have (lsn_check_delay)
 * @throws CutoverError `configuration_invalid`
 */
export function checkDatabases(
  source: CheckedSource<ConfigFile>,
  entries: readonly DatabaseEntry[],
  { adminName, asked }: { readonly adminName: string; readonly asked: boolean },
  warn: Warn,
): void {
  if (entries.length === 0) warn(`${source.file} has no [[databases]]: only the admin database can be reached`);
  for (const name of new Set(entries.map((entry) => entry.name))) {
    const rows = [...entries.entries()].filter(([, entry]) => entry.name === name);
    const first = rows[0]?.[0] ?? 0;
    if (name === adminName) {
      throw source.invalid(['databases', first, 'name'], `database "${name}" has the name of the admin database`);
    }
    for (const shard of new Set(rows.map(([, entry]) => entry.shard))) {
      const ofShard = rows.filter(([, entry]) => entry.shard === shard);
      if (automaticRows(entries, name, shard).length > 0)
        checkAutomatic(source, ofShard, asked && shardCount(entries, name) === 1 ? null : { name, asked });
      else checkPrimary(source, ofShard, name, shard, warn);
    }
    checkShards(source, rows, name);
    if (shardCount(entries, name) > 1 && readReplicas(entries, name).length > 0) {
      warn(`replicas of database "${name}" are not used, as it has several shards: every query goes to a primary`);
    }
  }
}

type Rows = readonly (readonly [index: number, entry: DatabaseEntry])[];

/** Where the file says who the primary is. */
function checkPrimary(source: CheckedSource<ConfigFile>, rows: Rows, name: string, shard: number, warn: Warn): void {
  const primaries = rows.filter(([, { role }]) => role !== 'replica');
  const [first, second] = primaries;
  if (first === undefined)
    throw source.invalid(['databases', rows[0]?.[0] ?? 0], `database "${name}" shard ${String(shard)} has no primary`);
  if (second !== undefined)
    throw source.invalid(
      ['databases', second[0], 'role'],
      `a second primary of database "${name}" shard ${String(shard)}`,
    );
  if (first[1].role === 'auto' && rows.length > 1)
    warn(
      `"role = auto" of database "${name}" is taken as the primary: other rows have a fixed role, so nobody is asked`,
    );
}

/** Where the servers are asked. @param lacking null: all that this needs is there */
function checkAutomatic(
  source: CheckedSource<ConfigFile>,
  rows: Rows,
  lacking: { readonly name: string; readonly asked: boolean } | null,
): void {
  const fixed = rows.find(([, { role }]) => role !== 'auto');
  if (fixed !== undefined)
    throw source.invalid(
      ['databases', fixed[0], 'role'],
      'several rows with "role = auto" take no other role beside them',
    );
  if (lacking === null) return;
  const [index = 0] = rows[0] ?? [];
  const problem = lacking.asked
    ? `several rows with "role = auto" need a database with one shard, and "${lacking.name}" has more`
    : 'several rows with "role = auto" need "lsn_check_delay" in [general]: without it no server is asked which role it has';
  throw source.invalid(['databases', index, 'role'], problem);
}

function checkShards(source: CheckedSource<ConfigFile>, rows: Rows, name: string): void {
  const shards = [...new Set(rows.map(([, entry]) => entry.shard))].sort((a, b) => a - b);
  const gap = shards.findIndex((shard, index) => shard !== index);
  const highest = rows.find(([, entry]) => entry.shard === shards.at(gap === -1 ? -1 : gap))?.[0] ?? 0;
  if (gap !== -1) {
    const problem = `shards of database "${name}" must be numbered from 0 without a gap: ${String(gap)} is missing`;
    throw source.invalid(['databases', highest, 'shard'], problem);
  }
}
