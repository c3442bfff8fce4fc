/** One task: put an error of a server into the words of the client that has asked: its own names, and no places in a text that it has not sent. */
import { renameInError, withoutPosition } from '../wire/backend.js';

/**
 * @param nameOf the client's name of a statement that servers know by another one
 * @param hidesPositions a position would point into a text of the proxy's
 * @returns null: the error may stay as it is
 */
export function errorAsAsked(
  error: Buffer,
  nameOf: (serverName: string) => string | undefined,
  hidesPositions: boolean,
): Buffer | null {
  if (!hidesPositions && !error.includes('__cutover_')) return null;
  const serverName = /__cutover_\d+/.exec(error.toString('latin1'))?.[0] ?? '';
  const clientName = nameOf(serverName);
  const placed = hidesPositions ? withoutPosition(error) : Buffer.from(error);
  return clientName === undefined ? placed : renameInError(placed, serverName, clientName);
}
