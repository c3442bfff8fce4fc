/** One task: SHOW TASKS. */
import type { AdminResult } from '../proxy/contract.js';
import { formatBytes, formatDuration } from './format.js';
import type { SubtaskRow, TaskRow } from './ports.js';
import { bigint, table, text, type Column } from './table.js';

interface Line {
  readonly id: number | null;
  readonly task: SubtaskRow;
}

/** Newest root task first, each followed by its subtasks in their own order. */
export function showTasks(tasks: readonly TaskRow[], now: Date): AdminResult {
  const newestFirst = [...tasks].sort((a, b) => b.startedAt.getTime() - a.startedAt.getTime() || b.id - a.id);
  const lines = newestFirst.flatMap((task): Line[] => [
    { id: task.id, task },
    ...task.subtasks.map((subtask) => ({ id: null, task: subtask })),
  ]);
  return table(columns(now), lines);
}

function columns(now: Date): readonly Column<Line>[] {
  const elapsedMs = ({ task }: Line): number => (task.finishedAt ?? now).getTime() - task.startedAt.getTime();
  return [
    bigint('id', ({ id }) => id),
    text('scope', ({ id }) => (id === null ? 'subtask' : 'root')),
    text('type', ({ task }) => typeOf(task)),
    text('status', ({ task }) => statusOf(task)),
    text('inner_status', ({ task }) => innerStatusOf(task)),
    text('started_at', ({ task }) => task.startedAt),
    text('updated_at', ({ task }) => task.updatedAt),
    text('elapsed', (line) => formatDuration(elapsedMs(line))),
    bigint('elapsed_ms', elapsedMs),
  ];
}

/** `reshard prod -> prod_new`, `schema_sync(pre) prod -> prod_new`, `replication prod -> prod_new (reverse)` */
function typeOf({ kind, part, source, destination, reversed }: SubtaskRow): string {
  const name = part === undefined ? kind : `${kind}(${part})`;
  return `${name} ${source} -> ${destination}${reversed && kind === 'replication' ? ' (reverse)' : ''}`;
}

/** `failed: …` is PgDog's; the same for `lost`, and for `cancelled`, whose reason may be a person's words in Temporal. */
function statusOf({ status, reason }: SubtaskRow): string {
  if (status === 'failed') return `failed: ${reason ?? 'no reason was recorded'}`;
  return (status === 'cancelled' || status === 'lost') && reason !== null ? `${status}: ${reason}` : status;
}

/** `replicating; alarm: slot cutover_x_forward keeps 12.00 GB of WAL, limit 9.31 GB` */
function innerStatusOf({ phase, alarms = [] }: SubtaskRow): string {
  const told = alarms.map(({ slot, measure, bytes, limitBytes }) => {
    const much = formatBytes(bytes);
    const what = measure === 'lag' ? `is ${much} behind` : `keeps ${much} of WAL`;
    return `alarm: slot ${slot} ${what}, limit ${formatBytes(limitBytes)}`;
  });
  return [phase, ...told].filter((words) => words !== '').join('; ');
}
