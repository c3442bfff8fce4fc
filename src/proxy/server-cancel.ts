/** One task: ask a server to cancel what one of its sessions runs. */
import { openServerSocket } from '../postgres/server-socket.js';
import { cancelRequest } from '../wire/frontend.js';
import type { ServerConnection } from './server-connection.js';

const CANCEL_TIMEOUT_MS = 5_000;
/** A server that has not stopped so long after it was asked has vanished, or might as well have; as long as the request has time to arrive. */
export const CANCEL_PATIENCE_MS = CANCEL_TIMEOUT_MS;

/**
 * Resolves when the server has closed the connection of the request, which it does after the signal was sent
 * (PostgreSQL documentation, 54.2.8), or could not be reached. Never rejects: whether it had an effect cannot be known.
 *
 * The request is encrypted as the session is: it holds the session's secret.
 */
export async function sendCancel(server: ServerConnection): Promise<void> {
  try {
    const socket = await openServerSocket(server.endpoint, CANCEL_TIMEOUT_MS);
    await new Promise<void>((resolve) => {
      socket.setTimeout(CANCEL_TIMEOUT_MS, () => socket.destroy());
      socket.on('close', () => {
        resolve();
      });
      socket.resume();
      socket.write(cancelRequest(server.processId, server.secret));
    });
  } catch {
    // It was not sent, which its sender learns as little as that it came too late.
  }
}
