/**
 * One task: run one statement on several shards, on all of them or on none, and answer the client as one server would.
 *
 * Shard after shard, in the order of their numbers: two such statements that write the same rows wait for each other on the first one,
 * and never in a circle. Then two-phase commit (src/postgres/two-phase.ts). Rows of RETURNING pass as they come, except those of an
 * INSERT, which are put in the order of the rows that were inserted.
 */
import { CutoverError, messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { commitOnAll } from '../postgres/two-phase.js';
import { commandComplete, errorResponseOf, READY_IDLE } from '../wire/backend.js';
import { BACKEND } from '../wire/codes.js';
import type { Gate } from './gate.js';
import { GateWait } from './gate-wait.js';
import type { SessionContext } from './session-context.js';
import type { SessionSettings } from './settings.js';
import { SentAway, ServerError, ShardPart, type Passing } from './shard-part.js';
import { closing, isAskedFor, type PartMessages, type WriteBatch } from './write-batch.js';

export interface WritePlan {
  readonly batch: WriteBatch;
  /** two or more, in the order of their shards */
  readonly parts: readonly {
    readonly shard: number;
    readonly messages: PartMessages;
    /** of an INSERT: which of its rows these are; null: the shard finds its rows itself */
    readonly rows: readonly number[] | null;
  }[];
  /** every shard has the same rows, so that one of them tells what was written */
  readonly alike: boolean;
}

/** What a write needs of the session. */
export interface WriteListener {
  /** for the client */
  readonly say: (bytes: Buffer) => void;
  /** all servers are there */
  readonly started: () => void;
  /** the statement that the batch parses is known to be good */
  readonly parsed: () => void;
}

/** The gate may close, or a pool go, while the last of the servers is waited for. */
const BORROW_TRIES_MAX = 20;
/** Rows of an INSERT are kept until all of them are there. */
const ROWS_BYTES_MAX = 16 * 1024 * 1024;
/** An end that a server does not answer in this time ends its connection; whoever resolves ends the rest. */
const END_TIMEOUT_MS = 30_000;

export class ShardWrite {
  readonly #client: { readonly id: number; readonly user: string; readonly database: string };
  readonly #context: SessionContext;
  readonly #settings: SessionSettings;
  readonly #plan: WritePlan;
  readonly #listener: WriteListener;
  readonly #gate: Gate;
  readonly #parts: readonly ShardPart[];
  /** rows of each part, where they have to be put in order */
  readonly #rows: Buffer[][];
  #rowsBytes = 0;
  #running: ShardPart | null = null;
  #left = false;
  #leaveGate: () => void = () => undefined;

  constructor(
    client: { readonly id: number; readonly user: string; readonly database: string },
    context: SessionContext,
    settings: SessionSettings,
    plan: WritePlan,
    listener: WriteListener,
  ) {
    this.#client = client;
    this.#context = context;
    this.#settings = settings;
    this.#plan = plan;
    this.#listener = listener;
    this.#gate = context.gate(client.database);
    this.#parts = plan.parts.map(({ shard }) => new ShardPart(client.id, shard));
    this.#rows = plan.parts.map(() => []);
  }

  /** A server is held, so a pause must wait. */
  get holding(): boolean {
    return this.#parts.some(({ server }) => server !== null);
  }

  get serverPid(): number {
    return this.#parts.find(({ server }) => server !== null)?.server?.processId ?? 0;
  }

  /** Stops the statement where it runs; what is being committed is not stopped. */
  cancel(): void {
    this.#running?.cancel();
  }

  /** The client has taken enough, or wants more. */
  hold(held: boolean): void {
    for (const { server } of this.#parts) {
      if (held) server?.pause();
      else server?.resume();
    }
  }

  /** The client is gone: what has not begun does not begin. */
  leave(): void {
    this.#left = true;
    this.#leaveGate();
    if (!this.holding) this.abandon();
  }

  /** Ends the connections, whatever is in flight. */
  abandon(): void {
    for (const part of this.#parts) part.abandon();
  }

  /** Answers the client to the end. @returns whether the statement was committed; never rejects */
  async run(): Promise<boolean> {
    let open = false;
    try {
      await this.#borrow();
      this.#listener.started();
      open = true;
      for (const index of this.#parts.keys()) await this.#runPart(index);
      open = false;
      await this.#commit();
      this.#listener.say(
        Buffer.concat([...this.#ordered(), commandComplete(this.#tag), closing(this.#plan.batch), READY_IDLE]),
      );
      return true;
    } catch (error) {
      if (open) await this.#rollBack();
      this.#listener.say(Buffer.concat([this.#replyOf(error), READY_IDLE]));
      return false;
    } finally {
      this.#running = null;
      this.#release();
    }
  }

  async #borrow(): Promise<void> {
    const { user, database } = this.#client;
    const { routes } = this.#context;
    for (let tries = 0; tries < BORROW_TRIES_MAX; tries += 1) {
      await this.#gateOpen();
      try {
        for (const part of this.#parts) await part.borrow(routes.of(user, database, part.shard).pool);
        if (!this.#gate.closed) return;
      } catch (error) {
        if (!(error instanceof SentAway)) throw error;
      }
      this.#release();
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
      if (this.#left) this.#leaveGate();
      else wait.begin();
    });
  }

  async #runPart(index: number): Promise<void> {
    const [part, planned] = [this.#parts[index], this.#plan.parts[index]];
    invariant(part && planned, 'each part is planned');
    this.#running = part;
    await part.begin(this.#settings);
    await part.run(planned.messages, this.#passing(index));
    if (this.#rowsBytes > ROWS_BYTES_MAX)
      throw new CutoverError('shards_not_committed', {
        problem: `its RETURNING is longer than ${ROWS_BYTES_MAX.toString()} bytes`,
      });
  }

  /** What goes to the client of what a part's server says: of the first one also what comes once. */
  #passing(index: number): Passing {
    const { batch, alike, parts } = this.#plan;
    const { say, parsed } = this.#listener;
    const first = index === 0;
    const inOrder = parts[index]?.rows !== null;
    return (type, bytes, continued) => {
      if (type === BACKEND.noticeResponse) say(bytes);
      else if (type === BACKEND.dataRow) {
        if (inOrder) this.#keep(index, bytes, continued);
        else if (first || !alike) say(bytes);
      } else if (first && type === BACKEND.parseComplete) {
        if (!isAskedFor(batch, 'parse')) return;
        parsed();
        say(bytes);
      } else if (first && (type === BACKEND.rowDescription || type === BACKEND.noData)) {
        if (isAskedFor(batch, 'describe')) say(bytes);
      } else if (first && type === BACKEND.bindComplete) say(bytes);
    };
  }

  #keep(index: number, bytes: Buffer, continued: boolean): void {
    const rows = this.#rows[index] ?? [];
    this.#rowsBytes += bytes.length;
    if (this.#rowsBytes > ROWS_BYTES_MAX) return;
    const before = continued ? rows.pop() : undefined;
    rows.push(before === undefined ? bytes : Buffer.concat([before, bytes]));
  }

  /** Rows in the order of the INSERT; where a part has not one for each of its rows, shard by shard. */
  #ordered(): readonly Buffer[] {
    const { parts } = this.#plan;
    const whole = parts.every(({ rows }, index) => rows?.length === this.#rows[index]?.length);
    if (!whole) return this.#rows.flat();
    const placed = parts.flatMap(({ rows }, index) =>
      (rows ?? []).map((row, at) => ({ row, bytes: this.#rows[index]?.[at] ?? Buffer.alloc(0) })),
    );
    return placed.sort((a, b) => a.row - b.row).map(({ bytes }) => bytes);
  }

  /** `UPDATE 3`: the counts of the shards added up. */
  get #tag(): string {
    const [first = '', ...others] = this.#parts.map(({ tag }) => tag);
    if (this.#plan.alike) return first;
    return others.reduce((sum, tag) => {
      const counted = (Number(COUNT.exec(sum)?.[0] ?? 0) + Number(COUNT.exec(tag)?.[0] ?? 0)).toString();
      return sum.replace(COUNT, counted);
    }, first);
  }

  async #commit(): Promise<void> {
    // What is being decided is not stopped by anybody.
    this.#running = null;
    const [first, ...others] = this.#parts;
    invariant(first && others.length > 0, 'a statement for several shards has several parts');
    await this.#ending(commitOnAll(first, others));
  }

  async #rollBack(): Promise<void> {
    const open = this.#parts.filter(({ server }) => server !== null && !server.idle);
    await this.#ending(Promise.allSettled(open.map((part) => part.execute('ROLLBACK'))));
  }

  async #ending(work: Promise<unknown>): Promise<void> {
    const timer = setTimeout(() => {
      this.abandon();
    }, END_TIMEOUT_MS);
    try {
      await work;
    } finally {
      clearTimeout(timer);
    }
  }

  #release(): void {
    for (const part of this.#parts) part.release();
    this.#gate.released();
  }

  #replyOf(error: unknown): Buffer {
    if (error instanceof ServerError && error.severity === 'ERROR') return error.reply;
    const { cause } = error as { cause?: unknown };
    // A constraint that is checked at the end: the client knows its error.
    if (cause instanceof ServerError && cause.severity === 'ERROR' && isOfTheData(cause.code)) return cause.reply;
    if (cause instanceof ServerError && NOT_PREPARED_FOR.has(cause.code))
      return errorResponseOf(
        new CutoverError('shards_not_ready', { database: this.#client.database, problem: cause.message }),
        'ERROR',
      );
    if (error instanceof CutoverError) return errorResponseOf(error, 'ERROR');
    return errorResponseOf(new CutoverError('shards_not_committed', { problem: messageOf(error) }), 'ERROR');
  }
}

/** No function or schema, no right to it, or no prepared transactions (PostgreSQL documentation, appendix A). */
const NOT_PREPARED_FOR: ReadonlySet<string> = new Set(['42883', '3F000', '42501', '55000']);
const COUNT = /\d+$/;

/** Integrity constraint violations, transaction rollbacks (a serialization failure), and what a trigger raises. */
function isOfTheData(code: string): boolean {
  return /^(?:23|40|P0)/.test(code);
}
