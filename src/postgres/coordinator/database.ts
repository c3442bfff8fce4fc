/** One task: make the empty database of a coordinator, and take a coordinator away again. */
import { quoteIdentifier, quoteLiteral, type Connection } from '../connection.js';
import { coordinatorFailed } from './spec.js';

/** The comment by which a coordinator is known: none but such a database is ever dropped. */
export const MARKER = 'cutover coordinator';

/** The columns for a locale have other names in 15, 16 and 17. */
interface Locale {
  readonly encoding: string;
  readonly datcollate: string;
  readonly datctype: string;
  readonly provider: 'c' | 'i' | 'b';
  readonly locale: string | null;
  readonly rules: string | null;
}

const LOCALE = `
  SELECT pg_encoding_to_char(d.encoding) AS encoding, d.datcollate, d.datctype,
    coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale, to_jsonb(d) ->> 'daticurules' AS rules
  FROM pg_database d WHERE datname = current_database()`;

/**
 * Makes the database with the encoding and the locale of the shard: otherwise `ORDER BY` and `lower()` would answer differently.
 * May be called again: a database of that name stays as it is, and `makeCoordinator` looks at what it is.
 *
 * @param maintenance to any database of the server that shall hold it; not in a transaction
 */
export async function createCoordinatorDatabase(
  maintenance: Connection,
  name: string,
  shard: Connection,
): Promise<void> {
  const { rows } = await shard.query<Locale>(LOCALE);
  const locale = rows[0];
  if (locale === undefined || (await exists(maintenance, name))) return;
  try {
    await maintenance.query(
      `CREATE DATABASE ${quoteIdentifier(name)} TEMPLATE template0 ENCODING ${quoteLiteral(locale.encoding)} ${localeSql(locale)}`,
    );
  } catch (cause) {
    // Somebody else was faster.
    if (await exists(maintenance, name)) return;
    throw coordinatorFailed(name, 'the database was not created', cause);
  }
}

function localeSql({ datcollate, datctype, provider, locale, rules }: Locale): string {
  const libc = `LC_COLLATE ${quoteLiteral(datcollate)} LC_CTYPE ${quoteLiteral(datctype)}`;
  switch (provider) {
    case 'c':
      return libc;
    case 'i':
      return `${libc} LOCALE_PROVIDER icu ICU_LOCALE ${quoteLiteral(locale ?? '')}${rules === null ? '' : ` ICU_RULES ${quoteLiteral(rules)}`}`;
    case 'b':
      return `${libc} LOCALE_PROVIDER builtin BUILTIN_LOCALE ${quoteLiteral(locale ?? '')}`;
  }
}

/**
 * Drops the coordinator and ends the sessions in it; with it go its users' passwords. May be called again.
 *
 * @param maintenance to another database of the same server
 * @returns false when there is none of that name
 * @throws CutoverError `coordinator_failed` for a database that `makeCoordinator` has not made
 */
export async function dropCoordinator(maintenance: Connection, name: string): Promise<boolean> {
  if (!(await exists(maintenance, name))) return false;
  const { rows } = await maintenance.query<{ comment: string | null }>(
    `SELECT shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = $1`,
    [name],
  );
  if (rows[0]?.comment !== MARKER) throw coordinatorFailed(name, 'it was not made by Cutover, so it stays');
  await maintenance.query(`DROP DATABASE IF EXISTS ${quoteIdentifier(name)} WITH (FORCE)`);
  return true;
}

async function exists(maintenance: Connection, name: string): Promise<boolean> {
  const { rows } = await maintenance.query('SELECT FROM pg_database WHERE datname = $1', [name]);
  return rows.length > 0;
}
