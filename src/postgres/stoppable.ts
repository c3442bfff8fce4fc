/** One task: work on a connection that can be stopped, however long the statement under way would still take. */
import { setTimeout as delay } from 'node:timers/promises';
import { withConnection, type Connection, type ConnectOptions } from './connection.js';
import type { Endpoint } from './endpoint.js';

const TRY_AGAIN_MS = 1_000;

/** A session for good: the number alone may have passed to another one when a second connection asks for its end. */
interface Session {
  readonly pid: number;
  readonly start: string;
}

/**
 * Runs `work` on a connection of its own. When `stopped` is aborted the server is told, on a second connection, to end the first
 * one's session, which rolls back what is open there (PostgreSQL documentation, 9.28.2, pg_terminate_backend: a role may end its
 * own sessions). Ending the session and not the statement: a cancel between two statements would go unheard.
 *
 * Settles only when the work has ended, so that whoever cleans up meets nothing that still runs.
 *
 * @throws what `stopped` was aborted with, whatever the work then failed with
 */
export async function withStoppableConnection<T>(
  endpoint: Endpoint,
  stopped: AbortSignal,
  work: (connection: Connection) => Promise<T>,
  options?: ConnectOptions,
): Promise<T> {
  stopped.throwIfAborted();
  const ended = new AbortController();
  let onStop: (() => void) | undefined;
  try {
    return await withConnection(
      endpoint,
      async (connection) => {
        const session = await sessionOf(connection);
        onStop = (): void => void endSession(endpoint, session, ended.signal);
        stopped.addEventListener('abort', onStop);
        // A stop that came while this connected was heard by nobody.
        stopped.throwIfAborted();
        return work(connection);
      },
      options,
    );
  } catch (error) {
    stopped.throwIfAborted();
    throw error;
  } finally {
    ended.abort();
    if (onStop) stopped.removeEventListener('abort', onStop);
  }
}

async function sessionOf(connection: Connection): Promise<Session> {
  const { rows } = await connection.query<Session>(
    `SELECT pid, backend_start::text AS start FROM pg_stat_activity WHERE pid = pg_backend_pid()`,
  );
  const [session] = rows;
  if (!session) throw new Error('the server does not know this session');
  return session;
}

/** Until the work has ended: the server may have no room for a second connection at the moment. Never rejects. */
async function endSession(endpoint: Endpoint, { pid, start }: Session, ended: AbortSignal): Promise<void> {
  while (!ended.aborted) {
    await withConnection(endpoint, (other) =>
      other.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2', [
        pid,
        start,
      ]),
    ).catch(() => undefined);
    await delay(TRY_AGAIN_MS, undefined, { signal: ended }).catch(() => undefined);
  }
}
