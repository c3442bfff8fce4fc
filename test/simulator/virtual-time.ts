/**
 * One task: put virtual time behind the clocks and timers the product's code uses: setTimeout, setInterval, performance.now and
 * node:timers/promises.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import type { Happening, Scheduler } from './scheduler.js';

const timersPromises = createRequire(import.meta.url)('node:timers/promises') as {
  setTimeout: (delayMs?: number, value?: unknown, options?: { signal?: AbortSignal }) => Promise<unknown>;
};

/** As much of a NodeJS.Timeout as the product uses. */
class VirtualTimer {
  happening: Happening | null = null;

  unref(): this {
    return this;
  }

  ref(): this {
    return this;
  }
}

/** Takes the timers over; answers the function that gives them back. One simulation at a time in a process. */
export function installVirtualTime(scheduler: Scheduler): () => void {
  const real = { setTimeout, clearTimeout, setInterval, clearInterval };
  const delay = timersPromises.setTimeout;

  const arm = (timer: VirtualTimer, delayMs: number, run: () => void): void => {
    timer.happening = scheduler.after(scheduler.current, Math.max(1, delayMs), run);
  };
  const clear = (timer: unknown): void => {
    if (timer instanceof VirtualTimer && timer.happening) timer.happening.cancelled = true;
  };
  const virtual = {
    setTimeout: (run: () => void, delayMs = 0): VirtualTimer => {
      const timer = new VirtualTimer();
      arm(timer, delayMs, run);
      return timer;
    },
    clearTimeout: clear,
    setInterval: (run: () => void, delayMs = 0): VirtualTimer => {
      const timer = new VirtualTimer();
      const beat = (): void => {
        arm(timer, delayMs, beat);
        run();
      };
      arm(timer, delayMs, beat);
      return timer;
    },
    clearInterval: clear,
  };
  Object.assign(globalThis, virtual);
  Object.defineProperty(performance, 'now', { configurable: true, value: () => scheduler.now });
  timersPromises.setTimeout = (delayMs = 0, value?: unknown, options: { signal?: AbortSignal } = {}) =>
    new Promise((resolve, reject) => {
      // As Node's own: less than a millisecond is one.
      const happening = scheduler.after(scheduler.current, Math.max(1, delayMs), () => {
        resolve(value);
      });
      options.signal?.addEventListener('abort', () => {
        happening.cancelled = true;
        reject(new Error('The operation was aborted'));
      });
    });
  syncBuiltinESMExports();
  return () => {
    Object.assign(globalThis, real);
    Reflect.deleteProperty(performance, 'now');
    timersPromises.setTimeout = delay;
    syncBuiltinESMExports();
  };
}
