/** One task: keep a workflow's own story: fold it for the queries, and write it into the record once there is one. */
import {
  CancellationScope,
  defineQuery,
  isCancellation,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { Migration, MoveRequest, TaskEvent, TaskEventType } from '../src/cutover/contract.js';
import { evolveTask, initialTask, type TaskKind, type TaskState } from '../src/cutover/task.js';
import { fewTries, soonDone } from './activities.js';

export const stateQuery = defineQuery<TaskState>('state');
export const eventsQuery = defineQuery<readonly TaskEvent[]>('events');

/** What a continued run takes over from the one before. */
export interface JournalMemory {
  readonly events: readonly TaskEvent[];
  readonly written: number;
}

export class Journal {
  #state: TaskState;
  readonly #events: TaskEvent[] = [];
  #written: number;

  constructor(kind: TaskKind, source: string, destination: string, memory?: JournalMemory) {
    this.#state = initialTask(kind, source, destination);
    this.#written = memory?.written ?? 0;
    for (const event of memory?.events ?? []) this.#push(event);
    if (!memory) this.note('TaskStarted', { kind, source, destination, ...origin() });
    setHandler(stateQuery, () => this.#state);
    setHandler(eventsQuery, () => this.#events);
  }

  get state(): TaskState {
    return this.#state;
  }

  get memory(): JournalMemory {
    return { events: this.#events, written: this.#written };
  }

  note(type: TaskEventType, data: TaskEvent['data'] = {}): void {
    this.#push({ sequence: this.#events.length, type, data: { ...data, at: new Date().toISOString() } });
  }

  /** A failure is told once, by whoever knows of it while there is still a record to write it into. */
  failed(error: unknown): void {
    if (this.#state.status === 'failed' || this.#state.status === 'cancelled') return;
    this.note(isCancellation(error) ? 'TaskCancelled' : 'TaskFailed', { reason: sentenceOf(error) });
  }

  #push(event: TaskEvent): void {
    this.#events.push(event);
    this.#state = evolveTask(this.#state, event);
    const { kind, source, destination, phase, status, reason } = this.#state;
    setCurrentDetails(
      `**${kind}** ${source} → ${destination}: ${phase || status}${reason === null ? '' : ` (${reason})`}`,
    );
  }

  /** Appends what is new to the record. Before a migration is claimed there is no record to write to. */
  async write(migration: Migration): Promise<void> {
    const fresh = this.#events.slice(this.#written);
    if (fresh.length === 0) return;
    await soonDone('Write the story of this task into the record').recordEvents(
      migration,
      workflowInfo().workflowId,
      fresh,
    );
    this.#written += fresh.length;
  }

  /**
   * The end of a task that holds no migration: appended where a record is, and kept by Temporal alone where none is or none
   * answers. Never fails: the task has ended either way.
   */
  async writeWhereKept(request: MoveRequest): Promise<void> {
    const fresh = this.#events.slice(this.#written);
    if (fresh.length === 0) return;
    await CancellationScope.nonCancellable(() =>
      fewTries('Write how this task ended into the record, where there is one').keepEvents(
        request,
        workflowInfo().workflowId,
        fresh,
      ),
    ).catch(() => undefined);
    this.#written += fresh.length;
  }
}

/** What Temporal knows of a workflow and the record would not: its number and its place in SHOW TASKS follow from both. */
function origin(): TaskEvent['data'] {
  const { startTime, parent } = workflowInfo();
  return { startedAt: startTime.toISOString(), ...(parent ? { parent: parent.workflowId } : {}) };
}

/** The sentence of a failure, from the innermost cause that has one. */
export function sentenceOf(error: unknown): string {
  let [current, sentence] = [error, 'unknown failure'];
  for (let depth = 0; current instanceof Error && depth < 10; depth++) {
    if (current.message !== '') sentence = current.message;
    current = current.cause;
  }
  return sentence;
}
