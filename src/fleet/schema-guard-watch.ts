/**
 * One task: know which databases belong to a migration now, so that the proxy can refuse to change the schema of their tables, or
 * tell the engine that it was changed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { sideKey } from '../cutover/side.js';
import { messageOf } from '../errors/errors.js';
import type { Connections } from '../postgres/connections.js';
import { guardedTables } from '../postgres/migrations.js';
import { noteSchemaChange } from '../postgres/schema-changes.js';
import type { Proxy, SchemaGuard } from '../proxy/contract.js';
import type { Logger } from '../proxy/logger.js';
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
  readonly #logger: Logger;
  readonly #guards = new Map<string, Omit<SchemaGuard, 'allowed'>>();
  /** changes told of, each kind once for a side of a migration: a client that makes tables all day must not fill the record */
  readonly #told = new Set<string>();
  readonly #stopping = new AbortController();

  constructor(proxy: Pick<Proxy, 'config'>, node: GuardedNode, logger: Logger) {
    this.#proxy = proxy;
    this.#node = node;
    this.#logger = logger;
  }

  /** What a migration carries of this database; null when none does. */
  of(database: string): SchemaGuard | null {
    const guard = this.#guards.get(database);
    return guard ? { ...guard, allowed: this.#proxy.config.cutover.ddl === 'allow' } : null;
  }

  /** A change was let through: written into the record of both sides, by which the engine ends a migration that is not committed. */
  async changed(database: string, change: string): Promise<void> {
    const migration = this.#guards.get(database)?.migration;
    if (migration === undefined) return;
    this.#logger.warn({ database, change, migration }, 'schema change let through');
    try {
      const side = sideKey(await this.#node.directory.sideOf(database));
      const key = `${migration} ${side} ${change}`;
      if (this.#told.has(key)) return;
      this.#told.add(key);
      await this.#tell(migration, { database, change, side }).catch((error: unknown) => {
        this.#told.delete(key);
        throw error;
      });
    } catch (error) {
      this.#logger.error({ database, change, migration, problem: messageOf(error) }, 'schema change not recorded');
    }
  }

  /** On both sides; one that does not answer is told of by the other. */
  async #tell(migration: string, data: Parameters<typeof noteSchemaChange>[2]): Promise<void> {
    const { connections, directory } = this.#node;
    const names = directory.names.filter((name) => this.#guards.get(name)?.migration === migration);
    const outcomes = await Promise.allSettled(
      names.map(async (name) => {
        await noteSchemaChange(await connections.get(directory.endpoint(name), 'watch'), migration, data);
      }),
    );
    const failed = outcomes.find((o) => o.status === 'rejected');
    if (failed && outcomes.every((o) => o.status === 'rejected')) throw failed.reason;
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
