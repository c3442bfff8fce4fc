/** One task: open the engine's own connections to PostgreSQL, each with a deadline on everything it does. */
import pg from 'pg';
import { KEEP_ALIVE_MS, keepAliveOptions } from '../config/tcp.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { connectionTo } from './driver-socket.js';
import { addressOf, type Endpoint } from './endpoint.js';

export type Connection = pg.Client;

export interface ConnectOptions {
  readonly applicationName?: string;
  readonly connectTimeoutMs?: number;
  /** client-side deadline of each query; the connection ends when it passes. 0: none, each query has its own */
  readonly queryTimeoutMs?: number;
  /** understands the commands of the replication protocol of this database, and no parameters */
  readonly replication?: boolean;
  /** keeps the search_path that the role has in this database; else it is `pg_catalog` */
  readonly roleSearchPath?: boolean;
}

const CONNECT_TIMEOUT_MS = 5_000;
const QUERY_TIMEOUT_MS = 30_000;

/**
 * Connects as the engine, to the primary where the endpoint has several servers. The caller ends the connection.
 *
 * `client_connection_check_interval` makes a backend notice that its client is gone even while it waits for a lock
 * (PostgreSQL documentation, 20.3.2); `synchronous_commit = on` because a role-level `off` would let a crash lose an
 * acknowledged decision.
 *
 * @throws the error of the driver; CutoverError `primary_unknown`
 */
export async function connect(endpoint: Endpoint, options: ConnectOptions = {}): Promise<Connection> {
  return endpoint.others === undefined ? connectTo(endpoint, options) : connectToPrimary(endpoint, options);
}

async function connectTo(endpoint: Endpoint, options: ConnectOptions): Promise<Connection> {
  const target = connectionTo(endpoint, options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
  const { keepAlive, keepAliveInitialDelay } = keepAliveOptions(endpoint.keepAliveMs ?? KEEP_ALIVE_MS);
  const client = new pg.Client({
    // No turn is given away where nothing has to be waited for.
    ...(target instanceof Promise ? await target : target),
    application_name: options.applicationName ?? 'cutover',
    query_timeout: options.queryTimeoutMs ?? QUERY_TIMEOUT_MS,
    // Over TLS, where the server offers it: as libpq does.
    enableChannelBinding: true,
    keepAlive,
    keepAliveInitialDelayMillis: keepAliveInitialDelay,
    ...(options.replication === true ? { replication: 'database' } : {}),
    options: `-c synchronous_commit=on -c client_connection_check_interval=500ms${options.roleSearchPath === true ? '' : ' -c search_path=pg_catalog'}`,
  });
  // A connection that breaks while idle must not end the process; the next query on it fails and says why.
  client.on('error', () => undefined);
  endWhenLate(client);
  await client.connect();
  return client;
}

/**
 * Of all servers of the endpoint the one that is not in recovery. Two that say so are no answer: the engine reads and writes there which side
 * serves, and nobody knows which of the two others read.
 */
async function connectToPrimary({ others = [], ...first }: Endpoint, options: ConnectOptions): Promise<Connection> {
  const asked = [first, ...others.map((other) => ({ ...first, ...other }))].map(async (endpoint) => {
    const connection = await connectTo(endpoint, options);
    const [row] = await rowsOf<{ recovering: boolean }>(connection, 'SELECT pg_is_in_recovery() AS recovering');
    return { endpoint, connection, isPrimary: row?.recovering === false };
  });
  const answers = await Promise.allSettled(asked);
  const there = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
  const primaries = there.filter(({ isPrimary }) => isPrimary);
  const [primary] = primaries;
  const chosen = primaries.length === 1 ? primary?.connection : undefined;
  for (const { connection } of there) if (connection !== chosen) void connection.end().catch(() => undefined);
  if (chosen !== undefined) return chosen;
  const problems = answers.flatMap((answer) => (answer.status === 'rejected' ? [messageOf(answer.reason)] : []));
  const claims = primaries.map(({ endpoint }) => addressOf(endpoint));
  throw new CutoverError('primary_unknown', {
    problem:
      claims.length > 1
        ? `${claims.join(' and ')} both say that they are the primary`
        : ['every server that answers is a standby', ...problems].join('; '),
  });
}

/** The answer; the connection is ended where there is none. */
async function rowsOf<Row extends pg.QueryResultRow>(connection: Connection, sql: string): Promise<readonly Row[]> {
  try {
    return (await connection.query<Row>(sql)).rows;
  } catch (error) {
    void connection.end().catch(() => undefined);
    throw error;
  }
}

/** What the driver says when the deadline of a query has passed. */
const LATE = 'Query read timeout';

/** When each statement was sent that has no answer yet, oldest first: a server answers in order. */
const unanswered = new WeakMap<Connection, number[]>();

/** For how long the oldest statement without an answer has been waiting for it; 0 when nothing waits. */
export function unansweredMs(connection: Connection): number {
  const since = unanswered.get(connection)?.[0];
  return since === undefined ? 0 : performance.now() - since;
}

/**
 * A query past its deadline has an unknown outcome, and the driver lets every later one queue behind it: on a connection that went
 * silent (a firewall forgot it, a machine lost its power) for as long as TCP goes on trying. So the connection ends there, and
 * whoever needs one connects anew.
 */
function endWhenLate(client: Connection): void {
  const send = client.query.bind(client) as (...given: unknown[]) => unknown;
  const waiting: number[] = [];
  unanswered.set(client, waiting);
  const query = (...given: unknown[]): unknown => {
    const answer = send(...given);
    if (answer instanceof Promise) {
      waiting.push(performance.now());
      answer.then(
        () => waiting.shift(),
        (error: unknown) => {
          waiting.shift();
          if (messageOf(error) === LATE) client.end().catch(() => undefined);
        },
      );
    }
    return answer;
  };
  Object.assign(client, { query });
}

/** Runs `work` on a connection of its own and ends the connection whatever happens. */
export async function withConnection<T>(
  endpoint: Endpoint,
  work: (connection: Connection) => Promise<T>,
  options?: ConnectOptions,
): Promise<T> {
  const connection = await connect(endpoint, options);
  try {
    return await work(connection);
  } finally {
    await connection.end().catch(() => undefined);
  }
}

/** Runs `work` in a transaction of its own: all of it is done, or nothing where it fails. */
export async function inTransaction<T>(connection: Connection, work: () => Promise<T>): Promise<T> {
  await connection.query('BEGIN');
  try {
    const result = await work();
    await connection.query('COMMIT');
    return result;
  } catch (error) {
    // A connection that is broken has rolled back by itself.
    await connection.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/** The next name in double quotes, as PostgreSQL's quote_ident with quoting always on. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A string constant; backslashes make it an E-string (PostgreSQL documentation, 4.1.2). */
export function quoteLiteral(text: string): string {
  return pg.escapeLiteral(text);
}
