/** One task: the limits of patience: how often a cutover is tried, and how long the engine waits in between. */

/** Gates stay open at least one lease between two attempts, so that held clients get through; doubled up to a minute. */
export function pauseBetweenAttemptsMs(attempt: number, leaseMs: number): number {
  return Math.min(60_000, Math.max(1_000, leaseMs) * 2 ** Math.min(attempt - 1, 5));
}

/** Temporal takes no longer one. */
const WORKFLOW_TASK_TIMEOUT_MAX_MS = 120_000;

/**
 * The timeout of the workflow task that holds the pause. A worker that dies is noticed after this time, so it is short; it must
 * exceed the lease so that the nodes have decided before another worker runs the task again.
 */
export function workflowTaskTimeoutMs(leaseMs: number): number {
  return Math.min(WORKFLOW_TASK_TIMEOUT_MAX_MS, Math.max(2_000, Math.ceil(leaseMs / 0.8) + 500));
}

/** A watch activity returns after this time and the workflow continues as new, so that histories stay short. */
export const WATCH_MS = 10 * 60_000;
export const WATCHES_PER_RUN = 50;

/** A renewal must reach a node and be answered several times within one lease, and so must a question to the record. */
export const ROUND_TRIPS_IN_LEASE = 6;
