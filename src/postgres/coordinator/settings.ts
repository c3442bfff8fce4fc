/** One task: give a coordinator the settings of the shards' database, those that change an answer's text, and its own. */
import { quoteIdentifier, quoteLiteral, type Connection } from '../connection.js';

export interface DatabaseSetting {
  /** null: the database's own; otherwise of this role in this database */
  readonly role: string | null;
  readonly name: string;
  readonly value: string;
}

/** The same value may be written in several ways: an answer is equal only where these are (PostgreSQL documentation, 19.11). */
const WRITTEN_WITH = [
  'TimeZone',
  'timezone_abbreviations',
  'DateStyle',
  'IntervalStyle',
  'extra_float_digits',
  'bytea_output',
  'xmlbinary',
  'xmloption',
  'lc_monetary',
  'lc_numeric',
  'lc_time',
  'default_text_search_config',
];
const OWN: Readonly<Record<string, string>> = {
  // Joins and groups partition by partition, so that a shard computes its part.
  enable_partitionwise_join: 'on',
  enable_partitionwise_aggregate: 'on',
  // Says to an application in PostgreSQL's own words what the servers' `updatable = false` enforces.
  default_transaction_read_only: 'on',
  // The estimated cost of foreign scans is high, the work that is done here is not.
  jit: 'off',
};
/** Stored as a list of quoted names: written as one string they would be one name. */
const LISTS: ReadonlySet<string> = new Set([
  'search_path',
  'local_preload_libraries',
  'session_preload_libraries',
  'temp_tablespaces',
]);

/**
 * What sessions of the shard's database begin with, before their own settings; later ones win.
 *
 * @param users whose settings for all databases are taken too: the coordinator's server may be another
 */
export async function readSettings(shard: Connection, users: readonly string[]): Promise<readonly DatabaseSetting[]> {
  const { rows } = await shard.query<DatabaseSetting>(
    `SELECT NULL AS role, name, setting AS value FROM pg_settings
     WHERE name = ANY ($1) AND source NOT IN ('client', 'session', 'user', 'database user', 'database')
     UNION ALL
     SELECT role, name, value FROM (
       SELECT r.rolname AS role, split_part(s.line, '=', 1) AS name, substr(s.line, strpos(s.line, '=') + 1) AS value
       FROM pg_db_role_setting d LEFT JOIN pg_roles r ON r.oid = d.setrole, unnest(d.setconfig) AS s (line)
       WHERE d.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
         OR (d.setdatabase = 0 AND (d.setrole = 0 OR r.rolname = ANY ($2)))
       ORDER BY d.setdatabase) AS stored
     WHERE name <> 'default_transaction_read_only'`,
    [WRITTEN_WITH, users],
  );
  return [...rows, ...Object.entries(OWN).map(([name, value]) => ({ role: null, name, value }))];
}

/** The statements that put `settings` in the place of whatever the database has. They may change `search_path` until the commit. */
export function settingsSql(database: string, settings: readonly DatabaseSetting[]): readonly string[] {
  const roles = [...new Set(settings.flatMap(({ role }) => role ?? []))];
  return [
    `ALTER DATABASE ${quoteIdentifier(database)} RESET ALL`,
    ...roles.map((role) => `ALTER ROLE ${quoteIdentifier(role)} IN DATABASE ${quoteIdentifier(database)} RESET ALL`),
    ...settings.flatMap((setting) => settingSql(database, setting)),
  ];
}

function settingSql(database: string, { role, name, value }: DatabaseSetting): readonly string[] {
  const here = quoteIdentifier(database);
  const whose = role === null ? `ALTER DATABASE ${here}` : `ALTER ROLE ${quoteIdentifier(role)} IN DATABASE ${here}`;
  const what = name.split('.').map(quoteIdentifier).join('.');
  if (!LISTS.has(name)) return [`${whose} SET ${what} TO ${quoteLiteral(value)}`];
  return [
    `SELECT set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, true)`,
    `${whose} SET ${what} FROM CURRENT`,
  ];
}
