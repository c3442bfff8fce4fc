/**
 * One task: clients that append to lists and read them through a proxy, whatever happens to it, and remember every answer.
 *
 * `prepare` a database with LISTS_SCHEMA, `startAppendLoad`, do what is to be proved, `stop()` for the history, `readLists`
 * for the final state, `check` both.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Session } from '../../src/dev/ledger/session.js';
import { messageOf } from '../../src/errors/errors.js';
import { invariant } from '../../src/errors/invariant.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import type { History, Transaction } from './history.js';
import { Random } from './random.js';
import { attempt, GUARANTEES, plan, type Guarantee, type Level } from './transactions.js';

export interface AppendLoadOptions {
  /** where clients connect, in turn; one that loses its connection goes to the next */
  readonly endpoints: readonly Endpoint[];
  /** what each client does in its n-th transaction follows from it; how they interleave does not */
  readonly seed: number;
  /** default 9, three for each guarantee */
  readonly clients?: number;
  /** pause of a client between two transactions, at most; default 8 ms */
  readonly thinkMs?: number;
  /** an answer that takes longer is given up, its outcome unknown; default 75 s, longer than a proxy holds a client */
  readonly answerTimeoutMs?: number;
  /** default SERIALIZABLE; with the weaker one the history has anomalies that no move made */
  readonly level?: Level;
  /** the load ends by itself after so many transactions; default 500,000 */
  readonly transactionsMax?: number;
}

export interface AppendLoad {
  /** transactions that were acknowledged so far */
  readonly acknowledged: number;
  /** Lets every client end its transaction and disconnect; who is still held after 10 s is cut off. May be called again. */
  stop(): Promise<History>;
}

const CLIENTS = 9;
const THINK_MS = 16;
const ANSWER_TIMEOUT_MS = 75_000;
const TRANSACTIONS_MAX = 500_000;
const STOP_GRACE_MS = 10_000;
const WAIT_AFTER_LOSS_MS = 20;
const REFUSED_LOGINS_MAX = 1_000;
/** Transactions after which the oldest list in use makes way for a new one: lists get some forty elements. */
const TRANSACTIONS_PER_LIST = 100;

/**
 * Resolves once every client is connected.
 *
 * @throws Error when a client cannot log in
 */
export async function startAppendLoad(options: AppendLoadOptions): Promise<AppendLoad> {
  invariant(options.endpoints.length > 0, 'a load has somewhere to connect');
  const run = new Run(options);
  const clients = Array.from({ length: options.clients ?? CLIENTS }, (_, index) => new Client(run, index));
  try {
    await Promise.all(clients.map((client) => client.connect()));
  } catch (error) {
    for (const client of clients) client.destroy();
    throw error;
  }
  const running = Promise.all(clients.map((client) => client.run()));
  return {
    get acknowledged() {
      return run.acknowledged;
    },
    stop: async () => {
      run.stopping = true;
      const cutOff = setTimeout(() => {
        for (const client of clients) client.destroy();
      }, STOP_GRACE_MS);
      await running;
      clearTimeout(cutOff);
      return run.history();
    },
  };
}

/** What the clients of one load share. */
class Run {
  readonly options: AppendLoadOptions;
  stopping = false;
  acknowledged = 0;
  #begun = 0;
  #value = 0;
  readonly #transactions: Transaction[] = [];
  readonly #refusedLogins: string[] = [];

  constructor(options: AppendLoadOptions) {
    this.options = options;
  }

  get ended(): boolean {
    return this.stopping || this.#begun >= (this.options.transactionsMax ?? TRANSACTIONS_MAX);
  }

  get oldestList(): number {
    return Math.floor(this.#begun / TRANSACTIONS_PER_LIST);
  }

  nextId(): number {
    return ++this.#begun;
  }

  readonly nextValue = (): number => ++this.#value;

  note(transaction: Transaction): void {
    this.#transactions.push(transaction);
    if (transaction.outcome === 'ok') this.acknowledged++;
  }

  refused(error: unknown): void {
    if (this.#refusedLogins.length < REFUSED_LOGINS_MAX) this.#refusedLogins.push(messageOf(error));
  }

  history(): History {
    const transactions = [...this.#transactions].sort((a, b) => a.id - b.id);
    return { seed: this.options.seed, transactions, refusedLogins: [...this.#refusedLogins] };
  }
}

class Client {
  readonly #run: Run;
  readonly #index: number;
  readonly #random: Random;
  readonly #guarantee: Guarantee;
  #session: Session | undefined;
  #logins = 0;

  constructor(run: Run, index: number) {
    this.#run = run;
    this.#index = index;
    this.#random = new Random(run.options.seed, index);
    this.#guarantee = GUARANTEES[index % GUARANTEES.length] ?? 'serializable';
  }

  async connect(): Promise<Session> {
    if (this.#session && !this.#session.broken) return this.#session;
    const { endpoints } = this.#run.options;
    const endpoint = endpoints[(this.#index + this.#logins++) % endpoints.length];
    invariant(endpoint, 'an index modulo the length is in the list');
    this.#session = await Session.connect(endpoint, `lists ${this.#index.toString()}`);
    return this.#session;
  }

  /** Takes turns until the load ends. Never rejects: an endpoint that cannot be reached is tried again, or the next one. */
  async run(): Promise<void> {
    while (!this.#run.ended) {
      try {
        await this.#turn(await this.connect());
      } catch (error) {
        this.#run.refused(error);
        await sleep(WAIT_AFTER_LOSS_MS);
      }
    }
    await this.#session?.end();
  }

  async #turn(session: Session): Promise<void> {
    const { thinkMs = THINK_MS, answerTimeoutMs = ANSWER_TIMEOUT_MS, level = 'SERIALIZABLE' } = this.#run.options;
    const planned = plan(this.#random, this.#guarantee, this.#run.oldestList);
    const id = this.#run.nextId();
    const giveUp = setTimeout(() => {
      session.destroy();
    }, answerTimeoutMs);
    const invokedMs = performance.now();
    const told = await attempt(session, planned, level, this.#run.nextValue);
    const completedMs = performance.now();
    clearTimeout(giveUp);
    this.#run.note({ id, client: `${this.#guarantee} ${this.#index.toString()}`, invokedMs, completedMs, ...told });
    if (thinkMs > 0) await sleep(this.#random.below(thinkMs + 1));
  }

  destroy(): void {
    this.#session?.destroy();
  }
}
