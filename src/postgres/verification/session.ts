/** One task: open the connections by which tables are compared: the same value has the same text on both servers. */
import { connect, type Connection } from '../connection.js';
import type { Endpoint } from '../endpoint.js';

/** A statement that is longer than this is a table without a key, or a server in trouble. */
const STATEMENT_TIMEOUT_MS = 6 * 60 * 60_000;
const LOCK_TIMEOUT_MS = 10_000;

/**
 * Everything that an output function looks at (PostgreSQL documentation, 19.11.2 and 8.5), and one process with one core for each
 * statement. Row security would hide rows: with it off a statement that would be filtered is an error.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  lc_monetary: 'C',
  lc_numeric: 'C',
  lc_time: 'C',
  xmlbinary: 'base64',
  quote_all_identifiers: 'off',
  search_path: 'pg_catalog',
  row_security: 'off',
  default_transaction_read_only: 'on',
  max_parallel_workers_per_gather: '0',
  jit: 'off',
  statement_timeout: STATEMENT_TIMEOUT_MS.toString(),
  lock_timeout: LOCK_TIMEOUT_MS.toString(),
};

/** A connection of its own for a comparison. The caller ends it. */
export async function comparingConnection(endpoint: Endpoint): Promise<Connection> {
  const connection = await connect(endpoint, {
    applicationName: 'cutover verify',
    queryTimeoutMs: STATEMENT_TIMEOUT_MS,
  });
  await connection.query('SELECT set_config(name, value, false) FROM json_each_text($1) AS setting (name, value)', [
    JSON.stringify(SETTINGS),
  ]);
  return connection;
}

/** Any number no other program takes: the advisory lock by which one comparison of a database runs at a time. */
const VERIFY_LOCK = 7_283_190_442;

/** False when another comparison of this database runs. Held until the connection ends. */
export async function takeComparison(serving: Connection): Promise<boolean> {
  const { rows } = await serving.query<{ taken: boolean }>('SELECT pg_try_advisory_lock($1) AS taken', [VERIFY_LOCK]);
  return rows[0]?.taken === true;
}

/** The encoding in which the server keeps text: two of them give two hashes for one text. */
export async function encodingOf(connection: Connection): Promise<string> {
  const { rows } = await connection.query<{ encoding: string }>(
    `SELECT current_setting('server_encoding') AS encoding`,
  );
  return rows[0]?.encoding ?? '';
}
