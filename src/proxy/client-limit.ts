/**
 * One task: bound the connections that clients have: by how many have logged in, and by how many there are at all.
 *
 * Where nobody else fits in, the connection that has taken the longest to log in makes room for the next one. So connections that say
 * nothing keep out neither clients nor administrators nor cancel requests, and what they cost is bounded.
 */
import type { Socket } from 'node:net';
import { CutoverError } from '../errors/errors.js';

/** Connections beyond the limit: for administrators, cancel requests, and for clients that are told why they are refused. */
export const RESERVE = 100;

export class ClientLimit {
  readonly #limit: () => number;
  /** who has logged in to another database than the admin database */
  readonly #clients = new Set<Socket>();
  /** connections on which nobody has logged in, the oldest first, with what ends each */
  readonly #waiting = new Map<object, (error: CutoverError) => void>();

  /** @param limit asked each time, since RELOAD changes it; who is beyond a lower one stays */
  constructor(limit: () => number) {
    this.#limit = limit;
  }

  /**
   * One more connection.
   *
   * @param open how many there are, this one included
   * @param end ends it; called where it must make room for another one
   * @throws CutoverError `clients_exhausted` when there is no room for it either, because everybody else has logged in
   */
  enter(connection: object, open: number, end: (error: CutoverError) => void): void {
    this.#waiting.set(connection, end);
    if (open <= this.#limit() + RESERVE) return;
    for (const [oldest, endOldest] of this.#waiting) {
      if (oldest === connection) throw this.#exhausted();
      this.#waiting.delete(oldest);
      endOldest(this.#exhausted());
      return;
    }
  }

  /** It logs in no longer: somebody has, or it has ended. May be called again. */
  leave(connection: object): void {
    this.#waiting.delete(connection);
  }

  /** @throws CutoverError `clients_exhausted` when no other client may log in */
  expectRoom(): void {
    if (this.#clients.size >= this.#limit()) throw this.#exhausted();
  }

  /** A client has logged in: it counts until its connection is closed. @throws CutoverError `clients_exhausted` */
  add(socket: Socket): void {
    this.expectRoom();
    if (socket.destroyed) return;
    this.#clients.add(socket);
    socket.once('close', () => this.#clients.delete(socket));
  }

  #exhausted(): CutoverError {
    return new CutoverError('clients_exhausted', { limit: this.#limit() });
  }
}
