/** One task: find TCP ports of 127.0.0.1 that nobody uses. */
import { createServer, type Server } from 'node:net';
import { invariant } from '../errors/invariant.js';

export const LOOPBACK = '127.0.0.1';

/** Ports that belong to the machine's own PostgreSQL, PgBouncer and Temporal; never ours, even when they are free. */
const PORTS_OF_THE_MACHINE = new Set([5432, 6432, 7233, 8233]);
const ATTEMPTS_MAX = 20;

/**
 * Asks the operating system for `count` different free ports. They are free when this returns and not reserved
 * afterwards: use them at once.
 */
export async function freePorts(count: number): Promise<readonly number[]> {
  invariant(count > 0 && count <= 100, 'freePorts() gives between 1 and 100 ports');
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    // All are held open at the same time: that makes them different from one another.
    const servers = await Promise.all(Array.from({ length: count }, listenAnywhere));
    const ports = servers.map(portOf);
    await Promise.all(servers.map(close));
    if (!ports.some((port) => PORTS_OF_THE_MACHINE.has(port))) return ports;
  }
  throw new Error(`no free ports after ${ATTEMPTS_MAX.toString()} attempts`);
}

/** One free port; see {@link freePorts}. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  invariant(port !== undefined, 'freePorts(1) gives one port');
  return port;
}

function listenAnywhere(): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, LOOPBACK, () => {
      resolve(server);
    });
  });
}

function portOf(server: Server): number {
  const address = server.address();
  invariant(address !== null && typeof address === 'object', 'a listening TCP server has a port');
  return address.port;
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      resolve();
    });
  });
}
