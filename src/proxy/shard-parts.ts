/**
 * One task: the servers of one statement for several shards: borrow them behind the gate, end their transactions on all or on none, give
 * them back; and say what the client reads when that fails.
 */
import { CutoverError, messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { commitOnAll } from '../postgres/two-phase.js';
import { errorResponseOf, READY_IDLE } from '../wire/backend.js';
import type { Gate } from './gate.js';
import { GateWait } from './gate-wait.js';
import type { SessionContext } from './session-context.js';
import type { SessionSettings } from './settings.js';
import { END_TIMEOUT_MS, SentAway, ServerError, ShardPart } from './shard-part.js';

/** Whose statement it is. */
export interface PartsClient {
  readonly id: number;
  readonly user: string;
  readonly database: string;
}

/** The servers of one statement for several shards. */
export interface StatementParts {
  /** in the order of their shards, once they are borrowed */
  readonly all: readonly ShardPart[];
  /** the statement is in a transaction of the client's, which goes on behind it */
  readonly inTransaction: boolean;
  /** the client is gone */
  readonly left: boolean;
  /** a server is held, so a pause must wait */
  readonly holding: boolean;
  /** 0: none */
  readonly serverPid: number;
  /** The client has taken enough, or wants more. */
  hold(held: boolean): void;
  /** The client is gone: what has not begun does not begin. */
  leave(): void;
  /** Ends the connections, whatever is in flight. */
  abandon(): void;
  /** @returns false where the shards are others since they were told: the names have changed places */
  borrow(): Promise<boolean>;
  /** Opens a transaction on one of them. @param first what is said in it before anything else, in SQL */
  begin(part: ShardPart, settings: SessionSettings, first?: string): Promise<void>;
  /** @throws CutoverError of `commitOnAll` */
  commit(): Promise<void>;
  /** @param stopping what still runs comes to its end by this, before anything is rolled back */
  rollBack(stopping?: Promise<unknown>): Promise<void>;
  /** Gives the servers back; may be called again. */
  release(): void;
  /** ReadyForQuery behind the statement. */
  ready(good: boolean): Buffer;
}

/**
 * Rows are locked on several shards at once, so two transactions may wait for each other in a circle that no server sees: where the session
 * has set no limit, no lock is waited for longer than this.
 */
export const LOCK_LIMIT = `SELECT pg_catalog.set_config('lock_timeout', '60s', true)
  WHERE pg_catalog.current_setting('lock_timeout') = '0'`;
/** The gate may close, or a pool go, while the last of the servers is waited for. */
const BORROW_TRIES_MAX = 20;

/** Of a statement by itself: its transaction begins and ends with it. */
export class ShardParts implements StatementParts {
  readonly all: readonly ShardPart[];
  readonly inTransaction = false;
  left = false;
  readonly #client: PartsClient;
  readonly #context: SessionContext;
  readonly #gate: Gate;
  /** the configuration by which it was told which shards these are */
  readonly #version: number;
  #leaveGate: () => void = () => undefined;

  constructor(client: PartsClient, context: SessionContext, shards: readonly number[]) {
    this.#client = client;
    this.#context = context;
    this.#version = context.routes.version;
    this.#gate = context.gate(client.database);
    this.all = shards.map((shard) => new ShardPart(client.id, shard));
  }

  get holding(): boolean {
    return this.all.some(({ server }) => server !== null);
  }

  get serverPid(): number {
    return this.all.find(({ server }) => server !== null)?.server?.processId ?? 0;
  }

  hold(held: boolean): void {
    for (const { server } of this.all) {
      if (held) server?.pause();
      else server?.resume();
    }
  }

  leave(): void {
    this.left = true;
    this.#leaveGate();
    if (!this.holding) this.abandon();
  }

  abandon(): void {
    for (const part of this.all) part.abandon();
  }

  async borrow(): Promise<boolean> {
    const { user, database } = this.#client;
    const { routes } = this.#context;
    for (let tries = 0; tries < BORROW_TRIES_MAX; tries += 1) {
      await this.#gateOpen();
      if (routes.version !== this.#version) return false;
      try {
        for (const part of this.all) await part.borrow(routes.of(user, database, part.shard).pool);
        if (!this.#gate.closed && routes.version === this.#version) return true;
      } catch (error) {
        if (!(error instanceof SentAway)) throw error;
      }
      this.release();
    }
    throw new CutoverError('checkout_timeout', { database, waitedMs: 0 });
  }

  #gateOpen(): Promise<void> {
    const { gateWaitMs } = this.#context;
    return new Promise((resolve, reject) => {
      const wait = new GateWait(this.#gate, this.#client.database, gateWaitMs, resolve, reject);
      this.#leaveGate = () => {
        wait.leave();
        reject(new Error('the client has left'));
      };
      if (this.left) this.#leaveGate();
      else wait.begin();
    });
  }

  begin(part: ShardPart, settings: SessionSettings, first?: string): Promise<void> {
    return part.begin(settings, first === undefined ? 'BEGIN' : `BEGIN;${first}`);
  }

  async commit(): Promise<void> {
    const [first, ...others] = this.all;
    invariant(first && others.length > 0, 'a statement for several shards has several parts');
    await endedInTime(commitOnAll(first, others), this);
  }

  async rollBack(stopping: Promise<unknown> = Promise.resolve()): Promise<void> {
    await endedInTime(
      stopping.then(() => this.#rolledBack()),
      this,
    );
  }

  async #rolledBack(): Promise<void> {
    const open = this.all.filter(({ server }) => server !== null && !server.idle);
    await Promise.allSettled(open.map((part) => part.execute('ROLLBACK')));
  }

  release(): void {
    for (const part of this.all) part.release();
    this.#gate.released();
  }

  ready(): Buffer {
    return READY_IDLE;
  }
}

/** Waits for the end of transactions; when it takes too long their connections are ended, which ends the wait. */
export async function endedInTime(work: Promise<unknown>, parts: { abandon(): void }): Promise<void> {
  const timer = setTimeout(() => {
    parts.abandon();
  }, END_TIMEOUT_MS);
  try {
    await work;
  } finally {
    clearTimeout(timer);
  }
}

/** What the client reads: the server's own error where that is what it is about. */
export function replyOf(error: unknown, database: string): Buffer {
  const told = toldOf(error, database);
  return told instanceof CutoverError ? errorResponseOf(told, 'ERROR') : told.reply;
}

/** The server's own error, or ours. */
export function toldOf(error: unknown, database: string): ServerError | CutoverError {
  if (error instanceof ServerError && error.severity === 'ERROR') return error;
  const { cause } = error as { cause?: unknown };
  // A constraint that is checked at the end: the client knows its error.
  if (cause instanceof ServerError && cause.severity === 'ERROR' && isOfTheData(cause.code)) return cause;
  if (cause instanceof ServerError && NOT_PREPARED_FOR.has(cause.code))
    return new CutoverError('shards_not_ready', { database, problem: cause.message });
  if (error instanceof CutoverError) return error;
  return new CutoverError('shards_not_committed', { problem: messageOf(error) });
}

/** No function or schema, no right to it, or no prepared transactions (PostgreSQL documentation, appendix A). */
const NOT_PREPARED_FOR: ReadonlySet<string> = new Set(['42883', '3F000', '42501', '55000']);

/** Integrity constraint violations, transaction rollbacks (a serialization failure), and what a trigger raises. */
function isOfTheData(code: string): boolean {
  return /^(?:23|40|P0)/.test(code);
}

const COUNT = /\d+$/;

/** `UPDATE 3`: the counts of several tags added up. */
export function addedUp([first = '', ...others]: readonly string[]): string {
  return others.reduce((sum, tag) => {
    const counted = (Number(COUNT.exec(sum)?.[0] ?? 0) + Number(COUNT.exec(tag)?.[0] ?? 0)).toString();
    return sum.replace(COUNT, counted);
  }, first);
}
