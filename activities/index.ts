/** One task: make the activities of a worker from its context, and turn every failure into one Temporal can read. */
import { setTimeout as delay } from 'node:timers/promises';
import { ApplicationFailure, Context, log } from '@temporalio/activity';
import type { Activities, PauseActivities } from '../src/cutover/activities.js';
import { WATCH_MS } from '../src/cutover/policy.js';
import type { CopyProgress, EpochOutcome, EpochPlan, Migration, PartResult } from '../src/cutover/contract.js';
import type { VerifyProgress, VerifyResult } from '../src/cutover/verification.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import { copyTables } from './copy.js';
import type { EngineContext } from './context.js';
import { CriticalSection } from './critical-section.js';
import { checkFinalizable, finalizeMigration, removeMigration } from './ending.js';
import { awaitMoment } from './moment.js';
import { armFences, finaliseSchema, loadSchema, runPreflight, syncSchema } from './preparation.js';
import { assessSituation, claimMigration, claimOperation, releaseOperation } from './situation.js';
import { keepEvents, recordEvents, writeTimeline } from './story.js';
import { createForward, createReverse, watchStreams } from './streams.js';
import { verifyTables } from './verification.js';

const HEARTBEAT_MS = 2_000;
const CLIENTS_FIRST_MS = 100;

export function createActivities(context: EngineContext): Activities & PauseActivities {
  const section = new CriticalSection(context);
  const activities: Activities & PauseActivities = {
    assessSituation: (request) => assessSituation(context, request),
    runPreflight: (request, purpose) => heartbeating(() => runPreflight(context, request, purpose)),
    claimMigration: (request, owner) => claimMigration(context, request, owner),
    syncSchema: (part, request) => heartbeating((stopped) => syncSchema(context, part, request, stopped)),
    loadSchema: (migration) => heartbeating((stopped) => loadSchema(context, migration, stopped)),
    finaliseSchema: (migration) => heartbeating((stopped) => finaliseSchema(context, migration, stopped)),
    armFences: (migration) => heartbeating(() => armFences(context, migration)),
    createStreams: (migration, options) =>
      heartbeating((stopped) => createForward(context, migration, options, stopped)),
    copyTables: (migration) => heartbeatingCopy(context, migration),
    createReverseStreams: (migration) => heartbeating((stopped) => createReverse(context, migration, stopped)),
    watchStreams: (migration, moved) =>
      watchStreams(context, migration, moved, performance.now() + WATCH_MS, beatSoon, warn),
    removeMigration: (migration) => removeMigration(context, migration),
    checkFinalizable: (migration) => checkFinalizable(context, migration),
    finalizeMigration: (migration) => finalizeMigration(context, migration),
    claimOperation: (migration, operation) => claimOperation(context, migration, operation),
    releaseOperation: (migration, operation) => releaseOperation(context, migration, operation),
    awaitMoment: (request) => awaitMoment(context, request, beatSoon),
    verifyTables: (migration) => heartbeatingProgress(context, migration),
    resolvePause: (plan, reason) => resolvePause(section, plan, reason),
    writeTimeline: (plan, outcome) => writeTimeline(context, plan, outcome),
    recordEvents: (migration, stream, events) => recordEvents(context, migration, stream, events),
    keepEvents: (request, stream, events) => keepEvents(context, request, stream, events),
    moveTraffic: async (plan) => clientsFirst(plan, await section.moveTraffic(plan)),
    returnToSource: (plan, reason) => section.returnToSource(plan, reason),
  };
  return withReadableFailures(activities);
}

async function resolvePause(section: CriticalSection, plan: EpochPlan, reason: string): Promise<EpochOutcome> {
  const decided = await section.returnToSource(plan, reason);
  return { epoch: plan.epoch, outcome: decided.outcome, reason: decided.reason, events: [], pausedMs: null };
}

/** Heartbeats carry the details, and deliver a cancel: the next one after it throws. */
/**
 * What follows a switch (its story, the next tasks of the workflows) wants the processors that the clients want who were held: it waits
 * until they have had theirs. If the process dies here: as after step 8.
 */
async function clientsFirst(plan: EpochPlan, result: PartResult): Promise<PartResult> {
  if (result.ok && plan.rehearse !== true) await delay(CLIENTS_FIRST_MS);
  return result;
}

function beat(details: unknown): void {
  const context = Context.current();
  context.heartbeat(details);
  context.cancellationSignal.throwIfAborted();
}

/** An alarm, for whoever reads the log of the worker. */
function warn(sentence: string): void {
  log.warn(sentence);
}

function beatSoon(details: unknown): Promise<void> {
  beat(details);
  return Promise.resolve();
}

/** For work that is one long statement: the process is alive, so Temporal need not start it elsewhere. */
async function heartbeating<T>(work: (stopped: AbortSignal) => Promise<T>): Promise<T> {
  const context = Context.current();
  const timer = setInterval(() => {
    context.heartbeat();
  }, HEARTBEAT_MS);
  try {
    const result = await work(context.cancellationSignal);
    // A cancel that came meanwhile is answered now that nothing is half done.
    context.cancellationSignal.throwIfAborted();
    return result;
  } finally {
    clearInterval(timer);
  }
}

/** A copy: its progress goes with every heartbeat, also while a server lets it wait for an answer. */
async function heartbeatingCopy(engine: EngineContext, migration: Migration): Promise<CopyProgress> {
  const context = Context.current();
  let told: CopyProgress = { tablesReady: 0, tablesTotal: 0, bytes: 0, rows: 0 };
  const timer = setInterval(() => {
    context.heartbeat(told);
  }, HEARTBEAT_MS);
  try {
    return await copyTables(
      engine,
      migration,
      (progress) => {
        told = progress;
        beat(progress);
      },
      warn,
    );
  } finally {
    clearInterval(timer);
  }
}

/** A comparison: its progress goes with every heartbeat, also while one statement lasts, and comes back to the next try. */
async function heartbeatingProgress(engine: EngineContext, migration: Migration): Promise<VerifyResult> {
  const context = Context.current();
  const earlier = (context.info.heartbeatDetails ?? null) as VerifyProgress | null;
  let told = earlier;
  const timer = setInterval(() => {
    context.heartbeat(told);
  }, HEARTBEAT_MS);
  const run = `${context.info.workflowExecution?.runId ?? ''}.${context.info.attempt.toString()}`;
  try {
    return await verifyTables(engine, migration, { run, earlier, stopped: context.cancellationSignal }, (progress) => {
      told = progress;
      beat(progress);
    });
  } catch (error) {
    // Its connections were closed by the cancel: what it then failed with is not the reason.
    context.cancellationSignal.throwIfAborted();
    throw error;
  } finally {
    clearInterval(timer);
  }
}

/** An answer to a person: a stack trace would only bury it, and tell paths of this machine to whoever reads the history. */
function refusal({ code, message, remedy }: CutoverError): ApplicationFailure {
  const failure = ApplicationFailure.create({ type: code, message: `${message.replace(/\.$/, '')}. ${remedy}` });
  failure.stack = '';
  return failure;
}

/**
 * The code of the error table becomes the failure's type, by which workflows tell what no retry mends. Causes are left out:
 * a driver's error may quote what it was sent.
 */
function withReadableFailures<T extends object>(activities: T): T {
  const wrapped = Object.entries(activities).map(([name, activity]) => {
    const run = activity as (...args: unknown[]) => Promise<unknown>;
    return [
      name,
      async (...args: unknown[]): Promise<unknown> => {
        try {
          return await run(...args);
        } catch (error) {
          if (error instanceof CutoverError) throw refusal(error);
          if (
            error instanceof Error &&
            error.name !== 'CancelledFailure' &&
            error.name !== 'AbortError' &&
            'code' in error
          )
            throw ApplicationFailure.create({ type: `postgres_${String(error.code)}`, message: messageOf(error) });
          throw error;
        }
      },
    ];
  });
  return Object.fromEntries(wrapped) as T;
}
