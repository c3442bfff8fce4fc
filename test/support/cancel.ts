/** One task: ask for the cancellation of what a client of node-postgres runs, as libpq does: on a connection of its own. */
import { connect } from 'node:net';
import type pg from 'pg';
import { cancelRequest } from '../../src/wire/frontend.js';

/**
 * Resolves when the other side has closed the connection of the request, which says nothing of the statement.
 *
 * @param secretOffset other than 0: the secret is a wrong one
 */
export function cancelStatement(
  { host, port }: { readonly host: string; readonly port: number },
  client: pg.Client,
  secretOffset = 0,
): Promise<void> {
  const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
  const secret = Buffer.alloc(4);
  secret.writeInt32BE(secretKey ^ secretOffset);
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.on('close', () => {
      resolve();
    });
    socket.resume();
    socket.write(cancelRequest(processID, secret));
  });
}
