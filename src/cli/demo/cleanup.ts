/** One task: take down what was started, last first, once, whoever asks. */
import { setTimeout as sleep } from 'node:timers/promises';

/** The exit code of a program ended by SIGINT, as shells count it. */
const INTERRUPTED = 130;
/** What has not ended by then is left to the guardian, which ends every process when this one has ended. */
const STEP_DEADLINE_MS = 30_000;

type Step = () => Promise<void> | void;

export class Cleanup {
  readonly #steps: Step[] = [];
  readonly #deadlineMs: number;
  #running: Promise<void> | undefined;

  /** @param deadlineMs of each step */
  constructor(deadlineMs = STEP_DEADLINE_MS) {
    this.#deadlineMs = deadlineMs;
  }

  /**
   * Notes what undoes something that was just made; undoes it at once when the taking down has begun.
   *
   * @param what is undone, as "the proxy"
   */
  defer(what: string, undo: Step): void {
    const step = (): Promise<void> => inTime(what, undo, this.#deadlineMs);
    if (this.#running === undefined) this.#steps.push(step);
    else this.#running = this.#running.then(step);
  }

  /** Runs every step, the failing and the endless ones too, and rejects with the first failure. May be called again, also meanwhile. */
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

async function inTime(what: string, undo: Step, deadlineMs: number): Promise<void> {
  const late = new AbortController();
  const deadline = sleep(deadlineMs, undefined, { signal: late.signal }).then(() => {
    throw new Error(`${what} did not end within ${deadlineMs.toString()} ms`);
  });
  try {
    await Promise.race([undo(), deadline]);
  } finally {
    deadline.catch(() => undefined);
    late.abort();
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
