/**
 * One task: own the streams of a migration from birth to removal, so that no slot is ever left without someone in charge.
 *
 * It outlives the workflow that started it, and it alone removes the streams.
 */
import {
  CancellationScope,
  condition,
  ContinueAsNew,
  continueAsNew,
  getExternalWorkflowHandle,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { Ending, Migration, ReplicateRequest, Turn } from '../src/cutover/contract.js';
import { WATCHES_PER_RUN } from '../src/cutover/policy.js';
import { lengthy, long, medium, route, short, untilDone } from './activities.js';
import { Journal, sentenceOf, type JournalMemory } from './journal.js';
import { asSentence, isRefusal, refusal, refuseHeld, refuseOtherMove } from './refusal.js';
import {
  abortUpdate,
  checked,
  endSignal,
  finalizeUpdate,
  movedSignal,
  schemaFinalisedSignal,
  stageSignal,
  stopSignal,
  type StreamStage,
} from './messages.js';

/** From an operator a request; from `reshard`, or from the run before, a migration that is claimed already. */
export type ReplicateInput = ReplicateRequest | ReplicateContinued;

export interface ReplicateContinued {
  readonly migration: Migration;
  /** false when the rows are there already */
  readonly copyData: boolean;
  readonly stage?: 'streaming';
  /** the newest move heard of */
  readonly turn?: Turn | null;
  readonly memory?: JournalMemory;
}

export async function replicate(input: ReplicateInput): Promise<string> {
  if ('migration' in input) return new Streams(input).run();
  const request = checked(input, 'replicate');
  const journal = new Journal('replication', request.source, request.destination);
  const migration = await take(request).catch(async (error: unknown) => {
    journal.failed(error);
    await journal.writeWhereKept(request);
    throw asSentence(error);
  });
  return new Streams({ migration, copyData: false, memory: journal.memory }).run();
}

async function take(request: ReplicateRequest): Promise<Migration> {
  // A slot older than the engine's own publication cannot be read with it; ignored, the rows in between would be missing.
  if (request.slot !== undefined)
    throw refusal(
      `streams cannot begin at the slot "${request.slot}": stop the writes, copy, and start REPLICATE without a slot, or let COPY_DATA copy`,
      'request_invalid',
    );
  const owner = workflowInfo().workflowId;
  const situation = await short('See which side serves and whether streams run').assessSituation(request);
  refuseOtherMove(request, situation);
  refuseHeld(situation, owner);
  await short(`Check ${request.source} and ${request.destination} before anything is touched`).runPreflight(
    request,
    'streams',
  );
  return short('Take the pair of databases for these streams').claimMigration(request, owner);
}

class Streams {
  readonly #input: ReplicateContinued;
  readonly #migration: Migration;
  readonly #journal: Journal;
  #watching = new CancellationScope();
  #schemaFinalised: boolean;
  /** the newest move heard of; null: the source serves, as in the beginning */
  #turn: Turn | null;
  #ending: Ending | null = null;

  constructor(input: ReplicateContinued) {
    this.#input = input;
    this.#migration = input.migration;
    this.#turn = input.turn ?? null;
    // Without a copy nobody loads a schema in between.
    this.#schemaFinalised = !input.copyData || input.stage === 'streaming';
    const { database, peer } = input.migration;
    this.#journal = new Journal('replication', database, peer, input.memory);
    setHandler(schemaFinalisedSignal, () => {
      this.#schemaFinalised = true;
    });
    setHandler(movedSignal, (turn) => this.#note(turn));
    setHandler(endSignal, (ending) => {
      this.#end(ending);
    });
    setHandler(stopSignal, (ending) => {
      this.#end(ending ?? (this.#moved ? 'finalize' : 'remove'));
    });
    setHandler(finalizeUpdate, () => this.#answer('finalize'), {
      validator: () => {
        if (!this.#moved) throw new Error('the traffic has not moved: stop the task to remove the streams');
      },
    });
    setHandler(abortUpdate, () => this.#answer('remove'), {
      validator: () => {
        if (this.#moved) throw new Error('the traffic has moved: finalize, or roll back first');
      },
    });
  }

  get #moved(): boolean {
    return this.#turn?.heading === 'forward';
  }

  async #note(turn: Turn): Promise<void> {
    if (turn.epoch <= (this.#turn?.epoch ?? 0)) return;
    const before = this.#moved;
    this.#turn = turn;
    if (this.#moved !== before) this.#journal.note('TrafficMoved', { ...turn });
    const { parent } = workflowInfo();
    if (parent)
      await getExternalWorkflowHandle(parent.workflowId)
        .signal(movedSignal, turn)
        .catch(() => undefined);
  }

  #answer(ending: Ending): string {
    this.#end(ending);
    return ending;
  }

  #end(ending: Ending): void {
    this.#ending ??= ending;
    this.#watching.cancel();
  }

  async run(): Promise<string> {
    try {
      if (this.#input.stage !== 'streaming') await this.#watching.run(() => this.#establish());
      do await this.#watch();
      while (!(await this.#mayEnd()));
    } catch (error) {
      // Not an end: the next run watches on.
      if (error instanceof ContinueAsNew) throw error;
      if (this.#ending === null) {
        // A lost stream, a cancel: the streams go, the side that serves stays.
        this.#ending = this.#moved ? 'finalize' : 'remove';
        await CancellationScope.nonCancellable(() => this.#takeDown(sentenceOf(error)));
        this.#journal.failed(error);
        await CancellationScope.nonCancellable(() => this.#journal.write(this.#migration));
        throw asSentence(error);
      }
    }
    await CancellationScope.nonCancellable(() => this.#takeDown('stopped by an operator'));
    this.#journal.note('TaskFinished', { reason: this.#ending === 'finalize' ? 'finalized' : 'removed' });
    await this.#journal.write(this.#migration);
    return this.#ending ?? 'remove';
  }

  async #establish(): Promise<void> {
    const { copyData } = this.#input;
    this.#journal.note('PhaseEntered', { phase: copyData ? 'copying' : 'creating streams' });
    await this.#journal.write(this.#migration);
    // A large table may get an index first.
    await lengthy(`Make publication, slot and subscription ${route(this.#migration)}`).createStreams(this.#migration, {
      copyData,
    });
    await long(`Copy the tables ${route(this.#migration)}, largest first`).copyTables(this.#migration);
    await this.#tellParent('copied');
    await condition(() => this.#schemaFinalised);
    if (!copyData) await medium('Arm the fence on both sides').armFences(this.#migration);
    await lengthy(`Make the way back ${route(this.#migration, 'reverse')} and see it healthy`).createReverseStreams(
      this.#migration,
    );
    this.#journal.note('PhaseEntered', { phase: 'replicating' });
    await this.#journal.write(this.#migration);
    await this.#tellParent('streaming');
  }

  async #tellParent(stage: StreamStage): Promise<void> {
    const { parent } = workflowInfo();
    if (parent)
      await getExternalWorkflowHandle(parent.workflowId)
        .signal(stageSignal, stage)
        .catch(() => undefined);
  }

  async #watch(): Promise<void> {
    for (let watch = 0; this.#ending === null; watch++) {
      if (watch >= WATCHES_PER_RUN)
        await continueAsNew<typeof replicate>({
          migration: this.#migration,
          copyData: this.#input.copyData,
          stage: 'streaming',
          turn: this.#turn,
          memory: this.#journal.memory,
        });
      try {
        const turned = await this.#watching.run(() =>
          long(`Watch the streams ${route(this.#migration)}`).watchStreams(this.#migration, this.#moved),
        );
        // Nobody told: the cutover was terminated in its pause.
        if (turned) await this.#note(turned);
      } catch (error) {
        if (!this.#wantsEnd()) throw error;
      }
    }
  }

  /** Finalizing has a condition that an operator must meet first; until then the streams go on. */
  async #mayEnd(): Promise<boolean> {
    if (this.#ending !== 'finalize') return true;
    try {
      await short('See whether this migration may be finalized').checkFinalizable(this.#migration);
      return true;
    } catch (error) {
      this.#journal.note('AttemptAborted', { reason: sentenceOf(error) });
      this.#ending = null;
      this.#watching = new CancellationScope();
      return false;
    }
  }

  /** Asked again after an await, when a signal may have come. */
  #wantsEnd(): boolean {
    return this.#ending !== null;
  }

  async #takeDown(reason: string): Promise<void> {
    if (this.#ending !== 'finalize' && (await this.#removed(reason))) return;
    await untilDone('Remove streams and roles; keep the old side fenced').finalizeMigration(this.#migration);
  }

  /** False when the record knows of a move that nobody told: what was meant as an end is then to finalize. */
  async #removed(reason: string): Promise<boolean> {
    try {
      await untilDone('Remove everything this migration made').removeMigration(this.#migration, reason);
      return true;
    } catch (error) {
      if (!isRefusal(error, 'destination_serves')) throw error;
      this.#journal.note('AttemptAborted', { reason: sentenceOf(error) });
      await this.#journal.write(this.#migration);
      this.#ending = 'finalize';
      return false;
    }
  }
}
