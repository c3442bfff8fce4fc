/** One task: keep the idle connections of one pool in the order in which they became idle, and say which are due for what. */
import type { ServerConnection } from './server-connection.js';

/** Times by the monotonic clock, in ms. */
export interface IdleServer {
  readonly server: ServerConnection;
  /** nobody has used it since */
  readonly sinceMs: number;
  /** it was last known to answer */
  readonly heardAtMs: number;
}

export class IdleServers {
  /** who became idle first stands first */
  #entries: IdleServer[] = [];

  get count(): number {
    return this.#entries.length;
  }

  /** @param sinceMs earlier than `heardAtMs` for one that was only checked */
  add(server: ServerConnection, sinceMs: number, heardAtMs: number): void {
    const entry = { server, sinceMs, heardAtMs };
    const last = this.#entries.at(-1);
    if (last === undefined || last.sinceMs <= sinceMs) this.#entries.push(entry);
    else
      this.#entries.splice(
        this.#entries.findIndex((other) => other.sinceMs > sinceMs),
        0,
        entry,
      );
  }

  /** Takes the one that was used last; null: there is none. */
  take(): IdleServer | null {
    for (let entry = this.#entries.pop(); entry !== undefined; entry = this.#entries.pop()) {
      if (entry.server.insideMessage) entry.server.destroy();
      if (entry.server.usable) return entry;
    }
    return null;
  }

  /** Takes the one that was used last of those for which `wanted` is true; null: there is none. */
  takeLast(wanted: (entry: IdleServer) => boolean): IdleServer | null {
    const at = this.#entries.findLastIndex(
      (entry) => entry.server.usable && !entry.server.insideMessage && wanted(entry),
    );
    return at < 0 ? null : (this.#entries.splice(at, 1)[0] ?? null);
  }

  /** Takes all for which `wanted` is true, or all. */
  takeAll(wanted: (entry: IdleServer) => boolean = () => true): readonly IdleServer[] {
    const taken = this.#entries.filter(wanted);
    this.#entries = this.#entries.filter((entry) => !taken.includes(entry));
    return taken.filter(({ server }) => server.usable);
  }

  /** Nothing happens when it is not among them. */
  remove(server: ServerConnection): void {
    const at = this.#entries.findIndex((entry) => entry.server === server);
    if (at >= 0) this.#entries.splice(at, 1);
  }
}
