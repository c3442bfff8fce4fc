/**
 * One task: MAINTENANCE and PAUSE: who asked for which gate to be closed.
 *
 * A gate is closed for a reason while it is asked for globally *or* for its database. The two are kept apart, so that a global
 * OFF does not undo what was asked for one database.
 */
import type { Config } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import type { GateReason } from '../proxy/gate.js';
import type { Proxy } from '../proxy/contract.js';

export class Hold {
  readonly #proxy: Proxy;
  readonly #reason: GateReason;
  readonly #databases = new Set<string>();
  #everywhere = false;

  constructor(proxy: Proxy, reason: Extract<GateReason, 'maintenance' | 'pause'>) {
    this.#proxy = proxy;
    this.#reason = reason;
  }

  /**
   * Begins or ends holding; returns at once, clients in a transaction finish it. May be called again.
   *
   * @param database null for every database, those configured later included
   * @throws CutoverError `database_unknown`
   */
  set(on: boolean, database: string | null): void {
    if (database === null) {
      this.#everywhere = on;
    } else {
      const known = namesOf(this.#proxy.config).has(database) || this.#databases.has(database);
      if (!known) throw new CutoverError('database_unknown', { database });
      if (on) this.#databases.add(database);
      else this.#databases.delete(database);
    }
    this.enforce();
  }

  /** Brings the gates in line with what was asked; to be called after a reload, which may have brought databases. */
  enforce(): void {
    for (const name of namesOf(this.#proxy.config)) {
      const gate = this.#proxy.gate(name);
      if (this.#everywhere || this.#databases.has(name)) gate.close(this.#reason);
      else gate.open(this.#reason);
    }
  }

  /** `all`, or `this database`, or both; null when nothing holds it. */
  scopeOf(database: string): string | null {
    const scopes = [...(this.#everywhere ? ['all'] : []), ...(this.#databases.has(database) ? ['this database'] : [])];
    return scopes.length === 0 ? null : scopes.join(' and ');
  }
}

export function namesOf(config: Config): ReadonlySet<string> {
  return new Set(config.databases.map((entry) => entry.name));
}
