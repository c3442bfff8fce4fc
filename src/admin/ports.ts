/**
 * One task: what the admin database needs from the rest of the program.
 *
 * The rows are plain data, already decided; the admin database only formats them. `TaskPort` is a thin fold over the events
 * of the workflows, so that an admin database without Temporal still answers everything about traffic.
 */
import type { NodeAnswer } from '../../activities/nodes.js';
import type { FleetNode } from '../fleet/node.js';
import type { AdminResult, Proxy } from '../proxy/contract.js';
import type { Rehearsal } from '../temporal/rehearsal.js';
import type { TaskRow } from '../temporal/task-rows.js';
import type { CutoverTarget, EventRow, PlanRow, StartedTask, StartRequest } from '../temporal/tasks.js';
import type { CutoverRow, SlotRow, TableCopyRow } from '../temporal/views.js';

export type { SchemaPart } from '../cutover/task.js';
export type { Rehearsal, RehearsalRow } from '../temporal/rehearsal.js';
export type { SubtaskRow, TaskRow } from '../temporal/task-rows.js';
export type { CutoverTarget, EventRow, PlanRow, StartRequest } from '../temporal/tasks.js';
export type { CutoverRow, SlotRow, TableCopyRow } from '../temporal/views.js';

export interface AdminPorts {
  readonly proxy: Proxy;
  readonly node: FleetNode;
  readonly tasks: TaskPort;
  /** version of the program, as `0.1.0` */
  readonly version: string;
  /** Reads both files again and puts them into force; rejects with the reason and changes nothing when they are wrong. */
  reload(): Promise<void>;
  /** Runs a command on the other workers of this node; their answers. */
  tellSiblings(statement: string): Promise<readonly AdminResult[]>;
  /** Begins a graceful end of the process; returns at once, so that the command is still answered. */
  shutdown(): void;
}

/** All methods reject with a CutoverError that says why, `temporal_unreachable` among them. */
export interface TaskPort {
  start(request: StartRequest): Promise<StartedTask>;
  /**
   * Asks a task that streams to cut over, or to roll back when it has moved; resolves once the request is taken.
   *
   * @param acceptLoss whether to swap without parity in the end, where the configuration allows it
   */
  cutover(target: CutoverTarget, acceptLoss: boolean): Promise<void>;
  /** Begins to compare every table of both sides; resolves once the task is started. */
  verify(source: string, destination: string): Promise<StartedTask>;
  /** Preflight and plan of that cutover; changes nothing. */
  dryRun(target: CutoverTarget): Promise<readonly PlanRow[]>;
  /** The pause of that cutover up to its commit, which is left out; resolves with its outcome, within a minute. */
  rehearse(target: CutoverTarget): Promise<Rehearsal>;
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
  /** What every node of the fleet answers. */
  nodes(): Promise<readonly NodeAnswer[]>;
  slots(): Promise<readonly SlotRow[]>;
  tableCopies(): Promise<readonly TableCopyRow[]>;
  cutovers(): Promise<readonly CutoverRow[]>;
  /** The events of one task, or the latest of all; at most `limit`. */
  events(taskId: number | null, limit: number): Promise<readonly EventRow[]>;
}
