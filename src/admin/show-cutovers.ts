/** One task: SHOW CUTOVERS, SHOW EVENTS, the plan of CUTOVER … DRY RUN and the outcome of CUTOVER … REHEARSE. */
import { STEPS } from '../cutover/epoch.js';
import type { AdminResult } from '../proxy/contract.js';
import type { CutoverRow, EventRow, PlanRow, Rehearsal, RehearsalRow } from './ports.js';
import { bigint, numeric, table, text, type Column } from './table.js';

/** Newest attempt first, the eight steps in their order with the milliseconds each took. */
export function showCutovers(cutovers: readonly CutoverRow[]): AdminResult {
  const newestFirst = [...cutovers].sort((a, b) => b.startedAt.getTime() - a.startedAt.getTime() || b.epoch - a.epoch);
  const columns: readonly Column<CutoverRow>[] = [
    bigint('epoch', (row) => row.epoch),
    bigint('task_id', (row) => row.taskId),
    text('database', (row) => row.database),
    text('peer', (row) => row.peer),
    text('heading', (row) => row.heading),
    text('outcome', (row) => row.outcome),
    text('reason', (row) => row.reason),
    text('started_at', (row) => row.startedAt),
    numeric('paused_ms', (row) => row.pausedMs),
    ...STEPS.map((step) => numeric<CutoverRow>(`${snakeCase(step)}_ms`, (row) => row.stepMs[step] ?? null)),
  ];
  return table(columns, newestFirst);
}

/** In the order the port answers them: the story is read from top to bottom. */
export function showEvents(events: readonly EventRow[]): AdminResult {
  const columns: readonly Column<EventRow>[] = [
    text('at', (event) => event.at),
    bigint('task_id', (event) => event.taskId),
    text('stream', (event) => event.stream),
    bigint('sequence', (event) => event.sequence),
    text('event', (event) => event.type),
    text('data', (event) => JSON.stringify(event.data)),
  ];
  return table(columns, events);
}

export function showPlan(plan: readonly PlanRow[]): AdminResult {
  const columns: readonly Column<PlanRow>[] = [
    text('part', (row) => row.part),
    text('name', (row) => row.name),
    text('verdict', (row) => row.verdict),
    text('detail', (row) => row.detail),
    text('remedy', (row) => row.remedy),
  ];
  return table(columns, plan, 'CUTOVER');
}

/** The steps in their order with the milliseconds each took, then how long clients were held in all. */
export function showRehearsal({ taskId, rows, finished }: Rehearsal): AdminResult {
  const columns: readonly Column<RehearsalRow>[] = [
    text('step', (row) => row.step),
    numeric('ms', (row) => row.ms),
    text('detail', (row) => row.detail),
  ];
  const where = finished ? 'SHOW CUTOVERS keeps it' : 'it goes on: see SHOW TASKS, then SHOW CUTOVERS';
  return { ...table(columns, rows, 'CUTOVER'), notices: [`rehearsal, task ${taskId.toString()}: ${where}`] };
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
