/** One task: give the `pg` driver a socket that is connected and encrypted already, so that one rule of TLS holds for all. */
import { Socket } from 'node:net';
import type { ClientConfig } from 'pg';
import type { Endpoint } from './endpoint.js';
import { openServerSocket } from './server-socket.js';

/** What of the driver's settings says where to, as whom, and by which socket. */
export interface DriverTarget extends ClientConfig {
  readonly stream: () => Socket;
}

/**
 * The settings of a driver that is to reach `endpoint` within `timeoutMs`, logging in included.
 *
 * Without TLS the driver connects by itself, and they are there at once. With it the socket is open when they are there, and `stream` gives
 * it out once.
 *
 * @throws Error when the server cannot be reached or is not to be trusted
 */
export function connectionTo(endpoint: Endpoint, timeoutMs: number): DriverTarget | Promise<DriverTarget> {
  const { host, port, database, user, password, tls } = endpoint;
  const login = { host, port, database, user, ...(password === undefined ? {} : { password }), ssl: false };
  if (tls === undefined || tls.verify === 'disabled')
    return { ...login, connectionTimeoutMillis: timeoutMs, stream: () => new Socket() };
  return openedTarget(endpoint, timeoutMs, login);
}

async function openedTarget(endpoint: Endpoint, timeoutMs: number, login: ClientConfig): Promise<DriverTarget> {
  const begun = performance.now();
  const socket = connectedAlready(await openServerSocket(endpoint, timeoutMs));
  const leftMs = timeoutMs - (performance.now() - begun);
  return { ...login, connectionTimeoutMillis: Math.max(1, Math.ceil(leftMs)), stream: () => socket };
}

/** The driver says `connect` to every socket, and waits for its answer. */
function connectedAlready(socket: Socket): Socket {
  const connect = (): Socket => {
    process.nextTick(() => {
      socket.emit('connect');
      socket.resume();
    });
    return socket;
  };
  return Object.assign(socket, { connect });
}
