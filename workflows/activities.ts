/** One task: the activities with their timeouts, their retries and a sentence each for the Temporal UI. */
import {
  ActivityCancellationType,
  proxyActivities,
  proxyLocalActivities,
  type LocalActivityOptions,
} from '@temporalio/workflow';
import type { Activities, PauseActivities } from '../src/cutover/activities.js';
import type { EpochPlan, Migration } from '../src/cutover/contract.js';

/** Failures that no retry mends: the operator must change something. */
const FINAL = [
  'database_unknown',
  'schema_admin_missing',
  'same_database',
  'publication_unknown',
  'preflight_failed',
  'migration_held',
  'streams_missing',
  'schema_failed',
  'not_reversible',
  'stream_lost',
  'slot_limit_exceeded',
  'schema_changed',
  'verify_required',
  'verify_refused',
  'failed_over',
  'sequence_withheld',
  'source_serves',
  'destination_serves',
  'files_name_old_side',
  'record_newer',
  'wrong_server',
  'nodes_not_ready',
];

const RETRY = { initialInterval: '1s', maximumInterval: '30s', nonRetryableErrorTypes: FINAL } as const;

/** A look or a small change: seconds, tried for some minutes. */
export const short = (summary: string): Activities =>
  proxyActivities<Activities>({
    summary,
    startToCloseTimeout: '1 minute',
    scheduleToCloseTimeout: '5 minutes',
    retry: RETRY,
  });

/** Work on a schema without its rows: minutes. */
export const medium = (summary: string): Activities =>
  proxyActivities<Activities>({
    summary,
    startToCloseTimeout: '1 hour',
    // What takes away must not overtake what still makes: a schema loaded after its removal would be left behind.
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    heartbeatTimeout: '15s',
    retry: { ...RETRY, maximumAttempts: 20 },
  });

/** Copies and watches: as long as they take, noticed dead by their heartbeat. */
export const long = (summary: string): Activities =>
  proxyActivities<Activities>({
    summary,
    startToCloseTimeout: '30 days',
    // What comes after a cancel must not meet an activity that still runs: a moment could begin an epoch nobody wants.
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    heartbeatTimeout: '10s',
    retry: RETRY,
  });

/** As `long`, for indexes and comparisons; but what fails in the same way again and again is for a person. */
export const lengthy = (summary: string): Activities =>
  proxyActivities<Activities>({
    summary,
    startToCloseTimeout: '30 days',
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    heartbeatTimeout: '15s',
    retry: { ...RETRY, maximumAttempts: 20 },
  });

/** The way back and the way out must succeed in the end: tried until they do. */
export const untilDone = (summary: string): Activities =>
  proxyActivities<Activities>({
    summary,
    startToCloseTimeout: '2 minutes',
    // An answer that stays the same however often it is asked for: the caller has to do something else.
    retry: { initialInterval: '1s', maximumInterval: '10s', nonRetryableErrorTypes: ['destination_serves'] },
  });

/**
 * As `untilDone`, for a few rows in the record: what a worker that died has begun is begun anew after seconds. Until a cutover has ended its
 * migration takes no other wish, and the one that comes next may be a rollback.
 */
export const soonDone = (summary: string): Activities =>
  proxyActivities<Activities>({
    summary,
    startToCloseTimeout: '10 seconds',
    retry: { initialInterval: '1s', maximumInterval: '10s' },
  });

/** What ends well without: a few tries within seconds, so that a task does not wait to end for a server that is away. */
export const fewTries = (summary: string): Activities =>
  proxyActivities<Activities>({
    summary,
    startToCloseTimeout: '10 seconds',
    scheduleToCloseTimeout: '30 seconds',
    retry: { ...RETRY, maximumAttempts: 3 },
  });

/** The pause, or the way out of it. One try: the workflow decides what follows a failure, and a second try is a second epoch. */
export function localActivity(plan: EpochPlan, summary: string): PauseActivities {
  const options: LocalActivityOptions = {
    summary,
    // Longer than all that its steps wait for: clients, writers that bypass the proxy, parity, standbys.
    startToCloseTimeout: plan.drainMs + 2 * plan.timeoutMs + 4 * plan.leaseMs,
    retry: { maximumAttempts: 1 },
  };
  return proxyLocalActivities<PauseActivities>(options);
}

/** `prod → prod_new`, as summaries and details say it. */
export function route(migration: Migration, heading: 'forward' | 'reverse' = 'forward'): string {
  return heading === 'forward'
    ? `${migration.database} → ${migration.peer}`
    : `${migration.database} ← ${migration.peer}`;
}
