/** One task: let time pass only when the fuzzer says so: setTimeout, setInterval, performance.now and Date of this process. */

interface Timer {
  atMs: number;
  readonly everyMs: number | null;
  readonly run: () => void;
}

/** As much of a NodeJS.Timeout as the product uses. */
class Handle {
  unref(): this {
    return this;
  }

  ref(): this {
    return this;
  }
}

/** What Date says when nothing has passed. */
const BEGUN_AT_MS = Date.UTC(2026, 0, 1);

export class VirtualClock {
  nowMs = 0;
  readonly #timers = new Map<unknown, Timer>();

  /** Takes the timers of this process over, for good. */
  install(): void {
    const set = (run: () => void, delayMs: number, repeats: boolean): Handle => {
      const handle = new Handle();
      const waitMs = Math.max(1, delayMs);
      this.#timers.set(handle, { atMs: this.nowMs + waitMs, everyMs: repeats ? waitMs : null, run });
      return handle;
    };
    const clear = (handle: unknown): void => void this.#timers.delete(handle);
    Object.assign(globalThis, {
      setTimeout: (run: () => void, delayMs = 0) => set(run, delayMs, false),
      setInterval: (run: () => void, delayMs = 0) => set(run, delayMs, true),
      clearTimeout: clear,
      clearInterval: clear,
    });
    const nowMs = (): number => this.nowMs;
    Object.defineProperty(performance, 'now', { configurable: true, value: nowMs });
    globalThis.Date = class extends Date {
      constructor(ms?: number) {
        super(ms ?? BEGUN_AT_MS + nowMs());
      }

      static override now(): number {
        return BEGUN_AT_MS + nowMs();
      }
    } as DateConstructor;
  }

  /** Begins anew: what was to come does not come. */
  reset(): void {
    this.nowMs = 0;
    this.#timers.clear();
  }

  /** Goes to the next timer and runs it. */
  advance(): void {
    let next: readonly [unknown, Timer] | null = null;
    for (const entry of this.#timers) if (next === null || entry[1].atMs < next[1].atMs) next = entry;
    if (next === null) return;
    const [handle, timer] = next;
    this.nowMs = Math.max(this.nowMs, timer.atMs);
    if (timer.everyMs === null) this.#timers.delete(handle);
    else timer.atMs += timer.everyMs;
    timer.run();
  }

  /** timers that are set */
  get size(): number {
    return this.#timers.size;
  }
}
