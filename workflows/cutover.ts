/** One task: move the traffic of a database to the other side of its migration, in either direction, within a number of tries. */
import {
  allHandlersFinished,
  CancellationScope,
  condition,
  executeChild,
  getExternalWorkflowHandle,
  isCancellation,
  ParentClosePolicy,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import {
  REHEARSAL,
  type EpochOutcome,
  type EpochPlan,
  type Heading,
  type Migration,
  type MoveRequest,
  type MoveResult,
  type Situation,
} from '../src/cutover/contract.js';
import { pauseBetweenAttemptsMs, workflowTaskTimeoutMs } from '../src/cutover/policy.js';
import { long, route, short, soonDone, untilDone } from './activities.js';
import { Journal, sentenceOf } from './journal.js';
import { abortUpdate, checked, movedSignal, stopSignal } from './messages.js';
import { pause } from './pause.js';
import { asSentence, refusal, refuseOtherMove } from './refusal.js';

export async function cutover(input: MoveRequest): Promise<MoveResult> {
  const request = checked(input, 'cutover');
  const journal = new Journal('cutover', request.source, request.destination);
  const heading: Heading = request.rollback === true ? 'reverse' : 'forward';
  try {
    const situation = await short('See which side serves and whether streams run').assessSituation(request);
    refuseOtherMove(request, situation);
    const done = alreadyThere(request, heading, situation);
    if (done) {
      journal.note('TaskFinished', { reason: done.sentence });
      await journal.writeWhereKept(request);
      return done;
    }
    return await new Mover(journal, required(request, situation), heading, request).run();
  } catch (error) {
    journal.failed(error);
    await journal.writeWhereKept(request);
    throw asSentence(error);
  }
}

/** The same request after the move changes nothing and says so. */
function alreadyThere(request: MoveRequest, heading: Heading, situation: Situation): MoveResult | null {
  const wanted = heading === 'forward' ? 'destination' : 'source';
  const never = heading === 'forward' && situation.migration === null;
  if (never || situation.serving !== wanted) return null;
  const since = situation.since === null ? '' : ` since ${situation.since}`;
  const back = heading === 'forward' ? '; going back needs "rollback": true' : '';
  return {
    outcome: 'unchanged',
    sentence: `the ${wanted} of the move ${request.source} → ${request.destination} serves${since}: nothing to do${back}`,
    heading,
    epoch: situation.epoch,
    pausedMs: null,
    attempts: 0,
    steps: [],
  };
}

function required(request: MoveRequest, situation: Situation): Migration {
  if (situation.migration && situation.streams) return situation.migration;
  throw refusal(
    `no streams run between "${request.source}" and "${request.destination}": start them with COPY_DATA ${request.source} ${request.destination}`,
    'streams_missing',
  );
}

/** The words of the audit trail, where the fence or parity was waived. */
function waived(outcome: EpochOutcome): string {
  const waiving = outcome.events.filter((e) => e.type === 'SourceSealed' || e.type === 'ParityReached');
  const reasons = waiving.map((e) => e.data.reason).filter((reason) => typeof reason === 'string');
  return reasons.map((reason) => `; ${reason}`).join('');
}

/**
 * Nobody measured a pause whose engine died in it: the nodes let their clients go by themselves, each when it read the decision.
 */
function held({ pausedMs }: EpochOutcome): string {
  return pausedMs === null ? 'how long clients were held is not known' : `clients were held ${pausedMs.toString()} ms`;
}

/** The tries of one cutover. */
class Mover {
  readonly #journal: Journal;
  readonly #migration: Migration;
  readonly #heading: Heading;
  readonly #acceptLoss: boolean;
  readonly #rehearse: boolean;
  readonly #waiting = new CancellationScope();
  #stopped: string | null = null;
  #moved = false;
  /** the epoch whose pause runs now */
  #pausing: EpochPlan | null = null;

  constructor(journal: Journal, migration: Migration, heading: Heading, request: MoveRequest) {
    this.#journal = journal;
    this.#migration = migration;
    this.#heading = heading;
    this.#acceptLoss = request.acceptLoss === true;
    this.#rehearse = request.rehearse === true;
    setHandler(abortUpdate, () => this.#abort('aborted by an operator'), {
      validator: () => {
        if (this.#moved) throw new Error('the traffic has moved: go back with a rollback');
      },
    });
    setHandler(stopSignal, async () => {
      await this.#abort('stopped by an operator');
    });
  }

  /** A pause under way hears of nothing but the record: it is aborted there, unless it is committed already. */
  async #abort(reason: string): Promise<string> {
    const plan = this.#pausing;
    if (plan === null) return this.#stop(reason);
    this.#stopped ??= reason;
    const decided = await untilDone('Abort the epoch on the record, unless it is committed').resolvePause(plan, reason);
    return decided.outcome === 'committed' ? 'too late: the traffic has moved' : reason;
  }

  #stop(reason: string): string {
    if (this.#moved) return 'the traffic has moved';
    this.#stopped ??= reason;
    this.#waiting.cancel();
    return reason;
  }

  async run(): Promise<MoveResult> {
    const operation = workflowInfo().workflowId;
    await short(`Hold the migration ${route(this.#migration)} for this cutover`).claimOperation(
      this.#migration,
      operation,
    );
    try {
      return await (this.#rehearse ? this.#rehearsal() : this.#attempts());
    } catch (error) {
      this.#journal.failed(error);
      throw error;
    } finally {
      await CancellationScope.nonCancellable(async () => {
        await this.#journal.write(this.#migration).catch(() => undefined);
        await soonDone('Let go of the migration').releaseOperation(this.#migration, operation);
        // An abort that came late still gets its answer.
        await condition(allHandlersFinished);
      });
    }
  }

  async #attempts(): Promise<MoveResult> {
    for (let attempt = 1; ; attempt++) {
      const plan = await this.#moment(attempt);
      const outcome = await CancellationScope.nonCancellable(() => this.#pause(plan));
      // A cancel that came during the pause came too late: the owner of the streams must hear of the move all the same.
      if (outcome.outcome === 'committed')
        return CancellationScope.nonCancellable(() => this.#finish(plan, outcome, attempt));
      const reason = outcome.reason ?? 'aborted';
      this.#journal.note('AttemptAborted', { attempt, epoch: plan.epoch, reason });
      if (this.#stopped !== null || attempt >= plan.maxAttempts)
        throw refusal(
          `not moved after ${attempt.toString()} attempts; traffic stays where it was: ${this.#stopped ?? reason}`,
          'cutover_failed',
        );
      await condition(() => this.#stopped !== null, pauseBetweenAttemptsMs(attempt, plan.leaseMs));
    }
  }

  /** One attempt that ends before its commit. Told as a failure when it ended before it had shown everything. */
  async #rehearsal(): Promise<MoveResult> {
    const plan = await this.#moment(1);
    const outcome = await CancellationScope.nonCancellable(() => this.#pause(plan));
    const reason = outcome.reason ?? 'aborted';
    if (reason !== REHEARSAL)
      throw refusal(`the rehearsal ended early; traffic stays where it was: ${reason}`, 'rehearsal_failed');
    const sentence = `rehearsed (${route(plan.migration, plan.heading)}), epoch ${plan.epoch.toString()}: ${held(outcome)}; traffic stays where it was`;
    this.#journal.note('TaskFinished', { reason: sentence });
    return {
      outcome: 'rehearsed',
      sentence,
      heading: this.#heading,
      epoch: plan.epoch,
      pausedMs: outcome.pausedMs,
      attempts: 1,
      steps: outcome.events,
    };
  }

  async #moment(attempt: number): Promise<EpochPlan> {
    this.#journal.note('PhaseEntered', { phase: 'waiting for the moment', attempt });
    const request = {
      migration: this.#migration,
      heading: this.#heading,
      attempt: `${workflowInfo().runId}/${attempt.toString()}`,
      acceptLoss: this.#acceptLoss,
      ...(this.#rehearse ? { rehearse: true } : {}),
      ...(attempt === 1 ? { first: true } : {}),
    };
    try {
      return await this.#waiting.run(() =>
        long(`Wait for the right moment and make everything ready (attempt ${attempt.toString()})`).awaitMoment(
          request,
        ),
      );
    } catch (error) {
      if (this.#stopped !== null && isCancellation(error))
        throw refusal(`not moved: ${this.#stopped}`, 'cutover_stopped');
      throw error;
    }
  }

  /** The pause runs in a child with a short workflow task timeout; whatever becomes of it, the record says what was decided. */
  async #pause(plan: EpochPlan): Promise<EpochOutcome> {
    this.#journal.note('PhaseEntered', { phase: this.#rehearse ? 'rehearsing' : 'cutting over', epoch: plan.epoch });
    const epoch = plan.epoch.toString();
    let outcome: EpochOutcome;
    this.#pausing = plan;
    try {
      outcome = await executeChild(pause, {
        workflowId: `${workflowInfo().workflowId}/pause-${epoch}`,
        args: [plan],
        workflowTaskTimeout: workflowTaskTimeoutMs(plan.leaseMs),
        // The parent may be terminated while the pause runs: the pause itself ends in milliseconds, one way or the other.
        parentClosePolicy: ParentClosePolicy.ABANDON,
        retry: { maximumAttempts: 1 },
        staticSummary: `The pause: epoch ${epoch}, ${route(plan.migration, plan.heading)}`,
      });
    } catch (error) {
      outcome = await untilDone('Ask the record what was decided, and act on it').resolvePause(plan, sentenceOf(error));
    }
    this.#pausing = null;
    if (outcome.outcome === 'committed') this.#moved = true;
    await soonDone(`Write the timeline of epoch ${epoch}: steps, milliseconds, LSNs`).writeTimeline(plan, outcome);
    return outcome;
  }

  async #finish(plan: EpochPlan, outcome: EpochOutcome, attempts: number): Promise<MoveResult> {
    const { pausedMs } = outcome;
    const told = pausedMs === null ? {} : { pausedMs };
    this.#journal.note('TrafficMoved', { heading: this.#heading, epoch: plan.epoch, ...told });
    const owner = getExternalWorkflowHandle(this.#migration.owner);
    await owner.signal(movedSignal, { heading: this.#heading, epoch: plan.epoch }).catch(() => undefined);
    this.#journal.note('TaskFinished');
    return {
      outcome: 'moved',
      sentence: `traffic moved (${route(plan.migration, plan.heading)}), epoch ${plan.epoch.toString()}, ${held(outcome)}${waived(outcome)}`,
      heading: this.#heading,
      epoch: plan.epoch,
      pausedMs,
      attempts,
      steps: outcome.events,
    };
  }
}
