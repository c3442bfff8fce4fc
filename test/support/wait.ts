/** One task: let a test wait for a condition, never for a time. */

const POLL_MS = 10;
/** Most conditions ask a server on a connection of its own, which is work for both: one that takes long is asked less often. */
const POLL_SHARE_OF_WAIT = 0.1;
const POLL_MS_MAX = 100;
const DEADLINE_MS = 15_000;
/** Temporal is asked for each workflow that runs: at 100 a second it does little else. */
export const TASKS_POLL_MS = 200;

/**
 * Resolves with the first value of `condition` that is neither false nor undefined nor null.
 *
 * @param what the condition in words, for the failure
 * @param pollMs at least this long between two looks, for a condition that is much work to look at
 * @throws Error naming `what` when the deadline passes, with the last error `condition` threw as its cause
 */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  deadlineMs = DEADLINE_MS,
  pollMs = POLL_MS,
): Promise<NonNullable<Exclude<T, false>>> {
  const start = performance.now();
  const end = start + deadlineMs;
  let cause: unknown;
  do {
    try {
      const value = await condition();
      if (value !== false && value !== undefined && value !== null) return value as NonNullable<Exclude<T, false>>;
    } catch (error) {
      cause = error;
    }
    const shareMs = Math.min(POLL_MS_MAX, (performance.now() - start) * POLL_SHARE_OF_WAIT);
    await new Promise((resolve) => setTimeout(resolve, Math.max(pollMs, shareMs)));
  } while (performance.now() < end);
  throw new Error(`after ${deadlineMs.toString()} ms still not true: ${what}`, { cause });
}
