/**
 * One task: the activities as workflows see them. Each may be called again: a retry continues or finds the work done.
 */
import type {
  Check,
  CopyProgress,
  EpochOutcome,
  EpochPlan,
  Heading,
  Migration,
  MoveRequest,
  PartResult,
  Situation,
  TaskEvent,
  Turn,
} from './contract.js';
import type { VerifyResult } from './verification.js';

/** Ordinary activities: scheduled by the server, retried, heartbeating where they are long. */
export interface Activities {
  /** What the request means now; changes nothing. */
  assessSituation(request: MoveRequest): Promise<Situation>;
  /** Every check with its verdict; changes nothing. Fails with `preflight_failed` when one of them forbids the move. */
  runPreflight(request: MoveRequest, purpose: 'copy' | 'streams'): Promise<readonly Check[]>;
  /** Takes the pair of databases for `owner`, installing the record on both sides. Fails with `migration_held`. */
  claimMigration(request: MoveRequest, owner: string): Promise<Migration>;
  /** Makes tables and primary keys at the destination, and fences them. */
  loadSchema(migration: Migration): Promise<{ statements: number }>;
  /** SCHEMA_SYNC: one part of the schema alone; changes nothing that is there. */
  syncSchema(part: 'pre' | 'post' | 'cutover', request: MoveRequest): Promise<{ statements: number }>;
  /** Makes the forward streams, with nothing but the marker in them yet. */
  createStreams(migration: Migration, options: { copyData: boolean; slot?: string }): Promise<void>;
  /** Adds the tables, largest first, and returns once every one is in step. Heartbeats its progress. */
  copyTables(migration: Migration): Promise<CopyProgress>;
  /** Makes indexes and constraints, arms both fences, analyses, refreshes materialised views. */
  finaliseSchema(migration: Migration): Promise<{ statements: number }>;
  /** Arms the fence on both sides: for streams whose schema was there before. */
  armFences(migration: Migration): Promise<void>;
  /** Makes the reverse streams where both servers are 16 or newer, and sees them healthy. */
  createReverseStreams(migration: Migration): Promise<void>;
  /**
   * Watches the streams, heartbeating; returns after a while so that the history stays short. Returns at once, with the move
   * that was missed, when the record says that another side serves than `moved` says. Fails when a stream is lost.
   */
  watchStreams(migration: Migration, moved: boolean): Promise<Turn | null>;
  /** Takes everything away that the migration made: for an end before any commit. */
  removeMigration(migration: Migration, reason: string): Promise<void>;
  /** Fails with the reason when the migration cannot be finalized now; changes nothing. */
  checkFinalizable(migration: Migration): Promise<void>;
  /** After a commit: streams, slots, publications and roles gone, the old side fenced for good. */
  finalizeMigration(migration: Migration): Promise<void>;
  claimOperation(migration: Migration, operation: string): Promise<void>;
  releaseOperation(migration: Migration, operation: string): Promise<void>;
  /** Waits for the right moment, readies everything that can be done ahead, and begins the epoch. Heartbeats the reason it waits for. */
  awaitMoment(request: MomentRequest): Promise<EpochPlan>;
  /**
   * Compares every table on both sides and keeps the result in the record; differences are part of it. Heartbeats its progress,
   * and goes on from there when it is tried again.
   */
  verifyTables(migration: Migration): Promise<VerifyResult>;
  /** Resolves an epoch whose pause did not report, from the record. */
  resolvePause(plan: EpochPlan, reason: string): Promise<EpochOutcome>;
  /** Writes the story of the pause to both sides, and ends what the epoch leaves behind. */
  writeTimeline(plan: EpochPlan, outcome: EpochOutcome): Promise<void>;
  /** Appends a workflow's own story to the record. */
  recordEvents(migration: Migration, stream: string, events: readonly TaskEvent[]): Promise<void>;
  /** The same for a workflow that holds no migration: at those of its two databases that have a record. Makes none. */
  keepEvents(request: MoveRequest, stream: string, events: readonly TaskEvent[]): Promise<void>;
}

export interface MomentRequest {
  readonly migration: Migration;
  readonly heading: Heading;
  /** names the attempt for good, so that a repeat gets the same epoch */
  readonly attempt: string;
  readonly acceptLoss: boolean;
  readonly rehearse?: boolean;
  /** the first attempt of this cutover: what takes long and stays done is done now */
  readonly first?: boolean;
}

/** Local activities: the pause. They answer data and never throw for what an operator can cause. */
export interface PauseActivities {
  /** Steps 1 to 8; to 5 in a rehearsal. */
  moveTraffic(plan: EpochPlan): Promise<PartResult>;
  /** The way out of a pause that failed: aborts it unless it is committed, and opens the side that serves. */
  returnToSource(plan: EpochPlan, reason: string): Promise<{ outcome: 'committed' | 'aborted'; reason: string }>;
}
