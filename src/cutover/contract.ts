/**
 * One task: the words that workflows and activities exchange. Plain data: names, sides, LSNs, milliseconds; never a
 * password or a connection string.
 */
import type { EpochEvent, Step } from './epoch.js';
import type { PinnedSide, Side } from './side.js';

/** What an operator asks for: JSON as `temporal workflow start --input` sends it. */
export interface MoveRequest {
  readonly source: string;
  readonly destination: string;
  /** names the table set; absent: every table */
  readonly publication?: string;
  /** go back to the side that served before */
  readonly rollback?: boolean;
  /** needed for cutover_timeout_action = "cutover": swap without parity, writes may be lost */
  readonly acceptLoss?: boolean;
  /** `auto`: tables whose replica identity lacks their sharding column get one for the time of the move; absent: as cutover_prepare says */
  readonly prepare?: 'auto' | 'off';
  /** hold the clients and prove the destination as a cutover would, then give the traffic back on purpose */
  readonly rehearse?: boolean;
}

/** `RESHARD` cuts over by itself; `COPY_DATA` waits for `CUTOVER`. */
export interface ReshardRequest extends MoveRequest {
  readonly cutover?: 'automatic' | 'approved';
}

/** `REPLICATE`: streams between two databases whose schema and rows the operator vouches for. */
export interface ReplicateRequest extends MoveRequest {
  /** a slot the operator made before copying by other means */
  readonly slot?: string;
}

/** How a migration ends: everything taken away, or the new side kept and the old one fenced for good. */
export type Ending = 'remove' | 'finalize';

export interface MoveResult {
  readonly outcome: 'moved' | 'unchanged' | 'rehearsed';
  /** one sentence for a person */
  readonly sentence: string;
  readonly heading: Heading;
  readonly epoch: number | null;
  readonly pausedMs: number | null;
  readonly attempts: number;
  readonly steps: readonly EpochEvent[];
}

export interface Migration {
  /** stable for this move; part of the names of slots, publications and subscriptions */
  readonly id: string;
  /** the name applications connect to */
  readonly database: string;
  readonly peer: string;
  /** where the database served when the migration began */
  readonly source: Side;
  readonly destination: Side;
  readonly publication: string | null;
  /** workflow that owns the streams */
  readonly owner: string;
  /** both servers are 16 or newer: forward and reverse streams run at the same time */
  readonly concurrent: boolean;
  /** time between a commit and an automatic finalize; null = until someone finalizes */
  readonly soakMs: number | null;
  /** tables get a replica identity with their sharding column while the streams run; absent: they have one already */
  readonly prepare?: 'auto';
}

export type Heading = 'forward' | 'reverse';

/** A move of the traffic that the record knows of. Signals between workflows keep no order: the epoch does. */
export interface Turn {
  readonly heading: Heading;
  readonly epoch: number;
}

/** Where a node of the fleet is reached over its admin database. */
export interface NodeAddress {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

/** The reason of an epoch that was aborted because it was a rehearsal: no other abort reads so. */
export const REHEARSAL = 'rehearsal, aborted on purpose';

/** All that the pause needs to know, fixed before it begins. */
export interface EpochPlan {
  readonly migration: Migration;
  /** forward: to the migration's destination; reverse: back to its source */
  readonly heading: Heading;
  readonly epoch: number;
  readonly nonce: string;
  readonly attempt: string;
  /** the sides of this epoch: exchanged for a rollback */
  readonly source: PinnedSide;
  readonly destination: PinnedSide;
  /** the nodes that switch as one */
  readonly nodes: readonly NodeAddress[];
  /**
   * what the apply worker of the destination had counted of errors and conflicts; null or absent: it does not count. Of several streams
   * by their names.
   */
  readonly applyProblems?: number | null | Readonly<Record<string, number | null>>;
  /** `off`: nothing bars writers that bypass the proxy, by cutover_fence = "off"; absent: on */
  readonly fence?: 'on' | 'off';
  readonly leaseMs: number;
  readonly drainMs: number;
  readonly drainAction: 'abort' | 'cancel';
  readonly timeoutMs: number;
  readonly timeoutAction: 'abort' | 'cutover';
  readonly acceptLoss: boolean;
  readonly saveConfig: boolean;
  readonly maxAttempts: number;
  /** ends before the commit, on purpose */
  readonly rehearse?: boolean;
}

/** The outcome of the pause, or of a part of it: data, not an exception, so that Temporal never retries it by itself. */
export type PartResult =
  | { readonly ok: true; readonly events: readonly EpochEvent[]; readonly sealLsn: string | null }
  | { readonly ok: false; readonly events: readonly EpochEvent[]; readonly step: Step; readonly reason: string };

export interface EpochOutcome {
  readonly epoch: number;
  readonly outcome: 'committed' | 'aborted';
  readonly reason: string | null;
  readonly events: readonly EpochEvent[];
  /** pause to resume; null when the clients were never held */
  readonly pausedMs: number | null;
}

export interface Check {
  readonly id: string;
  readonly title: string;
  readonly verdict: 'ok' | 'warning' | 'failed';
  readonly detail: string;
  readonly remedy: string;
}

export interface CopyProgress {
  readonly tablesReady: number;
  readonly tablesTotal: number;
  readonly bytes: number;
  readonly rows: number;
}

/** What a request means against the record, before anything is done. */
export interface Situation {
  readonly migration: Migration | null;
  /** the side that serves the database now */
  readonly serving: 'source' | 'destination';
  /** the last decided epoch; 0 when there was none */
  readonly epoch: number;
  /** since when, ISO time; null when it always did */
  readonly since: string | null;
  readonly streams: boolean;
  /** no workflow is left that could end the migration: its own were terminated */
  readonly orphaned?: boolean;
}

/** One line of a workflow's own story, kept in `cutover.event` beyond Temporal's retention. */
export interface TaskEvent {
  readonly sequence: number;
  readonly type: TaskEventType;
  readonly data: Readonly<Record<string, unknown>>;
}

export const TASK_EVENTS = [
  'TaskStarted',
  'PhaseEntered',
  'PreflightChecked',
  'TablesVerified',
  'AttemptAborted',
  'TrafficMoved',
  'TaskFinished',
  'TaskFailed',
  'TaskCancelled',
] as const;
export type TaskEventType = (typeof TASK_EVENTS)[number];
