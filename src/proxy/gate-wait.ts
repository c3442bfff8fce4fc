/** One task: let one session wait at its gate, for a bounded time. */
import { CutoverError } from '../errors/errors.js';
import type { Gate } from './gate.js';

export class GateWait {
  readonly #gate: Gate;
  readonly #database: string;
  readonly #limitMs: number;
  readonly #passed: () => void;
  readonly #tooLong: (error: CutoverError) => void;
  #leave: () => void = () => undefined;
  #timer: NodeJS.Timeout | null = null;

  constructor(
    gate: Gate,
    database: string,
    limitMs: number,
    passed: () => void,
    tooLong: (error: CutoverError) => void,
  ) {
    this.#gate = gate;
    this.#database = database;
    this.#limitMs = limitMs;
    this.#passed = passed;
    this.#tooLong = tooLong;
  }

  /** Calls `passed` once the gate is open, on this very call if it is open now. */
  begin(): void {
    if (!this.#gate.closed) {
      this.#passed();
      return;
    }
    this.#leave = this.#gate.pass(this.#go);
    this.#timer = setTimeout(this.#expired, this.#limitMs);
  }

  /** Takes the wait back; nothing happens when there is none. */
  leave(): void {
    this.#leave();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  readonly #go = (): void => {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#passed();
  };

  readonly #expired = (): void => {
    this.leave();
    const reasons = this.#gate.reasons.join(', ');
    this.#tooLong(new CutoverError('gate_timeout', { database: this.#database, waitedMs: this.#limitMs, reasons }));
  };
}
