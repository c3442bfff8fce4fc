/** One task: take down what was started, last first, once, whoever asks. */

/** The exit code of a program ended by SIGINT, as shells count it. */
const INTERRUPTED = 130;

export class Cleanup {
  readonly #steps: (() => Promise<void> | void)[] = [];
  #running: Promise<void> | undefined;

  /** Notes what undoes something that was just made; undoes it at once when the taking down has begun. */
  defer(step: () => Promise<void> | void): void {
    if (this.#running === undefined) this.#steps.push(step);
    else this.#running = this.#running.then(step);
  }

  /** Runs every step, the failing ones too, and rejects with the first failure. May be called again, also meanwhile. */
  run(): Promise<void> {
    this.#running ??= this.#all();
    return this.#running;
  }

  async #all(): Promise<void> {
    const failures: unknown[] = [];
    for (const step of this.#steps.reverse()) {
      try {
        await step();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}

/**
 * Resolves at the first signal, with the exit code the process has set already, if any. A second signal ends the process
 * at once; the guardian then stops what it watches.
 */
export function interrupted(): Promise<number> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => {
        resolve(Number(process.exitCode ?? INTERRUPTED));
      });
    }
  });
}
