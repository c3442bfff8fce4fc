/** One task: know which databases belong to a migration now, so that the proxy can refuse to change the schema of their tables. */
import { setTimeout as delay } from 'node:timers/promises';
import { guardedTables } from '../postgres/migrations.js';
import type { Connections } from '../postgres/connections.js';
import type { Proxy, SchemaGuard } from '../proxy/contract.js';
import type { Directory } from './directory.js';

/** A change that slips through in between is found by the comparison before the switch. */
const LOOK_MS = 2_000;

export interface GuardedNode {
  readonly directory: Directory;
  readonly connections: Connections;
}

/** Looks into the record of every database from time to time. A database that does not answer keeps what was known of it. */
export class SchemaGuardWatch {
  readonly #proxy: Pick<Proxy, 'config'>;
  readonly #node: GuardedNode;
  readonly #guards = new Map<string, SchemaGuard>();
  readonly #stopping = new AbortController();

  constructor(proxy: Pick<Proxy, 'config'>, node: GuardedNode) {
    this.#proxy = proxy;
    this.#node = node;
  }

  /** What clients of this database must not change; null when they may change everything. */
  of(database: string): SchemaGuard | null {
    return this.#proxy.config.cutover.ddl === 'allow' ? null : (this.#guards.get(database) ?? null);
  }

  /** Until close(). */
  async run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      await this.look();
      await delay(LOOK_MS, undefined, { signal: this.#stopping.signal, ref: false }).catch(() => undefined);
    }
  }

  async look(): Promise<void> {
    await Promise.all(this.#node.directory.names.map((name) => this.#ask(name).catch(() => undefined)));
  }

  async #ask(name: string): Promise<void> {
    const { connections, directory } = this.#node;
    const found = await guardedTables(await connections.get(directory.endpoint(name), 'watch'));
    if (found === null) this.#guards.delete(name);
    else this.#guards.set(name, { migration: found.migration, tables: new Set(found.tables) });
  }

  close(): void {
    this.#stopping.abort();
  }
}
