/**
 * One task: what the admin database needs from the rest of the program.
 *
 * The rows are plain data, already decided; the admin database only formats them. `TaskPort` is a thin fold over the events
 * of the workflows, so that an admin database without Temporal still answers everything about traffic.
 */
import type { FleetNode } from '../fleet/node.js';
import type { Proxy } from '../proxy/contract.js';
import type { Heading } from '../cutover/contract.js';
import type { Step } from '../cutover/epoch.js';
import type { TaskKind, TaskStatus } from '../cutover/task.js';

export interface AdminPorts {
  readonly proxy: Proxy;
  readonly node: FleetNode;
  readonly tasks: TaskPort;
  /** version of the program, as `0.1.0` */
  readonly version: string;
  /** Reads both files again and puts them into force; rejects with the reason and changes nothing when they are wrong. */
  reload(): Promise<void>;
  /** Begins a graceful end of the process; returns at once, so that the command is still answered. */
  shutdown(): void;
}

/** All methods reject with a CutoverError that says why, `temporal_unreachable` among them. */
export interface TaskPort {
  start(request: StartRequest): Promise<StartedTask>;
  /** Asks a task that streams to cut over, or to roll back when it has moved; resolves once the request is taken. */
  cutover(target: CutoverTarget): Promise<void>;
  /** Preflight and plan of that cutover; changes nothing. */
  dryRun(target: CutoverTarget): Promise<readonly PlanRow[]>;
  /**
   * Stops the task, which finalizes it when its traffic has moved; resolves once the request is taken.
   *
   * @param save whether to save the swapped configuration first, without which finalizing is refused
   */
  stop(taskId: number, save: boolean): Promise<'OK' | 'task not found'>;
  /** Forgets the tombstone of a side that does not serve. */
  retire(database: string): Promise<void>;
  /** Root tasks in any order. */
  list(): Promise<readonly TaskRow[]>;
  slots(): Promise<readonly SlotRow[]>;
  tableCopies(): Promise<readonly TableCopyRow[]>;
  cutovers(): Promise<readonly CutoverRow[]>;
  /** The events of one task, or the latest of all; at most `limit`. */
  events(taskId: number | null, limit: number): Promise<readonly EventRow[]>;
}

export interface StartRequest {
  readonly kind: Exclude<TaskKind, 'cutover'>;
  readonly source: string;
  readonly destination: string;
  readonly publication: string;
  readonly slot?: string;
  /** with kind schema_sync: which part of the schema */
  readonly part?: SchemaPart;
}

export type SchemaPart = 'pre' | 'post' | 'cutover';

export interface StartedTask {
  readonly taskId: number;
  /** the slot that will be used, where it is known */
  readonly replicationSlot?: string;
}

/** A task by its id, a task by a name it is about, or the only one that can. */
export type CutoverTarget = { readonly taskId: number } | { readonly name: string } | null;

export interface PlanRow {
  readonly part: 'preflight' | 'plan';
  /** id of the check or of the step */
  readonly name: string;
  readonly verdict: 'ok' | 'warning' | 'failed' | 'will run';
  readonly detail: string;
  readonly remedy: string;
}

export interface SubtaskRow {
  readonly kind: TaskKind;
  readonly part?: SchemaPart;
  readonly source: string;
  readonly destination: string;
  /** its streams run back */
  readonly reversed: boolean;
  readonly status: TaskStatus | 'cancelling';
  /** PgDog's inner status, as `syncing data`; empty when none */
  readonly phase: string;
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

export interface SlotRow {
  readonly host: string;
  readonly port: number;
  readonly databaseName: string;
  readonly name: string;
  /** confirmed position, `X/Y`; null before the first one */
  readonly lsn: string | null;
  readonly lagBytes: number | null;
  /** a temporary slot of one table's copy */
  readonly copyData: boolean;
  readonly lastTransactionAt: Date | null;
}

export interface TableCopyRow {
  readonly schema: string;
  readonly table: string;
  readonly rows: number;
  readonly bytes: number;
  readonly startedAt: Date;
  readonly sql: string;
}

/** One attempt to move the traffic. */
export interface CutoverRow {
  readonly epoch: number;
  readonly taskId: number | null;
  readonly database: string;
  readonly peer: string;
  readonly heading: Heading;
  readonly outcome: 'running' | 'committed' | 'aborted';
  readonly reason: string | null;
  readonly startedAt: Date;
  /** pause to resume; null when the clients were not held */
  readonly pausedMs: number | null;
  readonly stepMs: Readonly<Partial<Record<Step, number>>>;
}

export interface EventRow {
  readonly at: Date;
  readonly taskId: number | null;
  readonly stream: string;
  readonly sequence: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}
