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
  #begunAt = 0;

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
    this.#begunAt = performance.now();
    this.#leave = this.#gate.pass(this.#go, this.#arm);
    this.#arm();
  }

  /** Takes the wait back; nothing happens when there is none. */
  leave(): void {
    this.#leave();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** A gate of which nobody can say when it opens is waited for less long. */
  readonly #arm = (): void => {
    if (this.#timer !== null) clearTimeout(this.#timer);
    const limitMs = Math.min(this.#limitMs, this.#gate.outage?.patienceMs ?? this.#limitMs);
    this.#timer = setTimeout(this.#expired, Math.max(0, this.#begunAt + limitMs - performance.now()));
  };

  readonly #go = (): void => {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#passed();
  };

  readonly #expired = (): void => {
    this.leave();
    const reasons = this.#gate.reasons.join(', ');
    const problem = this.#gate.outage?.problem;
    this.#tooLong(
      problem ?? new CutoverError('gate_timeout', { database: this.#database, waitedMs: this.#limitMs, reasons }),
    );
  };
}
