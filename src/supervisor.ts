/**
 * One task: run several workers that share one port, start the ones that die again, and run the engine beside them.
 *
 * The engine is here and not in a worker, so that a worker that relays much does not slow a pause down, and one that dies takes
 * no engine with it. When this process dies its workers end themselves: nobody would start them again.
 */
import cluster, { type Worker } from 'node:cluster';
import { setTimeout as delay } from 'node:timers/promises';
import type { Member } from './fleet/node.js';
import type { Phase } from './monitoring/readiness.js';
import type { Logger } from './proxy/logger.js';
import { WORKER_NUMBER, WORKER_TEMPORAL, type Answers, type FromWorker, type ToWorker } from './sibling.js';

export interface SupervisorOptions {
  readonly workers: number;
  /** the name of the node the workers are together */
  readonly row: string;
  /** where an embedded Temporal listens */
  readonly temporalAddress?: string;
  readonly logger: Logger;
  /** a worker has put a configuration into force */
  readonly onConfigured: (configured: Configured) => void;
}

type Configured = Extract<FromWorker, { type: 'configured' }>;

const RESTART_MS = 500;
/** A worker that dies this often within a minute will not live: the process ends, and says so. */
const DEATHS_MAX = 10;
const DEATHS_WITHIN_MS = 60_000;
const END_MS = 15_000;
/** A worker asks its servers for two seconds at most. */
const ANSWER_TIMEOUT_MS = 3_000;

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #workers = new Map<number, { worker: Worker; member: Member | null }>();
  #deaths: number[] = [];
  #ending = false;
  #phase: Phase = 'starting';
  /** what is asked and not yet answered, by its number */
  readonly #asked = new Map<number, (answer: Answers[keyof Answers]) => void>();
  #lastAsked = 0;
  #ended: (error?: Error) => void = () => undefined;
  #sharedPort = 0;
  #allListen: () => void = () => undefined;
  /** resolves when every worker listens for the first time */
  readonly listening = new Promise<void>((resolve) => {
    this.#allListen = resolve;
  });
  /** resolves after end(), rejects when the workers do not stay alive */
  readonly ended = new Promise<void>((resolve, reject) => {
    this.#ended = (error) => {
      if (error) reject(error);
      else resolve();
    };
  });

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.ended.catch(() => undefined);
    for (let number = 1; number <= options.workers; number++) this.#start(number);
  }

  /** The port the workers share, once they listen. */
  get sharedPort(): number {
    return this.#sharedPort;
  }

  /** `serving` from the time on when every worker has listened. */
  get phase(): Phase {
    return this.#phase;
  }

  /** What each worker answers; null: it did not in time, or is being started. */
  ask<What extends keyof Answers>(
    what: What,
  ): Promise<readonly { readonly worker: string; readonly answer: Answers[What] | null }[]> {
    const asked = [...this.#workers].map(async ([number, { worker }]) => {
      return { worker: number.toString(), answer: await this.#askOne(worker, what) };
    });
    return Promise.all(asked);
  }

  async #askOne<What extends keyof Answers>(worker: Worker, what: What): Promise<Answers[What] | null> {
    if (!worker.isConnected()) return null;
    const id = (this.#lastAsked += 1);
    let timer: NodeJS.Timeout | undefined;
    const answer = await new Promise<Answers[keyof Answers] | null>((resolve) => {
      const nothing = (): void => {
        resolve(null);
      };
      timer = setTimeout(nothing, ANSWER_TIMEOUT_MS);
      worker.once('exit', nothing);
      this.#asked.set(id, (given) => {
        worker.off('exit', nothing);
        resolve(given);
      });
      worker.send({ type: 'ask', id, what } satisfies ToWorker, undefined, (error: Error | null) => {
        if (error) nothing();
      });
    });
    clearTimeout(timer);
    this.#asked.delete(id);
    // A number is given to one question, and its answer is of that kind.
    return answer as Answers[What] | null;
  }

  #start(number: number): void {
    const { temporalAddress } = this.#options;
    const worker = cluster.fork({
      [WORKER_NUMBER]: number.toString(),
      ...(temporalAddress === undefined ? {} : { [WORKER_TEMPORAL]: temporalAddress }),
    });
    this.#workers.set(number, { worker, member: null });
    worker.on('message', (message: FromWorker) => {
      switch (message.type) {
        case 'shutdown':
          void this.end();
          break;
        case 'listening':
          this.#heard(number, worker, message);
          break;
        case 'configured':
          this.#options.onConfigured(message);
          break;
        case 'answer':
          this.#asked.get(message.id)?.(message.answer);
          break;
      }
    });
    worker.on('exit', (code, signal) => {
      if (this.#ending) return;
      this.#options.logger.warn({ worker: number, code, signal }, 'a worker has ended and is started again');
      void this.#startAgain(number);
    });
  }

  async #startAgain(number: number): Promise<void> {
    const now = performance.now();
    this.#deaths = [...this.#deaths.filter((at) => now - at < DEATHS_WITHIN_MS), now];
    if (this.#deaths.length > DEATHS_MAX) {
      this.#ended(new Error('the workers do not stay alive'));
      return;
    }
    await delay(RESTART_MS);
    if (!this.#ending) this.#start(number);
  }

  #heard(number: number, worker: Worker, message: Extract<FromWorker, { type: 'listening' }>): void {
    const member = { name: `${this.#options.row}/${number.toString()}`, port: message.port };
    this.#workers.set(number, { worker, member });
    this.#sharedPort = message.sharedPort;
    const members = [...this.#workers.values()].flatMap((entry) => entry.member ?? []);
    const told: ToWorker = { type: 'members', members };
    for (const entry of this.#workers.values()) if (entry.worker.isConnected()) entry.worker.send(told);
    if (members.length < this.#options.workers) return;
    if (this.#phase === 'starting') this.#phase = 'serving';
    this.#allListen();
  }

  /** SIGHUP: each worker reads the files again. */
  reload(): void {
    for (const { worker } of this.#workers.values()) worker.process.kill('SIGHUP');
  }

  /** Nobody should come any more: end() will be called. */
  willEnd(): void {
    this.#phase = 'ending';
  }

  /** Ends every worker as SIGTERM does, those that do not end within a bounded time by SIGKILL. May be called again. */
  async end(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.#phase = 'ending';
    const workers = [...this.#workers.values()].map(({ worker }) => worker).filter((worker) => !worker.isDead());
    const exits = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)));
    for (const worker of workers) worker.process.kill('SIGTERM');
    const timer = setTimeout(() => {
      for (const worker of workers) worker.process.kill('SIGKILL');
    }, END_MS);
    await Promise.all(exits);
    clearTimeout(timer);
    this.#ended();
  }
}
