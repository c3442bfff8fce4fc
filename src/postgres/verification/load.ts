/** One task: bound what a comparison costs the side that serves: one statement at a time, at work for at most half of the time. */
import { setTimeout as delay } from 'node:timers/promises';

/** Of the time, at most; the rest belongs to the application. */
const BUSY_SHARE = 0.5;
const REST_MAX_MS = 5_000;

export interface Clock {
  /** milliseconds of a clock that only goes on */
  now(): number;
  rest(ms: number): Promise<unknown>;
}

const CLOCK: Clock = { now: () => performance.now(), rest: (ms) => delay(ms) };

export class Load {
  #busyMs = 0;
  #restedMs = 0;
  readonly #clock: Clock;

  constructor(clock: Clock = CLOCK) {
    this.#clock = clock;
  }

  /** how long statements have run on the side that serves */
  get busyMs(): number {
    return this.#busyMs;
  }

  /** Runs a statement on the side that serves. */
  async measured<T>(statement: () => Promise<T>): Promise<T> {
    const start = this.#clock.now();
    try {
      return await statement();
    } finally {
      this.#busyMs += this.#clock.now() - start;
    }
  }

  /** Rests for what was worked since the last rest. */
  async rest(): Promise<void> {
    const workedMs = this.#busyMs - this.#restedMs;
    this.#restedMs = this.#busyMs;
    await this.#clock.rest(Math.min(REST_MAX_MS, (workedMs * (1 - BUSY_SHARE)) / BUSY_SHARE));
  }
}
