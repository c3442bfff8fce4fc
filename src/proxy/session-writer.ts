/** One task: run, for one session, a statement on several shards, and know of it what the session must know meanwhile. */
import { CutoverError, messageOf } from '../errors/errors.js';
import type { FrameScanner } from '../wire/frames.js';
import { STATEMENTS_MAX, type ClientStatements } from './client-statements.js';
import type { Forwarder } from './forwarder.js';
import type { SessionContext } from './session-context.js';
import type { SessionCounters } from './session-counters.js';
import { ShardCopy, type CopyPlan } from './shard-copy.js';
import { ShardWrite, type WritePlan } from './shard-write.js';
import type { TrackedSettings } from './tracked-settings.js';

/** What it works on of a session. */
interface Session {
  readonly id: number;
  readonly user: string;
  readonly database: string;
  readonly counters: SessionCounters;
  readonly statements: ClientStatements;
}

/** What a statement tells its session. */
export interface SessionWriterListener {
  /** what the client is answered, to the end */
  readonly say: (bytes: Buffer) => void;
  /** more of what the client has sent can be taken: see {@link SessionWriter.feed} */
  readonly more: () => void;
  /** the session may go on; a statement that is to run anew stands in the scanner again */
  readonly done: () => void;
}

/** Refusals of the fence after which the record is asked and the statement runs anew. */
const REROUTES_MAX = 3;

export class SessionWriter {
  /** refusals since a statement was answered */
  #reroutes = 0;
  readonly #session: Session;
  readonly #context: SessionContext;
  readonly #settings: TrackedSettings;
  readonly #forwarder: Forwarder;
  #write: ShardWrite | ShardCopy | null = null;

  constructor(session: Session, context: SessionContext, settings: TrackedSettings, forwarder: Forwarder) {
    this.#session = session;
    this.#context = context;
    this.#settings = settings;
    this.#forwarder = forwarder;
  }

  /** A server is held. */
  get holding(): boolean {
    return this.#write?.holding === true;
  }

  /** 0: none */
  get serverPid(): number {
    return this.#write?.serverPid ?? 0;
  }

  /**
   * Runs the batch that stands in the scanner.
   *
   * @throws CutoverError `statements_exhausted`
   */
  begin(plan: WritePlan | CopyPlan, scanner: FrameScanner, session: SessionWriterListener): void {
    const { counters, statements, user, database } = this.#session;
    const parsed = plan.batch.extended?.parsed ?? null;
    if (parsed !== null && statements.count >= STATEMENTS_MAX)
      throw new CutoverError('statements_exhausted', { count: STATEMENTS_MAX });
    const sent = Buffer.from(scanner.buffer.subarray(scanner.position, scanner.position + plan.batch.bytes));
    for (let left = plan.batch.bytes; left > 0 && scanner.peek();) {
      left -= scanner.end - scanner.start;
      scanner.consume();
    }
    this.#forwarder.queries += 1;
    const mayAsk = this.#context.hooks !== undefined && this.#reroutes < REROUTES_MAX;
    const listener = {
      ...session,
      started: () => {
        counters.started();
        counters.requested(this.#forwarder);
      },
      parsed: () => {
        if (parsed?.name === '') statements.unnamed = parsed.body;
        else if (parsed !== null) statements.prepare(parsed.name, parsed.body);
        statements.keep();
      },
    };
    const { current } = this.#settings;
    this.#write =
      plan.kind === 'copy'
        ? new ShardCopy(this.#session, this.#context, current, plan, listener)
        : new ShardWrite(this.#session, this.#context, current, plan, listener, mayAsk);
    void this.#write.run().then(async (outcome) => {
      const again = outcome === 'anew' || outcome === 'refused';
      if (outcome === 'refused') await this.#askRecord();
      this.#write = null;
      this.#reroutes = outcome === 'refused' ? this.#reroutes + 1 : 0;
      if (again) scanner.unshift(sent);
      if (outcome === 'failed') counters.errors += 1;
      counters.waited();
      counters.answered(true, this.#forwarder, this.#context.routes.poolOf(user, database));
      session.done();
    });
  }

  /** Where nobody can say, the statement finds out when it runs anew. */
  async #askRecord(): Promise<void> {
    const { hooks, logger } = this.#context;
    const { id, database } = this.#session;
    await hooks?.onFenceRefusal(database).catch((error: unknown) => {
      logger.warn({ client: id, database }, `not routed anew: ${messageOf(error)}`);
    });
  }

  /** Takes what the client sends for the statement that runs, as far as it takes any. @throws FrameError | CutoverError */
  feed(scanner: FrameScanner): void {
    if (this.#write instanceof ShardCopy) this.#write.feed(scanner);
  }

  /** Stops the statement where it runs; what is being committed is not stopped. */
  cancel(): void {
    this.#write?.cancel();
  }

  /** The client has taken enough, or wants more. */
  hold(held: boolean): void {
    this.#write?.hold(held);
  }

  /** The client is gone. @returns whether something runs that comes to its end without it */
  leave(): boolean {
    this.#write?.hold(false);
    this.#write?.leave();
    return this.#write !== null;
  }

  /** Ends the connections, whatever is in flight. */
  abandon(): void {
    this.#write?.abandon();
  }
}
