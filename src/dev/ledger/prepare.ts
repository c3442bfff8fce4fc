/** One task: make the ledger's schema and load its rows. */
import { withConnection, type Connection } from '../../postgres/connection.js';
import type { Endpoint } from '../../postgres/endpoint.js';

export const ACCOUNTS = 1_000;
export const INITIAL_BALANCE = 1_000_000;
export const PUBLICATION = 'ledger';

export interface PrepareOptions {
  /** rows of the table `history`, loaded ahead and never written again; default 1000 */
  readonly rows?: number;
  /** tables `extra_1` … `extra_n`; default 0 */
  readonly extraTables?: number;
  /** the role that owns everything; default the endpoint's own user */
  readonly owner?: string;
}

/** What the loaded table contained when it was loaded; kept outside the database. */
export interface LoadedHistory {
  readonly rows: number;
  readonly checksum: string;
}

const WIDE_DOCUMENTS = 20;
const LOAD_TIMEOUT_MS = 120_000;

/**
 * No unique constraint on a token: it would hide a write that was applied twice. `documents` has no key at all, so that
 * even a row copied twice would show.
 */
const SCHEMA = `
  CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL);
  CREATE TABLE entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token uuid NOT NULL, writer text NOT NULL,
    debited integer NOT NULL, credited integer NOT NULL, amount bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp());
  CREATE INDEX entries_token ON entries (token);
  CREATE TABLE documents (token uuid, body text NOT NULL);
  ALTER TABLE documents REPLICA IDENTITY FULL;
  CREATE INDEX documents_token ON documents (token);
  CREATE TABLE history (id bigint PRIMARY KEY, account integer NOT NULL, note text NOT NULL);
  INSERT INTO accounts SELECT id, ${INITIAL_BALANCE.toString()} FROM generate_series(1, ${ACCOUNTS.toString()}) AS id;
  INSERT INTO documents
    SELECT NULL, repeat(md5(n::text), 6000) FROM generate_series(1, ${WIDE_DOCUMENTS.toString()}) AS n;`;

const CHECKSUM = `SELECT count(*)::integer AS rows,
  coalesce(sum(hashtextextended(id || '/' || account || '/' || note, 0)), 0)::text AS checksum FROM history`;

/** PostgreSQL 15 is the first that publishes a schema (PostgreSQL documentation, release notes of 15). */
const PUBLISH_ALL = `DO $$ BEGIN
  EXECUTE 'CREATE PUBLICATION ${PUBLICATION} FOR '
    || CASE WHEN current_setting('server_version_num')::int < 150000 THEN 'ALL TABLES' ELSE 'TABLES IN SCHEMA public' END;
  END $$`;

/**
 * Makes the tables in the schema `public` of an empty database, fills them, and makes the publication `ledger` for all of
 * them. Not to be called twice.
 */
export function prepareLedger(endpoint: Endpoint, options: PrepareOptions = {}): Promise<LoadedHistory> {
  const { rows = 1_000, extraTables = 0, owner } = options;
  return withConnection(
    endpoint,
    async (connection) => {
      await connection.query('SET search_path = public');
      if (owner !== undefined) await connection.query(`SET ROLE ${connection.escapeIdentifier(owner)}`);
      await connection.query(SCHEMA);
      await connection.query(
        `INSERT INTO history SELECT n, n % ${ACCOUNTS.toString()} + 1, 'entry ' || n FROM generate_series(1, $1) AS n`,
        [rows],
      );
      await makeExtraTables(connection, extraTables);
      await connection.query('RESET ROLE');
      await connection.query(PUBLISH_ALL);
      await connection.query('ANALYZE');
      return readHistory(connection);
    },
    { queryTimeoutMs: LOAD_TIMEOUT_MS, applicationName: 'ledger' },
  );
}

/** Reads the loaded table again, to be compared with what `prepareLedger` gave. */
export async function readHistory(connection: Connection): Promise<LoadedHistory> {
  const { rows } = await connection.query<LoadedHistory>(CHECKSUM.replace('FROM history', 'FROM public.history'));
  return rows[0] ?? { rows: 0, checksum: '' };
}

async function makeExtraTables(connection: Connection, count: number): Promise<void> {
  await connection.query(`DO $$ BEGIN
    FOR n IN 1..${count.toString()} LOOP
      EXECUTE format('CREATE TABLE public.extra_%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token uuid)', n);
    END LOOP; END $$`);
}
