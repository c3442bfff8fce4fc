/** One task: give the admin database the commands of a move, and read from its views what became of them. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Endpoint } from '../../postgres/endpoint.js';

export type AdminRow = Readonly<Record<string, string | boolean | null>>;

/** One row of SHOW TABLE_COPIES. */
export interface TableCopy {
  readonly table: string;
  /** where it is copied to; null: the destination has one */
  readonly shard: string | null;
  readonly rows: string;
  readonly bytes: string;
  readonly perSecond: string;
}

/** One finished attempt to move the traffic, from SHOW CUTOVERS and SHOW EVENTS. */
export interface Move {
  readonly epoch: number;
  readonly heading: string;
  readonly outcome: string;
  readonly reason: string | null;
  /** pause to resume */
  readonly pausedMs: number;
  /** when the clients were held, milliseconds since 1970 */
  readonly pausedAtMs: number;
  readonly resumedAtMs: number;
  /** the eight steps in their order */
  readonly steps: readonly { readonly name: string; readonly ms: number }[];
}

export interface Task {
  readonly id: string;
  readonly type: string;
  readonly status: string;
  readonly phase: string;
}

/** What may be told to a person while the operator waits. */
export interface WaitListener {
  onPhase?(phase: string): void;
  onCopies?(copies: readonly TableCopy[]): void;
  /** an attempt that was aborted; the engine tries again */
  onAborted?(move: Move): void;
  /** between two looks; default 200 */
  readonly pollMs?: number;
}

const QUERY_TIMEOUT_MS = 30_000;
const POLL_MS = 200;

export class Operator {
  readonly #client: pg.Client;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  static async connect(admin: Endpoint): Promise<Operator> {
    const client = new pg.Client({ ...admin, query_timeout: QUERY_TIMEOUT_MS, application_name: 'cutover demo' });
    client.on('error', () => undefined);
    await client.connect();
    return new Operator(client);
  }

  async end(): Promise<void> {
    await this.#client.end().catch(() => undefined);
  }

  async command(text: string): Promise<readonly AdminRow[]> {
    return (await this.#client.query<AdminRow>(text)).rows;
  }

  /** Starts a move and answers the id of its task. */
  async reshard(source: string, destination: string, publication: string): Promise<string> {
    const [row] = await this.command(`RESHARD ${source} ${destination} ${publication}`);
    return text(row, 'task_id');
  }

  async tasks(): Promise<readonly Task[]> {
    const rows = await this.command('SHOW TASKS');
    return rows
      .filter((row) => row.scope === 'root')
      .map((row) => ({
        id: text(row, 'id'),
        type: text(row, 'type'),
        status: text(row, 'status'),
        phase: text(row, 'inner_status'),
      }));
  }

  /** The task by which the last move is taken back: streams that run the other way. */
  async reverseTask(deadlineMs: number): Promise<string> {
    const end = performance.now() + deadlineMs;
    while (performance.now() < end) {
      const task = (await this.tasks()).find(({ type, status }) => type.endsWith('(reverse)') && status === 'running');
      if (task) return task.id;
      await sleep(POLL_MS);
    }
    throw new Error(`SHOW TASKS has no reverse replication after ${deadlineMs.toString()} ms`);
  }

  async copies(): Promise<readonly TableCopy[]> {
    const rows = await this.command('SHOW TABLE_COPIES');
    return rows.map((row) => ({
      table: `${text(row, 'schema')}.${text(row, 'table')}`,
      shard: /_forward_\d+_(\d+)$/.exec(text(row, 'stream'))?.[1] ?? null,
      rows: text(row, 'rows_human'),
      bytes: text(row, 'bytes_human'),
      perSecond: text(row, 'bytes_per_sec_human'),
    }));
  }

  /** The highest epoch there is; 0 before the first move. */
  async lastEpoch(): Promise<number> {
    const rows = await this.command('SHOW CUTOVERS');
    return Math.max(0, ...rows.map((row) => Number(row.epoch)));
  }

  /**
   * Waits until an epoch after `epoch` is committed and its clients have been let go.
   *
   * @throws Error when `taskId` ends or fails instead, or at the deadline
   */
  async untilMoved(taskId: string, epoch: number, deadlineMs: number, listener: WaitListener = {}): Promise<Move> {
    const end = performance.now() + deadlineMs;
    const told = new Set<number>();
    let phase = '';
    while (performance.now() < end) {
      listener.onCopies?.(await this.copies());
      const task = (await this.tasks()).find(({ id }) => id === taskId);
      if (task && task.phase !== phase) listener.onPhase?.((phase = task.phase));
      for (const move of await this.#movesAfter(epoch)) {
        if (move.outcome === 'committed') return move;
        if (!told.has(move.epoch)) listener.onAborted?.(move);
        told.add(move.epoch);
      }
      if (task?.status.startsWith('failed')) throw new Error(`task ${taskId}: ${task.status}`);
      await sleep(listener.pollMs ?? POLL_MS);
    }
    throw new Error(`no cutover was committed within ${(deadlineMs / 1_000).toString()} s`);
  }

  /** Epochs after `epoch` that are over: decided, and their clients let go. */
  async #movesAfter(epoch: number): Promise<readonly Move[]> {
    const rows = (await this.command('SHOW CUTOVERS')).filter((row) => Number(row.epoch) > epoch);
    const over = rows.filter((row) => row.paused_ms !== null || row.outcome === 'aborted');
    if (over.length === 0) return [];
    const events = await this.command('SHOW EVENTS');
    return over.map((row) => moveOf(row, events));
  }
}

function moveOf(row: AdminRow, events: readonly AdminRow[]): Move {
  const pausedMs = Number(row.paused_ms ?? 0);
  const pausedAtMs = timeOf(events, text(row, 'epoch'), 'TrafficPaused');
  const steps = Object.entries(row)
    .filter(([name, ms]) => name.endsWith('_ms') && name !== 'paused_ms' && ms !== null)
    .map(([name, ms]) => ({ name: camelCase(name.slice(0, -'_ms'.length)), ms: Number(ms) }));
  return {
    epoch: Number(row.epoch),
    heading: text(row, 'heading'),
    outcome: text(row, 'outcome'),
    reason: row.reason === null ? null : text(row, 'reason'),
    pausedMs,
    pausedAtMs,
    resumedAtMs: pausedAtMs + pausedMs,
    steps,
  };
}

/** The time in an event's own data: when it happened, not when it was written down. */
function timeOf(events: readonly AdminRow[], epoch: string, type: string): number {
  const event = events.find((row) => row.event === type && text(row, 'stream').endsWith(`@${epoch}`));
  const data = JSON.parse(event === undefined ? '{}' : text(event, 'data')) as { readonly at?: unknown };
  return typeof data.at === 'string' ? Date.parse(data.at) : NaN;
}

function text(row: AdminRow | undefined, column: string): string {
  const value = row?.[column];
  if (typeof value !== 'string') throw new Error(`the admin database answered without ${column}`);
  return value;
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
