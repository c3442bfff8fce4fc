/**
 * One task: one connection to a PostgreSQL server: send, scan what comes back, hand it to whoever owns the connection.
 *
 * At most one owner at a time. Everything a server sends passes as it came, in as few pieces as possible, except what
 * the proxy itself caused (setup statements, injected Parse and Close) and a refusal by the fence that the owner can
 * still route anew. The owner is told `settled` at a ReadyForQuery with nothing left to answer: only then may the
 * connection go to somebody else.
 */
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { FENCE_SQLSTATE, messageOf } from '../errors/errors.js';
import { readDirectly } from '../postgres/direct-read.js';
import type { Endpoint } from '../postgres/endpoint.js';
import { CLOSE_COMPLETE, errorField, PARSE_COMPLETE, readCommandTag, readParameterStatus } from '../wire/backend.js';
import { BACKEND, SERVER_RULES, STATUS } from '../wire/codes.js';
import { FrameError, FrameScanner, HEADER_BYTES } from '../wire/frames.js';
import { query, TERMINATE } from '../wire/frontend.js';
import { errorAsAsked } from './error-as-asked.js';
import { HeldReplies } from './held-replies.js';
import { OwnStatements } from './own-statements.js';
import { REPLY, ReplyQueue, type Reply } from './reply-queue.js';
import type { LoggedIn } from './server-login.js';
import type { ServerOwner } from './server-owner.js';
import { ServerStatements } from './server-statements.js';
import { mayChangeSession, sessionTagOf } from './session-tags.js';
import { SessionSettings } from './settings.js';
import { endsWithUnasked, mayCome } from './unasked.js';

export type { ServerOwner } from './server-owner.js';

/** How long a server may take to end a session that says goodbye. */
const END_TIMEOUT_MS = 5_000;

const NOTHING = Buffer.alloc(0);
/** Of the one value of a DataRow: behind type, length, count of values and the value's length (PostgreSQL documentation, 54.7). */
const VALUE_AT = HEADER_BYTES + 2 + 4;

const VERDICT = { pass: 0, drop: 1, settled: 2, setupDone: 3 } as const;
type Verdict = (typeof VERDICT)[keyof typeof VERDICT];

export class ServerConnection {
  readonly endpoint: Endpoint;
  readonly processId: number;
  readonly secret: Buffer;
  readonly connectedAt = new Date();
  readonly tls: boolean;
  readonly statements: ServerStatements;
  readonly replies = new ReplyQueue();
  /** what the server reported about itself */
  readonly parameters: Map<string, string>;
  /** equal for servers that reported the same */
  parametersKey: string;
  /** what the server reported right after login */
  readonly initialParameters: ReadonlyMap<string, string>;
  /** something other than settings was left behind, so DISCARD ALL is due before the next client */
  dirty = false;
  transactionStatus: number = STATUS.idle;
  /** reported parameters that changed since the owner took the connection */
  readonly changedParameters = new Map<string, string>();
  /** the unnamed statement that the server has, as its client keeps it (`ClientStatements.unnamed`); null = none, or another */
  unnamed: Buffer | null = null;
  /** what the server got in the place of that statement's text; null: that text */
  unnamedAs: string | null = null;
  /** a text was sent in the place of the client's: a position in it would be a wrong one */
  hidesPositions = false;
  /** cancel requests on their way to this server; it must not change hands meanwhile */
  cancelsInFlight = 0;
  /** the server's own FATAL was passed on: the client knows why the connection ends */
  saidWhy = false;
  /** by the monotonic clock; 0 = never */
  lastRequestAt = 0;
  /** of a message whose first part was sent the rest is yet to be sent: whatever came instead would be taken for it */
  insideRequest = false;
  /**
   * The owner hears settled() at each ReadyForQuery, behind the bytes up to it: what was sent behind may be another client's. Each Query is
   * one command then, and behind its end nothing comes but that.
   */
  handsOver = false;
  /** set by its pool: it is too old from then on, by the monotonic clock; 0: it is to be closed as soon as nobody has it */
  retiresAtMs = Number.POSITIVE_INFINITY;
  transactions = 0;
  queries = 0;
  rollbacks = 0;
  errors = 0;
  bytesReceived = 0;
  bytesSent = 0;
  #settings: SessionSettings | null = SessionSettings.NONE;
  #onClosed: (() => void) | null = null;
  #owner: ServerOwner | null = null;
  #paused = false;
  readonly #own = new OwnStatements(() => {
    this.destroy();
  });
  readonly #socket: Socket;
  readonly #scanner = new FrameScanner(SERVER_RULES);
  #lastVerdict: Verdict = VERDICT.pass;
  #setupFailure: Buffer | null = null;
  /** the row that a statement of the proxy's own was answered with; null: nobody has asked */
  #answer: Buffer | null = null;
  /** what the client gets in the place of the message just dropped */
  #instead: Buffer | null = null;
  readonly #held = new HeldReplies();
  /** what is read now is overwritten by the next read, unless somebody needs it: true; null: it stays anyway */
  #kept: boolean | null = null;
  #tags = 0;
  #failed = false;
  #ended = false;

  constructor(login: LoggedIn, endpoint: Endpoint, statementsMax: number) {
    this.endpoint = endpoint;
    this.processId = login.processId;
    this.secret = login.secret;
    this.parameters = login.parameters;
    this.initialParameters = new Map(login.parameters);
    this.parametersKey = keyOf(login.parameters);
    this.statements = new ServerStatements(statementsMax, this.replies);
    this.#socket = login.socket;
    this.tls = login.socket instanceof TLSSocket;
    this.#socket.on('data', (chunk: Buffer) => {
      this.#guarded(chunk);
    });
    readDirectly(this.#socket, (bytes) => this.#readPassing(bytes));
    this.#socket.on('drain', () => this.owner?.writable());
    this.#socket.on('close', () => {
      this.#close();
    });
    if (login.unread.length > 0) this.#guarded(login.unread);
    this.#socket.resume();
  }

  get owner(): ServerOwner | null {
    return this.#owner;
  }

  set owner(owner: ServerOwner | null) {
    if (owner === this.#owner) return;
    this.#owner = owner;
    this.#held.forget();
    this.#tags = 0;
    this.#failed = false;
  }

  /** what the session has been made to differ in; null = not known */
  get settings(): SessionSettings | null {
    return this.#settings;
  }

  set settings(settings: SessionSettings | null) {
    this.#settings = settings;
    this.statements.readBy(settings?.meaning ?? null);
  }

  get usable(): boolean {
    return !this.#ended && !this.#socket.destroyed;
  }

  /** nothing in flight and no transaction open, nor one that a Sync would end, nor the rest of a message awaited */
  get idle(): boolean {
    return !this.insideRequest && this.replies.empty && !this.replies.open && this.transactionStatus === STATUS.idle;
  }

  /** A part of a message has come. Between two clients: of one that nobody has asked for, and the rest would be read by the next one. */
  get insideMessage(): boolean {
    return this.#scanner.insideFrame || this.#scanner.unreadBytes > 0;
  }

  /** Its client was told why it ends, or a part of a message whose rest would have to come first: nothing can be said behind it. */
  get hasLastWord(): boolean {
    return this.saidWhy || this.#scanner.insideFrame;
  }

  /** Called once, when the connection is over. */
  set onClosed(listener: () => void) {
    this.#onClosed = listener;
  }

  /** Sends bytes whose answers are in `replies` already. @returns false when the owner should wait for writable() */
  send(bytes: Buffer): boolean {
    this.bytesSent += bytes.length;
    return this.#socket.write(bytes);
  }

  /** Keeps what is sent until uncork(), to go in one write. */
  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  /**
   * Sends a statement of the proxy's own; the owner hears setupDone(), or lost() when that takes too long. Its answer is read even while
   * the client has enough.
   */
  setup(sql: string, withinMs: number): void {
    // A simple query takes the unnamed statement away.
    this.unnamed = null;
    this.replies.push(REPLY.setup);
    this.#own.sent(withinMs);
    if (this.#paused) this.#socket.resume();
    this.send(query(sql));
  }

  /** As setup(), for a statement with one row of one column: {@link takeAnswer} has it when the owner hears setupDone(). */
  ask(sql: string, withinMs: number): void {
    this.#answer = NOTHING;
    this.setup(sql, withinMs);
  }

  /** The text that was asked for; null where there is none. */
  takeAnswer(): string | null {
    const row = this.#answer;
    this.#answer = null;
    return row === null || row.length <= VALUE_AT ? null : row.toString('latin1', VALUE_AT);
  }

  /** Holds replies back until it is known that the fence did not refuse the batch sent next. */
  watchForRefusal(): void {
    this.#held.undecided = true;
  }

  /** Ends the holding back: the client waits for what has come. */
  stopWatching(): void {
    this.#held.undecided = false;
    this.#held.refused = false;
    this.#release();
  }

  /** ParseComplete or CloseComplete that no server sends, at its place among those one does: behind the whole message before it. */
  sayDue(): void {
    while (this.replies.dueHere && !this.#scanner.insideFrame) {
      this.#emit(this.replies.head === REPLY.sayParseComplete ? PARSE_COMPLETE : CLOSE_COMPLETE);
      this.replies.pop();
    }
  }

  pause(): void {
    this.#paused = true;
    if (!this.#own.owed) this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** Ends an idle connection the way a client does. */
  end(): void {
    if (!this.#socket.destroyed) {
      this.#socket.end(TERMINATE);
      this.#socket.setTimeout(END_TIMEOUT_MS, () => this.#socket.destroy());
    }
    this.#close();
  }

  /** Ends the connection at once, whatever is in flight. */
  destroy(): void {
    this.#socket.destroy();
    this.#close();
  }

  #close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#own.ended();
    this.#release();
    const { owner } = this;
    this.owner = null;
    this.#onClosed?.();
    owner?.lost();
  }

  /** @returns false when the bytes are needed when it has returned */
  #readPassing(bytes: Buffer): boolean {
    this.#kept = false;
    this.#guarded(bytes);
    this.#scanner.detach();
    const kept = this.#kept;
    this.#kept = null;
    return !kept;
  }

  #guarded(chunk: Buffer): void {
    try {
      this.#read(chunk);
    } catch (error) {
      // Not PostgreSQL, or a mistake here: either way nothing that follows can be trusted.
      this.errors += 1;
      this.#socket.destroy(error instanceof Error ? error : new Error(messageOf(error)));
      this.#close();
    }
  }

  #read(chunk: Buffer): void {
    this.bytesReceived += chunk.length;
    const scanner = this.#scanner;
    scanner.feed(chunk);
    const { buffer } = scanner;
    let from = scanner.position;
    let to = from;
    while (scanner.peek()) {
      const { start, end } = scanner;
      if (!scanner.continued) this.#lastVerdict = this.#frame(scanner.type, buffer, start, end);
      if (this.#answer !== null && scanner.type === BACKEND.dataRow && this.replies.head === REPLY.setup)
        this.#answer = Buffer.concat([this.#answer, buffer.subarray(start, end)]);
      scanner.consume();
      if (this.#lastVerdict === VERDICT.drop || this.#lastVerdict === VERDICT.setupDone) {
        if (from < start) this.#emit(buffer.subarray(from, start));
        from = end;
        if (this.#instead !== null) this.#emit(this.#instead);
        this.#instead = null;
      }
      to = end;
      const { dueHere } = this.replies;
      const settled = this.#lastVerdict === VERDICT.settled || this.#lastVerdict === VERDICT.setupDone;
      if (settled || dueHere) {
        if (from < to) this.#emit(buffer.subarray(from, to));
        from = to;
        if (dueHere && !this.handsOver) this.sayDue();
        if (settled && this.replies.empty && !endsWithUnasked(buffer, to)) throw unasked();
        if (settled) this.#settle(this.#lastVerdict === VERDICT.setupDone);
        if (dueHere && this.handsOver) this.sayDue();
      }
    }
    if (from < to) this.#emit(from === 0 && to === buffer.length ? buffer : buffer.subarray(from, to));
  }

  /** Notes what one message means; says whether the client gets it. */
  #frame(type: number, buffer: Buffer, start: number, end: number): Verdict {
    const { replies } = this;
    const { head } = replies;
    if (!mayCome(type, this.handsOver && replies.ended ? REPLY.sync : head)) throw unasked();
    if (type === BACKEND.readyForQuery) return this.#ready(buffer[start + HEADER_BYTES] ?? 0);
    if (type === BACKEND.errorResponse) return this.#error(buffer, start, end);
    if (type === BACKEND.parameterStatus) return this.#parameter(buffer, start, end);
    if (head === REPLY.setup && type !== BACKEND.notificationResponse) {
      if (endsCommand(type)) replies.commandEnded();
      return VERDICT.drop;
    }
    switch (type) {
      case BACKEND.commandComplete:
      case BACKEND.emptyQueryResponse:
      case BACKEND.portalSuspended:
      case BACKEND.functionCallResponse:
        if (type === BACKEND.commandComplete) this.#command(buffer, start, end);
        if (head === REPLY.execute) replies.pop();
        else replies.commandEnded();
        this.#held.undecided = false;
        break;
      case BACKEND.parseComplete:
      case BACKEND.bindComplete:
      case BACKEND.closeComplete:
        replies.pop();
        if (isInjected(head)) return VERDICT.drop;
        break;
      case BACKEND.noData:
      case BACKEND.rowDescription:
        if (head === REPLY.describe) replies.pop();
        break;
      case BACKEND.copyInResponse:
        replies.copyInStarted();
        this.#held.undecided = false;
        break;
      case BACKEND.parameterDescription:
      case BACKEND.notificationResponse:
        break;
      default:
        this.#held.undecided = false;
    }
    return VERDICT.pass;
  }

  #ready(status: number): Verdict {
    const { replies } = this;
    const setup = replies.head === REPLY.setup;
    this.transactionStatus = status;
    replies.ready();
    if (setup) {
      this.#own.answered();
      return VERDICT.setupDone;
    }
    if (status === STATUS.idle) this.transactions += 1;
    if (this.#failed || this.#tags !== 0) {
      this.owner?.sessionChanged(this.#tags, this.#failed);
      this.#tags = 0;
      this.#failed = false;
    }
    this.#held.undecided = false;
    if (replies.empty) this.hidesPositions = false;
    // More was sent behind the refused statement and may run: only the client can tell what to do about that.
    if (this.#held.refused && !replies.empty) this.stopWatching();
    return replies.empty || replies.dueHere || this.handsOver ? VERDICT.settled : VERDICT.pass;
  }

  /** After the bytes of a ReadyForQuery have gone where they belong. */
  #settle(setup: boolean): void {
    if (setup) {
      const failure = this.#setupFailure;
      this.#setupFailure = null;
      this.owner?.setupDone(failure);
      if (this.#paused) this.pause();
      return;
    }
    if (!this.replies.empty && !this.handsOver) return;
    if (this.#held.refused && this.transactionStatus === STATUS.idle) {
      this.owner?.refused(this.#held.takeRefusal());
      return;
    }
    if (this.#held.refused) this.stopWatching();
    this.owner?.settled();
  }

  #error(buffer: Buffer, start: number, end: number): Verdict {
    const { replies } = this;
    this.errors += 1;
    const severity = errorField(buffer, start, end, 'V');
    if (severity === 'FATAL' || severity === 'PANIC') {
      // An idle client need not hear that its server went away; the close that follows is handled by itself.
      if (this.idle || replies.head === REPLY.setup) return VERDICT.drop;
      this.saidWhy = true;
      return VERDICT.pass;
    }
    if (replies.head === REPLY.none && this.owner === null) throw unasked();
    if (replies.head === REPLY.setup) {
      this.#setupFailure = Buffer.from(buffer.subarray(start, end));
      replies.failed();
      return VERDICT.drop;
    }
    this.#failed = true;
    const sqlstate = errorField(buffer, start, end, 'C');
    if (this.#held.undecided && sqlstate === FENCE_SQLSTATE) this.#held.refused = true;
    this.#held.undecided = false;
    this.#noteStaleStatement(buffer, start, end, sqlstate);
    replies.failed();
    return this.#adapted(buffer, start, end);
  }

  /** A statement whose result type changed, or that somebody deallocated, is prepared anew at its next use. */
  #noteStaleStatement(buffer: Buffer, start: number, end: number, sqlstate: string | undefined): void {
    const stale = sqlstate === '0A000' && errorField(buffer, start, end, 'R') === 'RevalidateCachedQuery';
    if (!stale && sqlstate !== '26000') return;
    this.statements.failed(this.replies.headUndo, stale);
  }

  /** An error that names a statement names it as the client does, and does not point into a text of ours. */
  #adapted(buffer: Buffer, start: number, end: number): Verdict {
    const nameOf = (serverName: string): string | undefined => this.owner?.clientNameOf(serverName);
    this.#instead = errorAsAsked(buffer.subarray(start, end), nameOf, this.hidesPositions);
    return this.#instead === null ? VERDICT.pass : VERDICT.drop;
  }

  #parameter(buffer: Buffer, start: number, end: number): Verdict {
    const { name, value } = readParameterStatus(buffer, start, end);
    this.parameters.set(name, value);
    this.parametersKey = keyOf(this.parameters);
    if (this.replies.head === REPLY.setup || this.owner === null) return VERDICT.drop;
    this.changedParameters.set(name, value);
    return VERDICT.pass;
  }

  /** Looks at the few tags that change a session, or what is left in it; the first letters decide for all others. */
  #command(buffer: Buffer, start: number, end: number): void {
    if (!mayChangeSession(buffer, start)) return;
    const tag = readCommandTag(buffer, start, end);
    if (tag === 'ROLLBACK') this.rollbacks += 1;
    if (tag === 'LISTEN') this.dirty = true;
    if (tag === 'DISCARD ALL' || tag === 'DEALLOCATE ALL') this.statements.clear();
    this.#tags |= sessionTagOf(tag);
  }

  #emit(bytes: Buffer): void {
    if (this.#held.holding) {
      this.#held.add(this.#kept === null ? bytes : Buffer.from(bytes));
      return;
    }
    this.#release();
    if (this.#kept === null) this.owner?.deliver(bytes);
    else if (this.owner?.relay === undefined) this.owner?.deliver(Buffer.from(bytes));
    else if (!this.owner.relay(bytes)) this.#kept = true;
  }

  #release(): void {
    const held = this.#held.take();
    if (held !== null) this.owner?.deliver(held);
  }
}

function endsCommand(type: number): boolean {
  return type === BACKEND.commandComplete || type === BACKEND.emptyQueryResponse;
}

/** What it answers was put in by the proxy. */
function isInjected(reply: Reply): boolean {
  return reply === REPLY.injectedParse || reply === REPLY.injectedBind || reply === REPLY.injectedClose;
}

function unasked(): FrameError {
  return new FrameError('the server answers what it was not asked');
}

function keyOf(parameters: ReadonlyMap<string, string>): string {
  return JSON.stringify([...parameters]);
}
