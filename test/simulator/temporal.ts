/**
 * One task: stand in for Temporal: it keeps what a move has come to, hands work to workers, and hands it out again when one
 * falls silent.
 *
 * The pause is the product's own workflow function: its local activities are caught where an interceptor of the SDK would
 * stand. The loop around it is a THIN RESTATEMENT of workflows/cutover.ts: attempts, what follows a failure, the times between.
 */
import type { EpochOutcome, EpochPlan, Heading, Migration } from '../../src/cutover/contract.js';
import { pauseBetweenAttemptsMs, workflowTaskTimeoutMs } from '../../src/cutover/policy.js';
import { messageOf } from '../../src/errors/errors.js';
import { invariant } from '../../src/errors/invariant.js';
import { awaitMoment } from '../../activities/moment.js';
import { pause } from '../../workflows/pause.js';
import type { Worker } from './processes.js';
import { Actor } from './scheduler.js';
import type { World } from './world.js';

type Part = 'moveTraffic' | 'returnToSource';

/** A part of the pause as it was asked for: Temporal may ask again, at any time, with the same arguments. */
export interface PartCall {
  readonly part: Part;
  readonly args: readonly unknown[];
}

const LATENCY_MAX_MS = 3;
/** Stands for the heartbeat and the start-to-close timeouts, which are longer. */
const ACTIVITY_TIMEOUT_MS = 2_000;
const RETRY_MS = 1_000;
const NO_WORKER_MS = 100;
/** an activity is tried this often, then the simulation has not come to an end */
const TRIES_MAX = 60;

export class FakeTemporal {
  readonly calls: PartCall[] = [];
  /** the epochs it has asked for, newest last */
  readonly plans: EpochPlan[] = [];
  readonly #world: World;
  readonly #actor = new Actor('temporal');

  constructor(world: World) {
    this.#world = world;
  }

  /** Starts moves one after the other; `done` is told at the end. */
  start(migration: Migration, headings: readonly Heading[], done: (problem: string | null) => void): void {
    this.#world.scheduler.after(this.#actor, 20, () => {
      void this.#moves(migration, headings).then(
        () => {
          done(null);
        },
        (error: unknown) => {
          done(messageOf(error));
        },
      );
    });
  }

  async #moves(migration: Migration, headings: readonly Heading[]): Promise<void> {
    for (const [index, heading] of headings.entries()) {
      if (!(await this.#move(migration, heading, `move-${index.toString()}`))) return;
      await this.#delay(this.#world.scheduler.between(1, 300));
    }
  }

  /** @returns whether the traffic moved */
  async #move(migration: Migration, heading: Heading, run: string): Promise<boolean> {
    const { patience } = this.#world;
    for (let attempt = 1; attempt <= patience.attempts; attempt++) {
      const request = { migration, heading, attempt: `${run}/${attempt.toString()}`, acceptLoss: false };
      const plan = await this.#activity('moment', (worker) =>
        awaitMoment(worker.context, request, () => Promise.resolve()),
      );
      this.plans.push(plan);
      this.#world.attemptBegins(plan);
      const outcome = await this.#pause(plan);
      this.#world.trace(() => `epoch ${plan.epoch.toString()}: ${outcome.outcome} ${outcome.reason ?? ''}`);
      if (outcome.outcome === 'committed') return true;
      await this.#delay(pauseBetweenAttemptsMs(attempt, plan.leaseMs));
    }
    return false;
  }

  async #pause(plan: EpochPlan): Promise<EpochOutcome> {
    try {
      return await this.#workflowTask(plan);
    } catch (error) {
      return this.resolvePause(plan, messageOf(error));
    }
  }

  resolvePause(plan: EpochPlan, reason: string): Promise<EpochOutcome> {
    return this.#activity('resolvePause', async (worker) => {
      const decided = await worker.section.returnToSource(copy(plan), reason);
      return { epoch: plan.epoch, outcome: decided.outcome, reason: decided.reason, events: [], pausedMs: null };
    });
  }

  /** An operator aborts: an update of the workflow that runs while the pause does. */
  operatorAborts(plan: EpochPlan): void {
    this.#world.scheduler.after(this.#actor, 0, () => {
      this.resolvePause(plan, 'aborted by an operator').catch(() => undefined);
    });
  }

  /** A worker that does not answer within the timeout of the task may still be at it: the next one begins at the beginning. */
  async #workflowTask(plan: EpochPlan): Promise<EpochOutcome> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const answer = await this.#ask('pause', workflowTaskTimeoutMs(plan.leaseMs), () => pause(copy(plan)));
      if (answer) return answer.result;
    }
    throw new Error('no worker ends the pause');
  }

  async #activity<T>(name: string, work: (worker: Worker) => Promise<T>): Promise<T> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      try {
        const answer = await this.#ask(name, ACTIVITY_TIMEOUT_MS, work);
        if (answer) return answer.result;
      } catch (error) {
        this.#world.trace(() => `${name} fails: ${messageOf(error)}`);
      }
      await this.#delay(RETRY_MS);
    }
    throw new Error(`${name} does not come to an end`);
  }

  /** One try on a worker that polls now. Null: it has not answered in time. */
  async #ask<T>(
    name: string,
    timeoutMs: number,
    work: (worker: Worker) => Promise<T>,
  ): Promise<{ readonly result: T } | null> {
    const worker = await this.#polling();
    this.#world.trace(() => `temporal gives ${name} to ${worker.actor.name}`);
    return new Promise((resolve, reject) => {
      const late = this.#world.scheduler.after(this.#actor, timeoutMs, () => {
        this.#world.trace(() => `temporal: ${name} on ${worker.actor.name} has not answered`);
        resolve(null);
      });
      const back = (answer: () => void): void => {
        this.#later(this.#actor, () => {
          late.cancelled = true;
          answer();
        });
      };
      this.#later(worker.actor, () => {
        work(worker).then(
          (result) => {
            back(() => {
              resolve({ result });
            });
          },
          (error: unknown) => {
            back(() => {
              reject(error instanceof Error ? error : new Error(messageOf(error)));
            });
          },
        );
      });
    });
  }

  async #polling(): Promise<Worker> {
    const { scheduler } = this.#world;
    for (let tries = 0; tries < 600; tries++) {
      const workers = this.#world.workers.filter((w) => w.actor.stalledUntil <= scheduler.now);
      if (workers.length > 0) return scheduler.pick(workers);
      await this.#delay(NO_WORKER_MS);
    }
    throw new Error('no worker polls');
  }

  /** Asks a worker for a part again. */
  repeat(call: PartCall, worker: Worker): void {
    this.#later(worker.actor, () => {
      this.#world.trace(() => `${worker.actor.name} is asked for ${call.part} again`);
      this.#run(call, worker).catch(() => undefined);
    });
  }

  #run(call: PartCall, worker: Worker): Promise<unknown> {
    const args = copy(call.args);
    const part = worker.section[call.part].bind(worker.section) as (...args: readonly unknown[]) => Promise<unknown>;
    return part(...args);
  }

  /** Puts this in the place of the SDK's runtime for the workflow that runs; answers the function that takes it away. */
  install(): () => void {
    const runtime = globalThis as { __TEMPORAL_ACTIVATOR__?: unknown };
    const scheduleLocalActivity = (input: {
      activityType: string;
      args: readonly unknown[];
      options: { startToCloseTimeout: number };
    }): Promise<unknown> =>
      this.#localActivity({ part: input.activityType as Part, args: input.args }, input.options.startToCloseTimeout);
    runtime.__TEMPORAL_ACTIVATOR__ = {
      nextSeqs: { activity: 1 },
      interceptors: { outbound: [{ scheduleLocalActivity }] },
      bindCurrentRandom: (next: unknown) => next,
    };
    return () => {
      delete runtime.__TEMPORAL_ACTIVATOR__;
    };
  }

  /** One try; what has not returned at the timeout goes on all the same, and nobody hears of it. */
  #localActivity(call: PartCall, timeoutMs: number): Promise<unknown> {
    const { scheduler } = this.#world;
    const worker = this.#world.workers.find((w) => w.actor === scheduler.current);
    invariant(worker, 'a workflow runs on a worker');
    this.calls.push(copy(call));
    return new Promise((resolve, reject) => {
      const late = scheduler.after(worker.actor, timeoutMs, () => {
        reject(new Error(`${call.part}: activity StartToClose timeout`));
      });
      this.#run(call, worker).then(
        (result) => {
          late.cancelled = true;
          resolve(copy(result));
        },
        (error: unknown) => {
          late.cancelled = true;
          reject(error instanceof Error ? error : new Error(messageOf(error)));
        },
      );
    });
  }

  #later(owner: Actor, run: () => void): void {
    this.#world.scheduler.after(owner, this.#world.scheduler.between(0.2, LATENCY_MAX_MS), run);
  }

  #delay(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.#world.scheduler.after(this.#actor, delayMs, resolve);
    });
  }
}

/** Payloads are JSON. */
function copy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
