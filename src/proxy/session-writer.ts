/** One task: run, for one session, a statement on several shards, and know of it what the session must know meanwhile. */
import { CutoverError } from '../errors/errors.js';
import type { FrameScanner } from '../wire/frames.js';
import { STATEMENTS_MAX, type ClientStatements } from './client-statements.js';
import type { Forwarder } from './forwarder.js';
import type { SessionContext } from './session-context.js';
import type { SessionCounters } from './session-counters.js';
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

export class SessionWriter {
  readonly #session: Session;
  readonly #context: SessionContext;
  readonly #settings: TrackedSettings;
  readonly #forwarder: Forwarder;
  #write: ShardWrite | null = null;

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
   * @param say gets what the client is answered, to the end
   * @param done the session may go on
   * @throws CutoverError `statements_exhausted`
   */
  begin(plan: WritePlan, scanner: FrameScanner, say: (bytes: Buffer) => void, done: () => void): void {
    const { counters, statements, user, database } = this.#session;
    const parsed = plan.batch.extended?.parsed ?? null;
    if (parsed !== null && statements.count >= STATEMENTS_MAX)
      throw new CutoverError('statements_exhausted', { count: STATEMENTS_MAX });
    for (let left = plan.batch.bytes; left > 0 && scanner.peek();) {
      left -= scanner.end - scanner.start;
      scanner.consume();
    }
    this.#forwarder.queries += 1;
    this.#write = new ShardWrite(this.#session, this.#context, this.#settings.current, plan, {
      say,
      started: () => {
        counters.started();
        counters.requested(this.#forwarder);
      },
      parsed: () => {
        if (parsed?.name === '') statements.unnamed = parsed.body;
        else if (parsed !== null) statements.prepare(parsed.name, parsed.body);
        statements.keep();
      },
    });
    void this.#write.run().then((committed) => {
      this.#write = null;
      if (!committed) counters.errors += 1;
      counters.waited();
      counters.answered(true, this.#forwarder, this.#context.routes.poolOf(user, database));
      done();
    });
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
