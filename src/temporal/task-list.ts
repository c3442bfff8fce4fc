/**
 * One task: list the tasks of an installation, from Temporal while it remembers and from the record after that.
 *
 * A task is a workflow. Its number is the second it started in, counted from 2026: stable on every node, with no register
 * to keep, whoever started it. Two in one second: the later one takes the next free number.
 */
import { WorkflowFailedError, WorkflowNotFoundError, type Client } from '@temporalio/client';
import { TASK_EVENTS, type TaskEvent } from '../cutover/contract.js';
import { evolveTask, initialTask, TASK_KINDS, type TaskKind, type TaskState } from '../cutover/task.js';
import { messageOf } from '../errors/errors.js';
import type { Connection } from '../postgres/connection.js';
import { newestStories } from '../postgres/events.js';

const EPOCH_MS = Date.UTC(2026, 0, 1);
/** Of Temporal and of each record: the newest of them. */
const LIST_MAX = 500;
/** A running worker answers in milliseconds; without one Temporal would wait ten seconds for each task. */
const ANSWER_TIMEOUT_MS = 2_000;

/** One workflow as an operator sees it. */
export interface Task {
  readonly id: number;
  readonly workflowId: string;
  readonly parentWorkflowId: string | null;
  readonly state: TaskState;
  readonly startedAt: Date;
  readonly updatedAt: Date;
  readonly running: boolean;
  /** Temporal still knows it: it can be told to do something */
  readonly reachable: boolean;
}

interface Found {
  readonly workflowId: string;
  readonly parentWorkflowId: string | null;
  readonly kind: TaskKind;
  readonly startedAt: Date;
  readonly closedAt: Date | null;
  readonly status: string;
}

const KIND_OF_TYPE: Readonly<Record<string, TaskKind>> = {
  reshard: 'reshard',
  replicate: 'replication',
  cutover: 'cutover',
  schemaSync: 'schema_sync',
  verify: 'verify',
};

/**
 * Everything known, oldest first. A task whose story has no end and that Temporal, asked for it by name, does not know is `lost`.
 *
 * @param client null while Temporal cannot be reached: nobody knows then what became of a story without an end
 * @param records connections to the sides whose record holds events
 */
export async function listTasks(
  client: Client | null,
  taskQueue: string,
  records: readonly Connection[],
): Promise<readonly Task[]> {
  const found = client ? await fromTemporal(client, taskQueue) : new Map<string, Found>();
  const stories = await fromRecord(records);
  for (const [workflowId, story] of stories) {
    if (!client || found.has(workflowId) || story.some(isEnd)) continue;
    const entry = await byName(client, workflowId, story);
    if (entry) found.set(workflowId, entry);
  }
  const ids = new Set([...found.keys(), ...stories.keys()]);
  const tasks: Omit<Task, 'id'>[] = [];
  for (const workflowId of ids) {
    const entry = found.get(workflowId);
    const events = entry && client ? await eventsOf(client, entry, stories.get(workflowId)) : stories.get(workflowId);
    const task = toTask(workflowId, entry ?? null, events ?? [], client !== null);
    tasks.push(entry && client ? await withReason(client, entry, task) : task);
  }
  return numbered(tasks);
}

function numbered(tasks: readonly Omit<Task, 'id'>[]): readonly Task[] {
  const sorted = [...tasks].sort(
    (a, b) => a.startedAt.getTime() - b.startedAt.getTime() || (a.workflowId < b.workflowId ? -1 : 1),
  );
  let last = 0;
  return sorted.map((task) => {
    last = Math.max(last + 1, taskNumber(task.startedAt));
    return { ...task, id: last };
  });
}

export function taskNumber(startedAt: Date): number {
  return Math.max(1, Math.floor((startedAt.getTime() - EPOCH_MS) / 1000));
}

async function fromTemporal(client: Client, taskQueue: string): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  const types = Object.keys(KIND_OF_TYPE)
    .map((t) => `'${t}'`)
    .join(', ');
  const query = `TaskQueue = '${taskQueue}' AND WorkflowType IN (${types})`;
  let seen = 0;
  for await (const info of client.workflow.list({ query })) {
    if (++seen > LIST_MAX) break;
    const kind = Object.hasOwn(KIND_OF_TYPE, info.type) ? KIND_OF_TYPE[info.type] : undefined;
    const earlier = found.get(info.workflowId);
    if (kind === undefined) continue;
    // A workflow that continued as new is listed once for each run: the first start, the last end.
    const startedAt = earlier && earlier.startedAt < info.startTime ? earlier.startedAt : info.startTime;
    const newest =
      !earlier || (earlier.closedAt !== null && earlier.startedAt < info.startTime) || info.closeTime === undefined;
    found.set(info.workflowId, {
      workflowId: info.workflowId,
      parentWorkflowId: info.parentExecution?.workflowId ?? null,
      kind,
      startedAt,
      closedAt: newest ? (info.closeTime ?? null) : earlier.closedAt,
      status: newest ? info.status.name : earlier.status,
    });
  }
  return found;
}

const isEnd = ({ type }: TaskEvent): boolean => ['TaskFinished', 'TaskFailed', 'TaskCancelled'].includes(type);

/** The list may lag behind a start, and ends with the newest: only a workflow that is not there by its name is gone. */
async function byName(client: Client, workflowId: string, story: readonly TaskEvent[]): Promise<Found | null> {
  try {
    const { startTime, closeTime, status, parentExecution } = await client.workflow.getHandle(workflowId).describe();
    return {
      workflowId,
      parentWorkflowId: parentExecution?.workflowId ?? null,
      kind: kindOf(story),
      // Of one that continued as new Temporal tells when its last run began.
      startedAt: dateOf(story[0]?.data.startedAt) ?? startTime,
      closedAt: closeTime ?? null,
      status: status.name,
    };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return null;
    throw error;
  }
}

/** A running workflow answers from memory; an ended one is read from the record, else asked too. */
async function eventsOf(
  client: Client,
  entry: Found,
  recorded: readonly TaskEvent[] | undefined,
): Promise<readonly TaskEvent[]> {
  if (recorded?.some(isEnd) === true) return recorded;
  try {
    const handle = client.workflow.getHandle(entry.workflowId);
    return await client.withDeadline(Date.now() + ANSWER_TIMEOUT_MS, () =>
      handle.query<readonly TaskEvent[]>('events'),
    );
  } catch {
    // No worker runs, it is busy with a pause, or the history is gone: what the record has is the best there is.
    return recorded ?? [];
  }
}

/** Who ended without a word of its own (terminated, timed out, refused at once) left one in Temporal's history. */
async function withReason(client: Client, entry: Found, task: Omit<Task, 'id'>): Promise<Omit<Task, 'id'>> {
  const { status, reason } = task.state;
  const unsaid = ['TERMINATED', 'TIMED_OUT'].includes(entry.status) || reason === null;
  if (task.running || !unsaid || (status !== 'failed' && status !== 'cancelled')) return task;
  const handle = client.workflow.getHandle(entry.workflowId);
  try {
    await client.withDeadline(Date.now() + ANSWER_TIMEOUT_MS, () => handle.result());
    return task;
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) return task;
    return { ...task, state: { ...task.state, reason: messageOf(error.cause ?? error) } };
  }
}

async function fromRecord(records: readonly Connection[]): Promise<Map<string, TaskEvent[]>> {
  const known = new Map<string, Map<number, TaskEvent>>();
  for (const connection of records) {
    for (const { stream, sequence, type: name, data } of await newestStories(connection, LIST_MAX)) {
      const type = TASK_EVENTS.find((t) => t === name);
      const story = known.get(stream) ?? new Map<number, TaskEvent>();
      known.set(stream, story);
      // Both sides tell the same. What a newer program tells is passed over.
      if (type !== undefined && !story.has(sequence)) story.set(sequence, { sequence, type, data });
    }
  }
  const inOrder = (story: Map<number, TaskEvent>): TaskEvent[] =>
    [...story.values()].sort((a, b) => a.sequence - b.sequence);
  return new Map([...known].map(([stream, story]) => [stream, inOrder(story)]));
}

function toTask(
  workflowId: string,
  found: Found | null,
  events: readonly TaskEvent[],
  temporalAnswers: boolean,
): Omit<Task, 'id'> {
  const folded = events.reduce(evolveTask, initialTask(found?.kind ?? kindOf(events), '', ''));
  const lost = temporalAnswers && found === null && !events.some(isEnd);
  const { at: firstAt, startedAt: toldStart, parent } = events[0]?.data ?? {};
  const startedAt = found?.startedAt ?? dateOf(toldStart) ?? dateOf(firstAt) ?? new Date(0);
  return {
    workflowId,
    parentWorkflowId: found?.parentWorkflowId ?? (typeof parent === 'string' ? parent : null),
    state: { ...folded, ...(lost ? LOST : outcomeOf(found)) },
    startedAt,
    updatedAt: found?.closedAt ?? dateOf(events.at(-1)?.data.at) ?? startedAt,
    running: found?.status === 'RUNNING',
    reachable: found !== null,
  };
}

const LOST = { status: 'lost', reason: 'it had not ended when Temporal forgot it' } as const;

function dateOf(value: unknown): Date | null {
  return typeof value === 'string' ? new Date(value) : null;
}

/**
 * Whether a task stands on its own, with a number an operator can name. A subtask does not, but for streams: those that run
 * back are what a rollback names, and those whose move was terminated are what STOP_TASK must be able to end. Once shown,
 * their number stays: also after a rollback, when they run forward again.
 */
export function isRoot(task: Task, tasks: readonly Task[]): boolean {
  const parent = tasks.find((t) => t.workflowId === task.parentWorkflowId);
  if (!parent) return true;
  return task.running && task.state.kind === 'replication' && (task.state.everMoved || !parent.running);
}

/** What Temporal knows better than the story: a terminated workflow could not write its own end. */
function outcomeOf(found: Found | null): Partial<TaskState> {
  switch (found?.status) {
    case undefined:
    case 'RUNNING':
    case 'COMPLETED':
    case 'CONTINUED_AS_NEW':
      return {};
    case 'CANCELLED':
      return { status: 'cancelled' };
    case 'TERMINATED':
      return { status: 'cancelled', reason: 'terminated' };
    case 'TIMED_OUT':
      return { status: 'failed', reason: 'timed out' };
    default:
      return { status: 'failed' };
  }
}

function kindOf(events: readonly TaskEvent[]): TaskKind {
  const kind = events.find((e) => e.type === 'TaskStarted')?.data.kind;
  return TASK_KINDS.find((k) => k === kind) ?? 'reshard';
}
