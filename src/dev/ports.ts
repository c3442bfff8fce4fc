/** One task: find TCP ports of 127.0.0.1 that nobody uses. */
import { randomInt } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import { invariant } from '../errors/invariant.js';
import { reservePort } from './reserved-ports.js';

export const LOOPBACK = '127.0.0.1';

/** Ports that belong to the machine's own PostgreSQL, PgBouncer and Temporal; never ours, even when they are free. */
const PORTS_OF_THE_MACHINE = new Set([5432, 6432, 7233, 8233]);
/**
 * Below the ports that Linux (from 32768 on) and macOS (from 49152 on) give to outgoing connections: one of those would take the port
 * while the process that has it is started again.
 */
const FIRST_PORT = 15_000;
const END_PORT = 32_000;
const ATTEMPTS_MAX = 200;

/**
 * `count` different free ports. They are free when this returns, and nobody who asks for ports here is given one of them as long as this
 * process lives; nor is who is given a port by the operating system.
 */
export async function freePorts(count: number): Promise<readonly number[]> {
  invariant(count > 0 && count <= 100, 'freePorts() gives between 1 and 100 ports');
  const held = new Map<number, Server>();
  // All are held open at the same time: that makes them different from one another.
  for (let attempt = 0; attempt < ATTEMPTS_MAX && held.size < count; attempt += 1) {
    const port = randomInt(FIRST_PORT, END_PORT);
    if (PORTS_OF_THE_MACHINE.has(port) || held.has(port)) continue;
    const server = await listenAt(port);
    if (server === null) continue;
    if (reservePort(port)) held.set(port, server);
    else await close(server);
  }
  await Promise.all([...held.values()].map(close));
  if (held.size < count) throw new Error(`no free ports after ${ATTEMPTS_MAX.toString()} attempts`);
  return [...held.keys()];
}

/** One free port; see {@link freePorts}. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  invariant(port !== undefined, 'freePorts(1) gives one port');
  return port;
}

/** Null where somebody has the port. */
function listenAt(port: number): Promise<Server | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => {
      resolve(null);
    });
    server.listen(port, LOOPBACK, () => {
      resolve(server);
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      resolve();
    });
  });
}
