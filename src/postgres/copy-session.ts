/**
 * One task: open the connections by which ranges are read and written, and end those of an attempt that is over.
 *
 * They bear the name of their stream: an attempt whose process is frozen or cut off cannot be asked to stop, so the server ends its
 * sessions.
 */
import type pg from 'pg';
import { connect, quoteLiteral, type Connection } from './connection.js';
import type { Endpoint } from './endpoint.js';

/** For what is not the copy itself, which takes as long as it takes. */
const DEADLINE = { query_timeout: 30_000 };
const END_WAIT_MS = 5_000;
const INSUFFICIENT_PRIVILEGE = '42501';

/** What would end a session that works for long or waits between two statements; a firewall forgets one that says nothing. */
const UNLIMITED = `
  SELECT set_config(name, CASE name WHEN 'tcp_keepalives_idle' THEN '60' ELSE '0' END, false) FROM pg_settings
  WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout',
    'tcp_keepalives_idle')`;

/** `application_name` of the sessions that copy for a stream, on both of its servers. */
export function copySessionName(stream: string): string {
  return `${stream}_copy`;
}

/** @param replication understands the commands of the replication protocol, and no parameters */
export async function openCopySession(
  endpoint: Endpoint,
  stream: string,
  { replication = false } = {},
): Promise<Connection> {
  const connection = await connect(endpoint, {
    applicationName: copySessionName(stream),
    queryTimeoutMs: 0,
    replication,
  });
  await ask(connection, UNLIMITED).catch(async (error: unknown) => {
    await connection.end().catch(() => undefined);
    throw error;
  });
  return connection;
}

/** A statement of a moment, with a deadline; without values as a simple query. */
export function ask<Row extends pg.QueryResultRow>(
  connection: Connection,
  text: string,
  values?: readonly unknown[],
): Promise<pg.QueryResult<Row>> {
  return connection.query<Row>({ text, ...(values === undefined ? {} : { values: [...values] }), ...DEADLINE });
}

/** Whether this role may write as a subscription does, past the fence and the triggers; a superuser may, else it is granted from PostgreSQL 15 on. */
export async function mayWriteAsReplica(destination: Connection): Promise<boolean> {
  return destination.query(`SELECT set_config('session_replication_role', 'replica', true)`).then(
    () => true,
    (error: unknown) => {
      if ((error as { code?: string }).code === INSUFFICIENT_PRIVILEGE) return false;
      throw error;
    },
  );
}

/** Ends the sessions that copy for these streams in the database of `connection`, but its own, and waits until they are gone. */
export async function endCopySessions(connection: Connection, streams: readonly string[]): Promise<void> {
  await connection.query(
    `SELECT pg_terminate_backend(pid, ${END_WAIT_MS.toString()}) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND application_name IN (${streams.map((stream) => quoteLiteral(copySessionName(stream))).join(', ')})`,
  );
}
