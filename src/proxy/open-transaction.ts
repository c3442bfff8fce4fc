/**
 * One task: remember of a session's open transaction what tells where it may go on: what it has said of itself (BEGIN, SET LOCAL,
 * SAVEPOINT), which begins it on another server as well, and whether it has done more than that.
 */
import type { SessionHint, SessionStep } from '../sharding/statement-verdict.js';
import { STATUS } from '../wire/codes.js';
import type { SessionSettings } from './settings.js';

interface Effect {
  readonly writes: boolean;
  readonly over: boolean;
  readonly cursor: boolean;
  readonly mixed: boolean;
}

/** A transaction that has said more than this stays where it is. */
const SAID_MAX = 32;
const SAID_CHARACTERS_MAX = 8_192;
/** The levels at which each statement sees what is committed then (PostgreSQL documentation, 13.2.1). */
const READ_COMMITTED = /isolation\s+level\s+read\s+(?:un)?committed/gi;
const ISOLATION = /isolation/i;

export class OpenTransaction {
  open = false;
  /** nothing but its end, or the way back to a savepoint, is taken any more */
  failed = false;
  /** it has done something where it runs, and is not begun anew elsewhere */
  acted = false;
  /** it may have changed something, which the coordinator would not see */
  wrote = false;
  /** the coordinator has read for it, on sessions of its own */
  readOver = false;
  /** it is on several servers */
  onSeveral = false;
  /** hints it has set, newest last */
  hints: SessionHint[] = [];
  /** names may mean something else than the settings say */
  pathUncertain = false;
  /** a cursor or a portal with a name is on one server only */
  #cursor = false;
  /** the server did these; null: they are not known, or too many */
  #said: string[] | null = [];
  /** on their way to the server */
  #ahead: string[] = [];
  #role = false;

  /** The server is idle, in a transaction, or in a failed one. */
  settled(status: number): void {
    this.open = status !== STATUS.idle;
    this.failed = status === STATUS.failed;
    if (status === STATUS.inTransaction) this.#said?.push(...this.#ahead);
    if (this.#ahead.length > 0) this.#ahead = [];
    if (status === STATUS.idle) this.#end();
  }

  /** Said for each transaction, most of which have left nothing behind. */
  #end(): void {
    this.acted = false;
    this.wrote = false;
    this.readOver = false;
    this.onSeveral = false;
    this.pathUncertain = false;
    if (this.hints.length > 0) this.hints = [];
    this.#cursor = false;
    if (this.#said?.length !== 0) this.#said = [];
    this.#role = false;
  }

  /** A statement about the transaction itself is on its way. */
  say(text: string, steps: readonly SessionStep[]): void {
    if (steps.includes('role')) this.#role = true;
    if (this.#said === null) return;
    this.#ahead.push(text.replace(/[;\s]+$/, ''));
    const said = [...this.#said, ...this.#ahead];
    const characters = said.reduce((sum, each) => sum + each.length, 0);
    if (said.length <= SAID_MAX && characters <= SAID_CHARACTERS_MAX) return;
    this.#said = null;
    this.acted = true;
  }

  /**
   * A statement that does something is on its way.
   *
   * @param over the coordinator runs it
   * @param mixed its text is also about the transaction itself, so that what that was is not known
   */
  act(effect: Effect): void {
    this.acted = true;
    this.readOver ||= effect.over;
    this.wrote ||= effect.writes;
    this.#cursor ||= effect.cursor;
    if (effect.mixed) this.#said = null;
  }

  /** What begins it on another server, in SQL. */
  get opening(): string {
    // A comment may go to the end of its line.
    return (this.#said ?? []).join('\n;');
  }

  /** Each of its statements sees what is committed then, whatever the ones before it saw. */
  readsAnew(settings: SessionSettings, isolation: string | undefined): boolean {
    const set = settings.statements.get('default_transaction_isolation');
    const said = [...(this.#said ?? []), ...this.#ahead].map((text) => text.replaceAll(READ_COMMITTED, ''));
    return set === undefined && isolation === 'read committed' && !said.some((text) => ISOLATION.test(text));
  }

  /** Why it cannot go on on a further server; null when it can. */
  severalProblem(settings: SessionSettings, isolation: string | undefined): string | null {
    if (this.#said === null || this.#said.length === 0) return 'it has said more of itself than is kept';
    if (!this.readsAnew(settings, isolation)) return 'only one that is READ COMMITTED may use several shards';
    if (this.#cursor) return 'it has an open cursor';
    if (this.#role || settings.statements.has('role') || settings.statements.has('session_authorization'))
      return 'SET ROLE was said, and what is prepared belongs to the role that prepares it';
    return null;
  }
}
