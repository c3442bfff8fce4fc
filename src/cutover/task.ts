/**
 * One task: the state of a workflow as a fold of its own events: what SHOW TASKS, the queries and the audit log tell.
 *
 * Pure. The same events are in the workflow's history and in `cutover.event`.
 */
import type { TaskEvent } from './contract.js';

export const TASK_KINDS = ['reshard', 'copy_data', 'replication', 'cutover', 'schema_sync', 'verify'] as const;
export type TaskKind = (typeof TASK_KINDS)[number];

/** The parts of a schema that SCHEMA_SYNC makes one by one. */
export const SCHEMA_PARTS = ['pre', 'post', 'cutover'] as const;
export type SchemaPart = (typeof SCHEMA_PARTS)[number];

/** `lost` is never told by a task itself: it had not ended when Temporal forgot it. */
export type TaskStatus = 'started' | 'running' | 'finished' | 'cancelled' | 'failed' | 'lost';

export interface TaskState {
  readonly kind: TaskKind;
  /** of schema_sync; null for every other kind */
  readonly part: SchemaPart | null;
  readonly source: string;
  readonly destination: string;
  /** set once traffic has moved: the streams run the other way */
  readonly reversed: boolean;
  /** its traffic has moved at least once */
  readonly everMoved: boolean;
  readonly status: TaskStatus;
  /** PgDog's inner status: `syncing data`, `replicating`, … */
  readonly phase: string;
  readonly reason: string | null;
}

export function initialTask(kind: TaskKind, source: string, destination: string): TaskState {
  return {
    kind,
    part: null,
    source,
    destination,
    reversed: false,
    everMoved: false,
    status: 'started',
    phase: '',
    reason: null,
  };
}

export function evolveTask(state: TaskState, event: TaskEvent): TaskState {
  const text = (key: string): string => {
    const value = event.data[key];
    return typeof value === 'string' ? value : '';
  };
  switch (event.type) {
    case 'TaskStarted':
      return {
        ...state,
        kind: TASK_KINDS.find((k) => k === text('kind')) ?? state.kind,
        source: text('source') || state.source,
        destination: text('destination') || state.destination,
      };
    case 'PhaseEntered':
      return {
        ...state,
        part: SCHEMA_PARTS.find((p) => p === text('part')) ?? state.part,
        status: 'running',
        phase: text('phase'),
      };
    case 'PreflightChecked':
    case 'TablesVerified':
      return state;
    case 'AttemptAborted':
      return { ...state, reason: text('reason') };
    case 'TrafficMoved':
      return { ...state, reversed: text('heading') === 'forward', everMoved: true, reason: null };
    case 'TaskFinished':
      return { ...state, status: 'finished', reason: text('reason') || null };
    case 'TaskFailed':
      return { ...state, status: 'failed', reason: text('reason') };
    case 'TaskCancelled':
      return { ...state, status: 'cancelled', reason: text('reason') || null };
  }
}
