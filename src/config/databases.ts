/** One task: the `[[databases]]` rows: defaults, and the combinations that would serve wrongly. */
import type { DatabaseEntry } from './config.js';
import { aliasProblem, poolKeys } from './pool-keys.js';
import { readReplicas, roleKeys } from './replicas.js';
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
 * @throws CutoverError `configuration_invalid`
 */
export function checkDatabases(
  source: CheckedSource<ConfigFile>,
  entries: readonly DatabaseEntry[],
  adminName: string,
  warn: Warn,
): void {
  if (entries.length === 0) warn(`${source.file} has no [[databases]]: only the admin database can be reached`);
  for (const name of new Set(entries.map((entry) => entry.name))) {
    const rows = [...entries.entries()].filter(([, entry]) => entry.name === name);
    const first = rows[0]?.[0] ?? 0;
    if (name === adminName) {
      throw source.invalid(['databases', first, 'name'], `database "${name}" has the name of the admin database`);
    }
    checkPrimaries(source, rows, name);
    checkShards(source, rows, name);
    if (shardCount(entries, name) > 1 && readReplicas(entries, name).length > 0) {
      warn(`replicas of database "${name}" are not used, as it has several shards: every query goes to a primary`);
    }
  }
}

type Rows = readonly (readonly [index: number, entry: DatabaseEntry])[];

function checkPrimaries(source: CheckedSource<ConfigFile>, rows: Rows, name: string): void {
  const primaries = new Set<number>();
  for (const [index, { role, shard }] of rows) {
    if (role === 'replica') continue;
    if (primaries.has(shard)) {
      const what = role === 'auto' ? 'role "auto" cannot be told apart from another server' : 'a second primary';
      throw source.invalid(['databases', index, 'role'], `${what} of database "${name}" shard ${String(shard)}`);
    }
    primaries.add(shard);
  }
  for (const [index, { shard }] of rows) {
    if (primaries.has(shard)) continue;
    throw source.invalid(['databases', index], `database "${name}" shard ${String(shard)} has no primary`);
  }
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
