/** One task: exchange two database names of a configuration in memory. */
import { CutoverError } from '../errors/errors.js';
import type { Config, DatabaseEntry } from './config.js';

/** Where a name leads: what tells two sides apart without asking a server. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  /** name of the database on the server */
  readonly databaseName: string;
}

/**
 * The configuration with `a` and `b` exchanged wherever one of them names a database. Servers, credentials and everything
 * else stay; calling it twice gives the first one back. Pure.
 *
 * @throws CutoverError `database_unknown`
 */
export function swapNames(config: Config, a: string, b: string): Config {
  for (const name of [a, b]) {
    if (!config.databases.some((entry) => entry.name === name)) {
      throw new CutoverError('database_unknown', { database: name });
    }
  }
  const ofOther = <Entry extends { readonly database: string }>(entry: Entry): Entry => ({
    ...entry,
    database: exchanged(entry.database, a, b),
  });
  const { tables, schemas, omnisharded, coordinator } = config.sharding;
  return {
    ...config,
    databases: config.databases.map((entry) => ({ ...entry, name: exchanged(entry.name, a, b) })),
    sharding: {
      tables: tables.map(ofOther),
      schemas: schemas.map(ofOther),
      omnisharded: omnisharded.map(ofOther),
      coordinator: coordinator === null ? null : exchanged(coordinator, a, b),
    },
    users: config.users.map(ofOther),
  };
}

/** The other of the two names, or the name itself when it is neither. */
export function exchanged(name: string, a: string, b: string): string {
  if (name === a) return b;
  return name === b ? a : name;
}

/** The primary of shard 0 behind a name; null when the name is not configured. */
export function addressServing(databases: readonly DatabaseEntry[], name: string): ServerAddress | null {
  const entry = databases.find((row) => row.name === name && row.shard === 0 && row.role !== 'replica');
  return entry ? { host: entry.host, port: entry.port, databaseName: entry.databaseName } : null;
}

export function sameAddress(one: ServerAddress, other: ServerAddress): boolean {
  return one.host === other.host && one.port === other.port && one.databaseName === other.databaseName;
}
