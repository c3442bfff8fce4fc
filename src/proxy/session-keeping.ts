/**
 * One task: keep, for one session, the server in whose session it has something that outlives a transaction, and have it go along or end
 * when the database's name leads elsewhere.
 */
import type { CutoverError } from '../errors/errors.js';
import type { Borrowing } from './borrowing.js';
import type { Forwarder } from './forwarder.js';
import { listenOn, stopListening } from './listener-move.js';
import type { SessionContext } from './session-context.js';
import { readState, stateLost, UNREADABLE } from './session-state.js';

interface KeepingSession {
  readonly user: string;
  readonly database: string;
  deliver(bytes: Buffer): void;
  terminate(error: CutoverError): void;
}

export class SessionKeeping {
  readonly #session: KeepingSession;
  readonly #context: SessionContext;
  readonly #borrowing: Borrowing;
  readonly #forwarder: Forwarder;
  #following = false;

  constructor(session: KeepingSession, context: SessionContext, borrowing: Borrowing, forwarder: Forwarder) {
    this.#session = session;
    this.#context = context;
    this.#borrowing = borrowing;
    this.#forwarder = forwarder;
  }

  /** It has what no other server can give it. */
  get bound(): boolean {
    return (this.#borrowing.state?.bound.length ?? 0) > 0;
  }

  /** A statement may have left something behind, or taken it away. */
  get suspected(): boolean {
    return this.#forwarder.mentionedState;
  }

  suspect(): void {
    this.#forwarder.mentionedState = true;
  }

  /** What the session ends with when its server is lost; null where it has nothing there. */
  get loss(): CutoverError | null {
    const { state, step } = this.#borrowing;
    if (state === null && step !== 'asking') return null;
    return stateLost(this.#session.database, state ?? UNREADABLE);
  }

  /** The server has been asked, and has answered or failed to. */
  told(failure: Buffer | null): void {
    const answer = failure === null ? (this.#borrowing.server?.takeAnswer() ?? null) : null;
    this.#borrowing.step = 'none';
    this.#borrowing.state = readState(answer);
    this.#forwarder.mentionedState = answer === null;
  }

  /**
   * To be called between transactions, when the name may lead to another server: a session that only listens has that one listen
   * before it lets go of the first; any other one ends. Never rejects; resolves when it hears the other server.
   */
  async follow(): Promise<void> {
    const { state, pool, server, step } = this.#borrowing;
    if (state === null || server === null || this.#following || (step !== 'none' && step !== 'gate')) return;
    const next = this.#context.routes.poolOf(this.#session.user, this.#session.database, this.#borrowing.shard);
    if (next === pool) return;
    if (next === null || state.bound.length > 0) {
      this.#session.terminate(stateLost(this.#session.database, state));
      return;
    }
    this.#following = true;
    this.#borrowing.beginExchange();
    const other = await listenOn(next, state.channels);
    this.#following = false;
    if (this.#borrowing.server !== server || this.#borrowing.state !== state) {
      // The client or the server has gone meanwhile.
      if (other !== null) next.giveBack(other, false);
    } else if (other === null) this.#session.terminate(stateLost(this.#session.database, state));
    else {
      const before = this.#borrowing.exchange(other, next);
      await stopListening(before.server, before.pool, (bytes) => {
        this.#session.deliver(bytes);
      });
      await this.follow();
    }
  }
}
