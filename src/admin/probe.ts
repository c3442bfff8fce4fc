/** One task: PROBE: measure how long a server takes to be reached and to answer. */
import type { ServerTls } from '../config/tls.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { withConnection } from '../postgres/connection.js';
import { addressOf, type Endpoint } from '../postgres/endpoint.js';

const DEADLINE_MS = 5_000;

/**
 * Connects, asks for one row and leaves.
 *
 * @param url `postgres://user:password@host:port/database`
 * @param tls the rule for servers
 * @returns milliseconds
 * @throws CutoverError `probe_failed`, without the password
 */
export async function probe(url: string, tls: ServerTls): Promise<number> {
  const endpoint = { ...endpointOf(url), tls };
  const start = performance.now();
  try {
    await withConnection(endpoint, (connection) => connection.query('SELECT 1'), {
      applicationName: 'cutover probe',
      connectTimeoutMs: DEADLINE_MS,
      queryTimeoutMs: DEADLINE_MS,
    });
  } catch (error) {
    throw new CutoverError('probe_failed', { address: addressOf(endpoint), problem: messageOf(error) });
  }
  return performance.now() - start;
}

/** libpq's URI (PostgreSQL documentation, 34.1.1.2) without parameters. */
function endpointOf(url: string): Endpoint {
  if (!URL.canParse(url) || !/^postgres(ql)?:/.test(url)) {
    throw new CutoverError('probe_failed', {
      address: 'the URL',
      problem: 'not of the form postgres://user:password@host:port/database',
    });
  }
  const { hostname, port, username, password, pathname } = new URL(url);
  const user = decodeURIComponent(username) || 'postgres';
  return {
    host: hostname.replace(/^\[|\]$/g, '') || 'localhost',
    port: port === '' ? 5432 : Number(port),
    database: decodeURIComponent(pathname.slice(1)) || user,
    user,
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
  };
}
