/**
 * One task: run, for one session, statements on several shards, by themselves or in its transaction, and know of them what the session must
 * know meanwhile.
 */
import { CutoverError, messageOf } from '../errors/errors.js';
import { errorResponse, READY_IDLE } from '../wire/backend.js';
import type { FrameScanner } from '../wire/frames.js';
import { STATEMENTS_MAX, type ClientStatements } from './client-statements.js';
import type { Forwarder } from './forwarder.js';
import { Reroute } from './reroute.js';
import type { SessionContext } from './session-context.js';
import type { SessionCounters } from './session-counters.js';
import { RowMove } from './row-move.js';
import type { WriteOutcome } from './several-answer.js';
import type { SeveralPlan } from './several-plan.js';
import { SchemaHold } from './schema-hold.js';
import { ShardCopy } from './shard-copy.js';
import type { ShardPart } from './shard-part.js';
import { ShardParts, replyOf, toldOf, type StatementParts } from './shard-parts.js';
import { ShardTransaction, type Lent, type TransactionPlan } from './shard-transaction.js';
import { ShardWrite, type WritePlan } from './shard-write.js';
import type { TrackedSettings } from './tracked-settings.js';
import { endMessages, partMessages, type WriteBatch } from './write-batch.js';

/** What it works on of a session. */
interface Session {
  readonly id: number;
  readonly user: string;
  readonly database: string;
  readonly counters: SessionCounters;
  readonly statements: ClientStatements;
}

/**
 * How the session goes on: without a transaction, or in one, with the server that is lent; null: it has none left. `notEnlisted`: why the
 * batch ahead could not go to its shard.
 */
export type Next =
  | { readonly kind: 'ended' }
  | { readonly kind: 'open'; readonly lent: Lent | null; readonly notEnlisted: CutoverError | null };

/** What a statement tells its session. */
export interface SessionWriterListener {
  /** what the client is answered, to the end */
  readonly say: (bytes: Buffer) => void;
  /** more of what the client has sent can be taken: see {@link SessionWriter.feed} */
  readonly more: () => void;
  /** the session may go on; a statement that is to run anew stands in the scanner again */
  readonly done: (next: Next) => void;
}

const ENDED: Next = { kind: 'ended' };
const NOTHING = Buffer.alloc(0);

export class SessionWriter {
  readonly #session: Session;
  readonly #context: SessionContext;
  readonly #settings: TrackedSettings;
  readonly #forwarder: Forwarder;
  readonly #reroute: Reroute;
  #write: ShardWrite | ShardCopy | RowMove | null = null;
  /** its servers */
  #parts: StatementParts | null = null;
  /** of the session, while it is on several shards */
  #transaction: ShardTransaction | null = null;
  #working = false;

  constructor(session: Session, context: SessionContext, settings: TrackedSettings, forwarder: Forwarder) {
    this.#session = session;
    this.#context = context;
    this.#settings = settings;
    this.#forwarder = forwarder;
    this.#reroute = new Reroute(session, context);
  }

  /** A server is held. */
  get holding(): boolean {
    return this.#parts?.holding === true || this.#transaction?.holding === true;
  }

  /** 0: none */
  get serverPid(): number {
    return this.#parts?.serverPid ?? this.#transaction?.serverPid ?? 0;
  }

  /**
   * Runs the batch that stands in the scanner, by itself.
   *
   * @throws CutoverError `statements_exhausted`
   */
  begin(plan: SeveralPlan, scanner: FrameScanner, session: SessionWriterListener): void {
    const { user, database } = this.#session;
    const shards = shardsOf(plan);
    const sent = this.#take(plan.batch, scanner);
    const mayAsk = this.#reroute.possible;
    const parts = new ShardParts(this.#session, this.#context, shards);
    this.#working = true;
    void this.#run(plan, parts, session, mayAsk, () => undefined).then(async (outcome) => {
      const again = outcome === 'anew' || outcome === 'refused';
      // Where nobody can say, the statement finds out when it runs anew.
      if (outcome === 'refused') await this.#reroute.ask();
      else this.#reroute.answered();
      this.#working = false;
      if (again) scanner.unshift(sent);
      this.#session.counters.answered(true, this.#forwarder, this.#context.routes.poolOf(user, database));
      session.done(ENDED);
    });
  }

  /**
   * Does in the open transaction what takes more servers than the one where it is; what is lent is the session's again when it is done.
   *
   * @param opening what has been said of the transaction, in SQL
   * @throws CutoverError `statements_exhausted`
   */
  beginIn(
    plan: TransactionPlan,
    opening: string,
    lent: Lent,
    scanner: FrameScanner,
    session: SessionWriterListener,
  ): void {
    const transaction = (this.#transaction ??= new ShardTransaction(this.#session, this.#context, lent.version));
    transaction.park(lent);
    if (plan.kind !== 'enlist') this.#take(plan.batch, scanner);
    this.#working = true;
    void this.#inTransaction(transaction, plan, opening, lent.shard, session).then((next) => {
      this.#working = false;
      if (next.kind === 'ended') this.#transaction = null;
      session.done(next);
    });
  }

  async #inTransaction(
    transaction: ShardTransaction,
    plan: TransactionPlan,
    opening: string,
    here: number,
    session: SessionWriterListener,
  ): Promise<Next> {
    if (plan.kind === 'enlist') return this.#enlist(transaction, plan.shard, opening, here);
    if (plan.kind === 'end') return this.#end(transaction, plan, session);
    const write = plan.kind === 'everywhere' ? everywhere(plan.batch, transaction.shards) : plan;
    const schema = write.kind === 'write' && write.schema !== 'none';
    const parts = transaction.partsFor(shardsOf(write), this.#settings.current, opening, schema);
    let problem: unknown;
    const outcome = await this.#run(write, parts, session, false, (error) => (problem = error));
    this.#session.counters.answered(false, this.#forwarder, null);
    if (outcome === 'committed' && plan.kind === 'everywhere' && plan.back)
      await transaction.limitAgain().catch(() => undefined);
    const [first = here] = transaction.shards;
    const next = transaction.shards.includes(here) ? here : first;
    const shard = outcome === 'committed' ? next : await transaction.fail(problem);
    return { kind: 'open', lent: shard === null ? null : transaction.lend(shard), notEnlisted: null };
  }

  #told(error: unknown): void {
    const told = toldOf(error, this.#session.database);
    if (told instanceof CutoverError) this.#context.journal.told(told, 'ERROR', this.#session);
  }

  async #enlist(transaction: ShardTransaction, shard: number, opening: string, here: number): Promise<Next> {
    try {
      await transaction.enlist([shard], this.#settings.current, opening);
      return { kind: 'open', lent: transaction.lend(shard), notEnlisted: null };
    } catch (error) {
      const notEnlisted =
        error instanceof CutoverError ? error : new CutoverError('shards_not_committed', { problem: messageOf(error) });
      return { kind: 'open', lent: transaction.lend(here), notEnlisted };
    }
  }

  async #end(
    transaction: ShardTransaction,
    { commit, batch }: Extract<TransactionPlan, { kind: 'end' }>,
    session: SessionWriterListener,
  ): Promise<Next> {
    const { counters, user, database } = this.#session;
    let answer = endMessages(batch, commit ? 'COMMIT' : 'ROLLBACK');
    let committed = commit;
    counters.requested(this.#forwarder);
    try {
      if (commit) await transaction.hold?.ready(transaction.parts);
      if (commit) await transaction.commit();
    } catch (error) {
      committed = false;
      counters.errors += 1;
      answer = replyOf(error, database);
      this.#told(error);
    }
    await transaction.rollBack();
    this.#parsed(batch);
    this.#settings.endedOn(transaction.servers, committed);
    transaction.release();
    const problem = (await transaction.hold?.end()) ?? null;
    const notice = committed && transaction.schemaChanged ? await this.#schemaNotice(problem) : NOTHING;
    session.say(Buffer.concat([notice, answer, READY_IDLE]));
    counters.answered(true, this.#forwarder, this.#context.routes.poolOf(user, database));
    return ENDED;
  }

  async #run(
    plan: SeveralPlan,
    parts: StatementParts,
    session: SessionWriterListener,
    mayAsk: boolean,
    failed: (error: unknown) => void,
  ): Promise<WriteOutcome> {
    const { counters } = this.#session;
    const transaction = parts.inTransaction ? this.#transaction : null;
    const hold = transaction?.hold ?? this.#newHold();
    const listener = {
      ...session,
      failed: (error: unknown) => {
        this.#told(error);
        failed(error);
      },
      started: () => {
        if (!parts.inTransaction) counters.started();
        counters.requested(this.#forwarder);
      },
      parsed: () => {
        this.#parsed(plan.batch);
      },
      schemaMayChange: async (): Promise<void> => {
        if (transaction !== null) transaction.hold = hold;
        await hold.begin();
      },
      overdue: () => hold.overdue,
      schemaMayCommit: async (all: readonly ShardPart[]): Promise<void> => {
        if (transaction === null) await hold.ready(all);
      },
      schemaChanged: async (): Promise<Buffer> => {
        if (transaction === null) return this.#schemaNotice(await hold.end());
        transaction.schemaChanged = true;
        return NOTHING;
      },
    };
    const { current } = this.#settings;
    this.#parts = parts;
    if (plan.kind === 'copy') this.#write = new ShardCopy(this.#session, parts, current, plan, listener);
    else if (plan.kind === 'move') this.#write = new RowMove(this.#session, parts, current, plan, listener, mayAsk);
    else this.#write = new ShardWrite(this.#session, parts, current, plan, listener, mayAsk);
    const outcome = await this.#write.run();
    if (transaction === null) await hold.end();
    this.#write = null;
    this.#parts = null;
    if (outcome === 'failed') counters.errors += 1;
    counters.waited();
    return outcome;
  }

  #newHold(): SchemaHold {
    return new SchemaHold(this.#context.routers, this.#session.database, () => {
      this.cancel();
    });
  }

  /** Takes the batch from the scanner. @returns its bytes @throws CutoverError `statements_exhausted` */
  #take(batch: WriteBatch, scanner: FrameScanner): Buffer {
    if (batch.extended?.parsed && this.#session.statements.count >= STATEMENTS_MAX)
      throw new CutoverError('statements_exhausted', { count: STATEMENTS_MAX });
    const sent = Buffer.from(scanner.buffer.subarray(scanner.position, scanner.position + batch.bytes));
    for (let left = batch.bytes; left > 0 && scanner.peek();) {
      left -= scanner.end - scanner.start;
      scanner.consume();
    }
    this.#forwarder.queries += 1;
    return sent;
  }

  #parsed({ extended }: WriteBatch): void {
    const { statements } = this.#session;
    const parsed = extended?.parsed ?? null;
    if (parsed?.name === '') statements.unnamed = parsed.body;
    else if (parsed !== null) statements.prepare(parsed.name, parsed.body);
    statements.keep();
  }

  /** The schema was changed: reads anew what is known of it. @returns what the client is told of the coordinator; empty for nothing */
  async #schemaNotice(problem: string | null): Promise<Buffer> {
    const { user, database } = this.#session;
    await this.#context.routers.read(user, database).catch(() => undefined);
    if (problem === null) return NOTHING;
    const message = `the schema was changed on every shard, but the coordinator is not in step: ${problem}; run: cutover coordinator ${database}`;
    return errorResponse({ severity: 'NOTICE', sqlstate: '01000', message });
  }

  /** Takes what the client sends for the statement that runs, as far as it takes any. @throws FrameError | CutoverError */
  feed(scanner: FrameScanner): void {
    if (this.#write instanceof ShardCopy) this.#write.feed(scanner);
  }

  /** Stops the statement where it runs; what is being committed is not stopped. */
  cancel(): void {
    this.#write?.cancel();
  }

  /** Closes the connections where the statement was to stop and has not. May be called again. */
  giveUp(): void {
    this.#write?.giveUp();
  }

  /** The client has taken enough, or wants more. */
  hold(held: boolean): void {
    this.#parts?.hold(held);
  }

  /** The client is gone. @returns whether something runs that comes to its end without it */
  leave(): boolean {
    this.#parts?.hold(false);
    this.#parts?.leave();
    if (this.#write instanceof ShardCopy) this.#write.left();
    this.#transaction?.leave();
    return this.#working;
  }

  /** Ends the connections, whatever is in flight; what a transaction has done is rolled back. May be called again. */
  abandon(): void {
    this.#parts?.abandon();
    this.#transaction?.abandon();
  }
}

/** What is said of a transaction: one server answers for all of them. */
function everywhere(batch: WriteBatch, shards: readonly number[]): WritePlan {
  const messages = partMessages(batch, null);
  const parts = shards.map((shard) => ({ shard, messages, rows: null }));
  return { kind: 'write', batch, parts, alike: true, schema: 'none', lock: null };
}

function shardsOf(plan: SeveralPlan): readonly number[] {
  return plan.kind === 'write' ? plan.parts.map(({ shard }) => shard) : plan.shards;
}
