/** One task: the whole move: schema, copy, indexes, streams, cutover, soak, end. */
import {
  CancellationScope,
  condition,
  isCancellation,
  ParentClosePolicy,
  setHandler,
  startChild,
  workflowInfo,
  type ChildWorkflowHandle,
} from '@temporalio/workflow';
import type { Ending, Heading, Migration, MoveResult, ReshardRequest, Turn } from '../src/cutover/contract.js';
import { moveRequest } from '../src/cutover/request.js';
import { lengthy, medium, route, short, untilDone } from './activities.js';
import { cutover } from './cutover.js';
import { Journal, sentenceOf } from './journal.js';
import {
  abortUpdate,
  approveUpdate,
  checked,
  endSignal,
  finalizeUpdate,
  movedSignal,
  rollbackUpdate,
  schemaFinalisedSignal,
  stageSignal,
  stopSignal,
  type MoveOptions,
  type StreamStage,
} from './messages.js';
import { asSentence, refusal, refuseHeld, refuseOtherMove } from './refusal.js';
import { replicate } from './replicate.js';

/**
 * How long an update waits for a cutover to tell which side serves. Its last words take milliseconds; those of a worker that
 * died are told again after `soonDone`'s 10 s, and must not refuse a rollback.
 */
const SETTLE_MS = 30_000;

type Wish = 'approve' | 'rollback' | 'end';

export async function reshard(input: ReshardRequest): Promise<string> {
  const request = checked(input, 'reshard');
  const journal = new Journal(
    request.cutover === 'approved' ? 'copy_data' : 'reshard',
    request.source,
    request.destination,
  );
  try {
    const situation = await short('See which side serves and whether streams run').assessSituation(request);
    refuseOtherMove(request, situation);
    if (situation.migration && situation.serving === 'destination') {
      const sentence = `the destination of the move ${request.source} → ${request.destination} serves since ${situation.since ?? '?'}: nothing to do; going back needs "rollback": true`;
      journal.note('TaskFinished', { reason: sentence });
      await journal.writeWhereKept(request);
      return sentence;
    }
    const owner = `${workflowInfo().workflowId}/streams`;
    refuseHeld(situation, owner);
    if (situation.migration && situation.orphaned === true)
      await untilDone('Remove what a terminated move left behind').removeMigration(
        situation.migration,
        'its workflows were terminated',
      );
    journal.note('PhaseEntered', { phase: 'preflight' });
    const checks = await short(
      `Check ${request.source} and ${request.destination} before anything is touched`,
    ).runPreflight(request, 'copy');
    journal.note('PreflightChecked', { warnings: checks.filter((c) => c.verdict === 'warning').map((c) => c.title) });
    const migration = await short('Take the pair of databases for this move').claimMigration(request, owner);
    return await new Move(request, journal, migration).run();
  } catch (error) {
    journal.failed(error);
    await journal.writeWhereKept(request);
    throw asSentence(error);
  }
}

class Move {
  readonly #request: ReshardRequest;
  readonly #journal: Journal;
  readonly #migration: Migration;
  readonly #preparing = new CancellationScope();
  #stage: StreamStage | null = null;
  #streamsEnded: string | null = null;
  /** how the streams were ended: by the record they know better than this workflow which end was meant */
  #ended: Ending | null = null;
  /** the newest move heard of; null: the source serves, as in the beginning */
  #turn: Turn | null = null;
  #wish: Wish | null = null;
  /** the side that served when the wish was uttered */
  #wishedWhenMoved = false;
  /** what the record said when a stop was asked for; this workflow may hear of that move a moment later */
  #readFromRecord: boolean | null = null;
  /** the wish was for a swap without parity */
  #acceptLoss = false;
  #busy = false;
  #cutover: ChildWorkflowHandle<typeof cutover> | null = null;
  #cutovers = 0;

  constructor(request: ReshardRequest, journal: Journal, migration: Migration) {
    this.#request = request;
    this.#journal = journal;
    this.#migration = migration;
    setHandler(stageSignal, (stage) => {
      this.#stage = stage;
    });
    setHandler(movedSignal, (turn) => {
      this.#note(turn);
    });
    setHandler(stopSignal, (ending) => {
      this.#want('end');
      if (ending !== undefined) this.#readFromRecord = ending === 'finalize';
    });
    setHandler<string, [MoveOptions?], typeof approveUpdate>(
      approveUpdate,
      (options) => this.#wantSettled('approve', options),
      {
        validator: () => {
          this.#allow('approve');
        },
      },
    );
    setHandler<string, [MoveOptions?], typeof rollbackUpdate>(
      rollbackUpdate,
      (options) => this.#wantSettled('rollback', options),
      {
        validator: () => {
          this.#allow('rollback');
        },
      },
    );
    setHandler(finalizeUpdate, () => this.#wantSettled('finalize'), {
      validator: () => {
        this.#allow('finalize');
      },
    });
    setHandler(abortUpdate, () => this.#want('end', 'abort'), {
      validator: () => {
        this.#allow('abort');
      },
    });
  }

  /** Says why not. */
  #allow(wish: 'approve' | 'rollback' | 'finalize' | 'abort'): void {
    if (wish === 'abort') {
      if (this.#moved) throw new Error('the traffic has moved: roll back, or finalize');
      return;
    }
    if (this.#stage !== 'streaming') throw new Error(`the streams are not running yet (${this.#journal.state.phase})`);
    // While a cutover runs nobody knows yet which side will serve: the handler waits for its end and asks again.
    if (this.#busy) return;
    if (wish === 'approve' && this.#moved) throw new Error('the destination serves already; going back is a rollback');
    if (wish === 'rollback' && !this.#moved) throw new Error('the source serves: there is nothing to roll back');
    if (wish === 'finalize' && !this.#moved) throw new Error('the traffic has not moved: abort instead');
  }

  async #wantSettled(wish: 'approve' | 'rollback' | 'finalize', options?: MoveOptions): Promise<string> {
    if (!(await condition(() => !this.#busy, SETTLE_MS))) throw refusal('a cutover is under way', 'refused_now');
    try {
      this.#allow(wish);
    } catch (error) {
      throw refusal(sentenceOf(error), 'refused_now');
    }
    this.#acceptLoss = options?.acceptLoss === true;
    return this.#want(wish === 'finalize' ? 'end' : wish, wish);
  }

  #want(wish: Wish, word: string = wish): string {
    this.#wish = wish;
    this.#wishedWhenMoved = this.#moved;
    if (wish === 'end') {
      this.#preparing.cancel();
      this.#stopCutover();
    }
    return `${word}: accepted`;
  }

  /** A cutover that waits for its moment gives up; one that is past its commit does not hear it. */
  #stopCutover(): void {
    this.#cutover?.signal(stopSignal).catch(() => undefined);
  }

  get #moved(): boolean {
    return this.#turn?.heading === 'forward';
  }

  #note(turn: Turn): void {
    if (turn.epoch <= (this.#turn?.epoch ?? 0)) return;
    const before = this.#moved;
    this.#turn = turn;
    if (this.#moved !== before) this.#journal.note('TrafficMoved', { ...turn });
  }

  async run(): Promise<string> {
    const streams = await this.#startStreams();
    if (streams === null) return this.#finish('remove');
    try {
      await this.#preparing.run(() => this.#prepare(streams));
      if (this.#request.cutover !== 'approved') await this.#cutOver('forward');
      await this.#serveWishes();
    } catch (error) {
      if (this.#wish !== 'end') {
        await CancellationScope.nonCancellable(() => this.#end(streams, this.#moved ? null : 'remove'));
        await this.#tellFailure(error);
        throw error;
      }
    }
    const ending: Ending = this.#moved ? 'finalize' : 'remove';
    await this.#end(streams, ending);
    return this.#finish(this.#ended ?? ending);
  }

  /** The last word belongs into the record, or SHOW TASKS would call the task running once Temporal has forgotten it. */
  async #tellFailure(error: unknown): Promise<void> {
    this.#journal.failed(error);
    await CancellationScope.nonCancellable(() => this.#journal.write(this.#migration));
  }

  async #finish(ending: Ending): Promise<string> {
    this.#journal.note(ending === 'finalize' ? 'TaskFinished' : 'TaskCancelled', {
      reason: ending === 'finalize' ? 'finalized' : 'stopped by an operator',
    });
    await this.#journal.write(this.#migration);
    return `${route(this.#migration)}: ${ending === 'finalize' ? 'finalized, the destination serves' : 'stopped, the source serves'}`;
  }

  /**
   * The owner of the streams exists before the first of them, and outlives this workflow. Null when the move was stopped
   * before there were any.
   */
  async #startStreams(): Promise<ChildWorkflowHandle<typeof replicate> | null> {
    this.#journal.note('PhaseEntered', { phase: 'syncing schema' });
    await this.#journal.write(this.#migration);
    try {
      await this.#preparing.run(() =>
        medium(`Make tables and primary keys at ${this.#migration.peer}`).loadSchema(this.#migration),
      );
    } catch (error) {
      await CancellationScope.nonCancellable(() =>
        medium('Remove everything this migration made').removeMigration(this.#migration, sentenceOf(error)),
      );
      if (this.#wish === 'end') return null;
      await this.#tellFailure(error);
      throw error;
    }
    // A cancel that comes here finds an owner that can take everything away.
    const streams = await CancellationScope.nonCancellable(() =>
      startChild(replicate, {
        workflowId: this.#migration.owner,
        args: [{ migration: this.#migration, copyData: true }],
        parentClosePolicy: ParentClosePolicy.ABANDON,
        staticSummary: `Streams ${route(this.#migration)}`,
      }),
    );
    streams.result().then(
      (ending) => {
        this.#streamsEnded = `the streams have ended (${ending})`;
        if (ending === 'finalize' || ending === 'remove') this.#ended = ending;
      },
      (error: unknown) => {
        this.#streamsEnded = sentenceOf(error);
      },
    );
    return streams;
  }

  async #prepare(streams: ChildWorkflowHandle<typeof replicate>): Promise<void> {
    await this.#phase('syncing data');
    await this.#reach('copied');
    await this.#phase('finalizing schema');
    await lengthy(`Make indexes and constraints, arm the fence, analyse ${this.#migration.peer}`).finaliseSchema(
      this.#migration,
    );
    await streams.signal(schemaFinalisedSignal);
    await this.#reach('streaming');
    await this.#phase('replicating');
  }

  async #phase(phase: string): Promise<void> {
    if (this.#journal.state.phase !== phase) this.#journal.note('PhaseEntered', { phase });
    await this.#journal.write(this.#migration);
  }

  async #reach(stage: StreamStage): Promise<void> {
    await condition(() => this.#stage === stage || this.#stage === 'streaming' || this.#streamsEnded !== null);
    if (this.#streamsEnded !== null) throw refusal(this.#streamsEnded, 'stream_lost');
  }

  /** Soak, and everything an operator may want meanwhile. */
  async #serveWishes(): Promise<void> {
    for (;;) {
      // As it was when the phase was told: a move that is heard of while the phase is being written turns it again.
      const turn = this.#turn;
      await this.#phase(this.#moved ? 'soaking' : 'replicating');
      if ((await this.#heard(turn)) === 'soaked') this.#want('end');
      if (this.#streamsEnded !== null && this.#wish === null) throw refusal(this.#streamsEnded, 'stream_lost');
      if (this.#wish === 'end' && !(await this.#overtaken()) && (await this.#mayEnd())) return;
      const wish = this.#wish;
      this.#wish = null;
      if (wish === 'approve' || wish === 'rollback') await this.#cutOver(wish === 'approve' ? 'forward' : 'reverse');
    }
  }

  /** Who wanted to stop the move while the other side served did not ask for what an end means now. */
  async #overtaken(): Promise<boolean> {
    const told = this.#readFromRecord;
    if (told !== null && told !== this.#moved) await condition(() => told === this.#moved, SETTLE_MS);
    this.#readFromRecord = null;
    if ((told ?? this.#wishedWhenMoved) === this.#moved) return false;
    const side = this.#moved ? 'destination' : 'source';
    this.#journal.note('AttemptAborted', {
      reason: `the stop came too late: the ${side} serves; stop again to end there`,
    });
    return true;
  }

  /** Waits for a wish, a lost stream or a move that somebody else made. The time of a soak begins anew with each move. */
  async #heard(turn: Turn | null): Promise<'something' | 'soaked'> {
    const something = (): boolean => this.#wish !== null || this.#streamsEnded !== null || this.#turn !== turn;
    const { soakMs } = this.#migration;
    if (this.#moved && soakMs !== null) return (await condition(something, soakMs)) ? 'something' : 'soaked';
    await condition(something);
    return 'something';
  }

  /** Finalizing has a condition that an operator must meet first; until then the soak goes on. */
  async #mayEnd(): Promise<boolean> {
    if (!this.#moved) return true;
    try {
      await short('See whether this migration may be finalized').checkFinalizable(this.#migration);
      return true;
    } catch (error) {
      this.#journal.note('AttemptAborted', { reason: sentenceOf(error) });
      return false;
    }
  }

  /** A cutover that gives up leaves the streams running: the operator may approve another one. */
  async #cutOver(heading: Heading): Promise<void> {
    this.#busy = true;
    this.#cutovers++;
    await this.#phase(heading === 'forward' ? 'cutting over' : 'rolling back');
    try {
      this.#cutover = await startChild(cutover, {
        workflowId: `${workflowInfo().workflowId}/cutover-${this.#cutovers.toString()}`,
        args: [{ ...moveRequest(this.#request), rollback: heading === 'reverse', ...this.#loss() }],
        staticSummary: `Cutover ${route(this.#migration, heading)}`,
      });
      if (this.#endWished()) this.#stopCutover();
      const result: MoveResult = await this.#cutover.result();
      if (result.epoch !== null) this.#note({ heading, epoch: result.epoch });
    } catch (error) {
      if (isCancellation(error)) throw error;
      this.#journal.note('AttemptAborted', { reason: sentenceOf(error) });
    } finally {
      this.#busy = false;
      this.#cutover = null;
    }
  }

  /** What an operator said about this one move; the request speaks for all of them. */
  #loss(): MoveOptions {
    const acceptLoss = this.#acceptLoss;
    this.#acceptLoss = false;
    return acceptLoss ? { acceptLoss } : {};
  }

  /** Asked again after an await, when a message may have come. */
  #endWished(): boolean {
    return this.#wish === 'end';
  }

  /** After a commit a failing reshard leaves the streams to their owner: the way back must not be lost with it. */
  async #end(streams: ChildWorkflowHandle<typeof replicate>, ending: Ending | null): Promise<void> {
    if (ending === null || this.#streamsEnded !== null) return;
    await this.#phase('stopping');
    await streams.signal(endSignal, ending);
    await condition(() => this.#streamsEnded !== null);
  }
}
