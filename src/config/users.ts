/** One task: the `[[users]]` rows, expanded to one entry for each (user, database) pair. */
import type { DatabaseEntry, UserEntry } from './config.js';
import { aliasProblem, poolKeys } from './pool-keys.js';
import type { UserKeys, UsersFile } from './schema.js';
import type { CheckedSource } from './source.js';

/**
 * Expands the users. The first entry of a pair counts, as does the first `schema_admin` of a database.
 *
 * @param certificatesAsked whether clients are asked for certificates
 * @throws CutoverError `configuration_invalid` for a user that names no database, or needs a certificate nobody asks for
 */
export function userEntries(
  source: CheckedSource<UsersFile>,
  databases: readonly DatabaseEntry[],
  certificatesAsked: boolean,
  warn: (sentence: string) => void,
): readonly UserEntry[] {
  const known = new Set(databases.map((database) => database.name));
  const entries = new Map<string, UserEntry>();
  const schemaAdmins = new Map<string, string>();
  for (const [index, keys] of (source.data.users ?? []).entries()) {
    const problem = aliasProblem(keys) ?? (databasesOf(keys, known).length === 0 ? noDatabase(keys) : null);
    const certified = certificateKey(keys);
    if (certified !== null && !certificatesAsked)
      throw source.invalid(
        ['users', index, certified],
        `"${certified}" needs "tls_client_ca_certificate" in [general]`,
      );
    if (problem !== null) throw source.invalid(['users', index], problem);
    for (const database of databasesOf(keys, known)) {
      if (!known.has(database)) {
        warn(`user "${keys.name}" is ignored for database "${database}", which is not configured`);
        continue;
      }
      const pair = JSON.stringify([keys.name, database]);
      if (entries.has(pair)) {
        warn(`user "${keys.name}" of database "${database}" is defined twice: the first definition counts`);
        continue;
      }
      const entry = userEntry(keys, database);
      const admin = schemaAdmins.get(database);
      if (entry.schemaAdmin && admin !== undefined) {
        warn(`database "${database}" has two schema_admin users: "${admin}" counts, "${keys.name}" does not`);
      } else if (entry.schemaAdmin) {
        schemaAdmins.set(database, keys.name);
      }
      entries.set(pair, admin === undefined ? entry : { ...entry, schemaAdmin: false });
    }
  }
  return [...entries.values()];
}

/** all_databases has priority over database, which has priority over databases. */
function databasesOf(keys: UserKeys, known: ReadonlySet<string>): readonly string[] {
  if (keys.all_databases === true) return [...known];
  return [...new Set(keys.database === undefined ? (keys.databases ?? []) : [keys.database])];
}

/** A key that means something only where clients are asked for certificates. */
function certificateKey(keys: UserKeys): 'tls_client_certificate_required' | 'identity' | null {
  if (keys.tls_client_certificate_required === true) return 'tls_client_certificate_required';
  return keys.identity === undefined ? null : 'identity';
}

function noDatabase(keys: UserKeys): string | null {
  if (keys.all_databases === true) return null;
  return `user "${keys.name}" has no database: set "database", "databases" or "all_databases"`;
}

function userEntry(keys: UserKeys, database: string): UserEntry {
  const passwords = [keys.password, ...(keys.passwords ?? [])].filter((password) => password !== undefined);
  return {
    name: keys.name,
    database,
    // PostgreSQL accepts no empty password either: it would let anyone in.
    passwords: [...new Set(passwords)].filter((password) => password !== ''),
    ...(keys.password_hash === undefined ? {} : { passwordHash: keys.password_hash }),
    ...(keys.identity === undefined ? {} : { identity: keys.identity }),
    ...(keys.server_user === undefined ? {} : { serverUser: keys.server_user }),
    ...(keys.server_password === undefined ? {} : { serverPassword: keys.server_password }),
    schemaAdmin: keys.schema_admin ?? false,
    ...(keys.tls_client_certificate_required === undefined
      ? {}
      : { clientCertificateRequired: keys.tls_client_certificate_required }),
    ...poolKeys(keys),
  };
}
