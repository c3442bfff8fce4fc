/**
 * One task: know the clients from which nothing is read, and look at them from time to time: of such a socket nobody is told that it broke.
 *
 * They are few. To look at all clients would take tens of milliseconds with ten thousand of them, in which nobody is served.
 */

interface Client {
  /** see {@link ClientChannel.look} */
  look(): void;
}

export class UnreadClients {
  readonly #clients = new Set<Client>();

  /** To be said at each change, and that it is read when it is over. */
  note(client: Client, isRead: boolean): void {
    if (isRead) this.#clients.delete(client);
    else this.#clients.add(client);
  }

  /** To be called about twice a second. */
  sweep(): void {
    for (const client of this.#clients) client.look();
  }
}
