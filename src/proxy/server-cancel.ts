/** One task: ask a server to cancel what one of its sessions runs. */
import { connect } from 'node:net';
import { cancelRequest } from '../wire/frontend.js';
import type { ServerConnection } from './server-connection.js';

const CANCEL_TIMEOUT_MS = 5_000;

/**
 * Resolves when the server has closed the connection of the request, which it does after the signal was sent
 * (PostgreSQL documentation, 54.2.8), or could not be reached. Never rejects: whether it had an effect cannot be known.
 */
export function sendCancel(server: ServerConnection): Promise<void> {
  const { host, port } = server.endpoint;
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.setTimeout(CANCEL_TIMEOUT_MS, () => socket.destroy());
    socket.on('error', () => undefined);
    socket.on('close', () => {
      resolve();
    });
    socket.resume();
    socket.write(cancelRequest(server.processId, server.secret));
  });
}
