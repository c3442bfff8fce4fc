/** One task: hold the clients of a database whose record contradicts itself: whichever side is chosen may be the wrong one. */
import type { CutoverError } from '../errors/errors.js';
import type { Proxy } from '../proxy/contract.js';

export interface DistrustLog {
  info(details: object, message: string): void;
}

export class Distrust {
  readonly #proxy: Pick<Proxy, 'gate'>;
  readonly #log: DistrustLog;
  readonly #databases = new Set<string>();

  constructor(proxy: Pick<Proxy, 'gate'>, log: DistrustLog) {
    this.#proxy = proxy;
    this.#log = log;
  }

  has(database: string): boolean {
    return this.#databases.has(database);
  }

  /** Lets nobody through; clients read what is wrong after `patienceMs`. May be called again. */
  raise(database: string, problem: CutoverError, patienceMs: number): void {
    this.#databases.add(database);
    const gate = this.#proxy.gate(database);
    gate.close('recovery');
    gate.fail({ problem, patienceMs });
  }

  /** The record was put right. Nothing happens where it was never wrong. */
  lift(database: string): void {
    if (!this.#databases.delete(database)) return;
    this.#log.info({ database }, 'the record contradicts itself no longer');
    this.#proxy.gate(database).open('recovery');
  }
}
