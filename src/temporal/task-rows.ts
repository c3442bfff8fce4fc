/** One task: make the rows of SHOW TASKS: each task that stands on its own, with its subtasks and what they wait for. */
import type { SchemaPart, TaskKind, TaskStatus } from '../cutover/task.js';
import type { SlotAlarm, SlotAlarms } from './slot-alarms.js';
import { isRoot, type Task } from './task-list.js';

export interface SubtaskRow {
  readonly kind: TaskKind;
  /** of schema_sync: which part of the schema */
  readonly part?: SchemaPart;
  readonly source: string;
  readonly destination: string;
  /** its streams run back */
  readonly reversed: boolean;
  readonly status: TaskStatus;
  /** PgDog's inner status, as `syncing data`; empty when none */
  readonly phase: string;
  /** of streams that run, and of their move: their slots that are beyond a limit */
  readonly alarms?: readonly SlotAlarm[];
  readonly reason: string | null;
  readonly startedAt: Date;
  readonly updatedAt: Date;
  /** null while it runs */
  readonly finishedAt: Date | null;
}

export interface TaskRow extends SubtaskRow {
  readonly id: number;
  readonly subtasks: readonly SubtaskRow[];
}

const WAITING = 'waiting for the moment';
const COMPARING = 'comparing';

/** What waits for its moment, and what compares, tells how it goes on with every heartbeat. */
const isTelling = ({ running, state: { kind, phase } }: Task): boolean =>
  running && ((kind === 'cutover' && phase === WAITING) || (kind === 'verify' && phase === COMPARING));

/**
 * Root tasks with their subtasks.
 *
 * @param waitingFor what a running cutover waits for; asked only for those that wait for their moment
 * @param alarms the slots beyond their limits, by the owner of the streams
 */
export async function taskRows(
  tasks: readonly Task[],
  waitingFor: (workflowId: string) => Promise<string | null>,
  alarms: SlotAlarms,
): Promise<readonly TaskRow[]> {
  const waiting = tasks.filter(isTelling);
  const reasons = new Map<Task, string>();
  await Promise.all(
    waiting.map(async (task) => {
      const reason = await waitingFor(task.workflowId);
      if (reason !== null) reasons.set(task, `${task.state.phase}: ${reason}`);
    }),
  );
  const row = (task: Task): SubtaskRow => ({
    ...rowOf(task, phaseOf(task, waiting, reasons)),
    alarms: alarmsOf(task, tasks, alarms),
  });
  return tasks
    .filter((t) => isRoot(t, tasks))
    .map((root) => ({
      id: root.id,
      ...row(root),
      subtasks: tasks.filter((t) => t.parentWorkflowId === root.workflowId && !isRoot(t, tasks)).map(row),
    }));
}

/** A move whose cutover waits for its moment waits itself, for the same. */
function phaseOf(task: Task, waiting: readonly Task[], reasons: ReadonlyMap<Task, string>): string {
  const telling = waiting.find((t) => t === task || (task.running && t.parentWorkflowId === task.workflowId));
  return (telling && reasons.get(telling)) ?? task.state.phase;
}

/** What fills a disk is told where an operator looks first: at the move, not at its streams alone. */
function alarmsOf(task: Task, tasks: readonly Task[], alarms: SlotAlarms): readonly SlotAlarm[] {
  if (!task.running) return [];
  const own = [task, ...tasks.filter((t) => t.running && t.parentWorkflowId === task.workflowId)];
  return own.flatMap(({ workflowId }) => alarms.get(workflowId) ?? []);
}

function rowOf(task: Task, phase: string): SubtaskRow {
  const { kind, part, source, destination, status, reason } = task.state;
  const { startedAt, updatedAt, running } = task;
  return {
    kind,
    ...(part === null ? {} : { part }),
    source,
    destination,
    // A move whose traffic went over is still the same move; only streams are named by the way they run.
    reversed: task.state.reversed && kind === 'replication',
    status,
    phase,
    reason,
    startedAt,
    updatedAt,
    finishedAt: running ? null : updatedAt,
  };
}
