/**
 * One task: turn what a client sends into what its server gets.
 *
 * Almost everything passes as it came, in one write. Named prepared statements are renamed to the names servers know
 * (statement-cache.ts), and prepared on the way when the server at hand lacks them.
 */
import { CutoverError } from '../errors/errors.js';
import { NO_PARAMETERS, type StatementParameters } from '../sharding/router-parameters.js';
import { FRONTEND } from '../wire/codes.js';
import { cstring } from '../wire/backend.js';
import { HEADER_BYTES, type FrameScanner } from '../wire/frames.js';
import {
  bindUnnamed,
  closeStatement,
  describeStatement,
  parse,
  query,
  readBind,
  readParse,
  readParseText,
  readQuery,
  readTarget,
  rebindHead,
  type BindNames,
} from '../wire/frontend.js';
import { boundTo, TOO_LONG_BYTES } from './bound-statement.js';
import { STATEMENTS_MAX, type ClientStatements } from './client-statements.js';
import { raising } from './raising.js';
import { REPLY, type Undo } from './reply-queue.js';
import type { ServerConnection } from './server-connection.js';
import { mentionsState } from './session-state.js';
import { Splice } from './splice.js';
import type { Statement } from './statement-cache.js';

export type Outcome = 'dry' | 'stopped' | 'terminated';

/** Pieces up to this size together are copied into one write; larger ones are written one by one. */
const JOIN_BYTES_MAX = 32_768;
const STATEMENT = 0x53;
const EMPTY = Buffer.alloc(0);
/** What else answers {@link Forwarder.keyed}. */
const BEHIND_BIND = [REPLY.describe, REPLY.execute, REPLY.sync];
/** No parameter types, at the end of a Parse. */
const NO_TYPES = Buffer.alloc(2);

interface RenamedBind {
  readonly statement: Statement | null;
  /** of the client's message, and of the name in it with its zero byte */
  readonly length: number;
  readonly nameBytes: number;
  readonly head: Buffer;
}
const NOT_BOUND: RenamedBind = { statement: null, length: 0, nameBytes: 0, head: EMPTY };

type Refuse = (text: () => string) => string | null;

/** Looks at each statement before it is sent. */
export interface Screen {
  /**
   * What is sent in its place, or null.
   *
   * @param portal by which its rows can be asked for later; empty for a simple query too
   */
  instead(text: string, parameters: StatementParameters, portal: string): string | null;
  /** What answers the same at the server at hand with less work, or null; errors of it point into a text that the client has not sent. */
  rewritten(text: () => string): string | null;
  /** The Query or Bind that begins there was read ahead, and is sent as it is; false: {@link instead} must be asked. */
  passes(buffer: Buffer, start: number): boolean;
}

export class Forwarder {
  /** the server's socket is full */
  full = false;
  /** the client waits for answers without a Sync */
  sawFlush = false;
  queries = 0;
  parses = 0;
  binds = 0;
  /** a statement may leave something in the session: see session-state.ts */
  mentionedState = false;
  /** where statements must be at the right place, as on shards: then each is looked at whole; null: they pass as they come */
  screen: Screen | null = null;
  /** the messages that the Query ahead is sent as, of a statement that servers have prepared; null: it is sent as it is */
  keyed: { readonly statement: Statement; readonly messages: Buffer } | null = null;
  /** the unnamed statement ahead is prepared under the name that servers know its text by */
  sharesUnnamed = false;
  /** one of the two was done: what fails then is not told as it is */
  prepared = false;
  readonly #statements: ClientStatements;
  /** of the client's unnamed statement */
  #unnamedMentions = false;
  readonly #splice = new Splice();
  #buffer: Buffer = EMPTY;
  /** the Bind that was renamed last: the next one is mostly of the same statement, and as long */
  #bound: RenamedBind = NOT_BOUND;

  /** the statement that the unnamed one was prepared as last */
  #shared: Statement | null = null;
  readonly #refuse: Refuse;

  /** @param refuse asked for every text: what is sent in its place, or null */
  constructor(statements: ClientStatements, refuse: Refuse) {
    this.#statements = statements;
    this.#refuse = refuse;
  }

  /**
   * Sends everything the scanner has.
   *
   * @param stopAtBoundary stop where all that was sent will be answered without more from the client
   * @param sent gets the client's own bytes, as they were
   * @throws FrameError | CutoverError when the client breaks a rule; what came before was sent
   */
  forward(
    scanner: FrameScanner,
    server: ServerConnection,
    stopAtBoundary: boolean,
    sent: (bytes: Buffer) => void,
  ): Outcome {
    const { buffer, position: first } = scanner;
    this.#buffer = buffer;
    this.#splice.begin(buffer, first);
    let last = first;
    let outcome: Outcome = 'dry';
    try {
      while (scanner.peek()) {
        if (!scanner.continued) {
          if (scanner.type === FRONTEND.terminate) outcome = 'terminated';
          else if ((stopAtBoundary || this.#preparesAnew(scanner)) && mayStop(scanner.type, server))
            outcome = 'stopped';
          if (outcome !== 'dry' || (this.screen !== null && awaitsRest(scanner))) break;
          this.#message(scanner, server);
        }
        last = scanner.end;
        scanner.consume();
      }
    } finally {
      if (last > first) sent(first === 0 && last === buffer.length ? buffer : buffer.subarray(first, last));
      this.#send(server, first, last);
      server.insideRequest = scanner.insideFrame;
    }
    return outcome;
  }

  /** A name prepared in a batch before that is not answered: whether it is free for this one, the answer tells. */
  #preparesAnew({ type, start, end }: FrameScanner): boolean {
    if (type !== FRONTEND.parse) return false;
    const { name } = readParse(this.#buffer, start, end);
    return name !== '' && this.#statements.isUncertain(name);
  }

  #message(scanner: FrameScanner, server: ServerConnection): void {
    const { replies } = server;
    switch (scanner.type) {
      case FRONTEND.query:
        this.#query(scanner, server);
        break;
      case FRONTEND.functionCall:
        this.queries += 1;
        server.queries += 1;
        replies.push(REPLY.query);
        if (this.screen !== null) this.#replace(scanner.start, scanner.end, query(raising(NO_FUNCTION_CALLS)));
        break;
      case FRONTEND.parse:
        this.#parse(scanner, server);
        break;
      case FRONTEND.bind:
        this.#bind(scanner, server);
        break;
      case FRONTEND.describe:
        this.#describe(scanner, server);
        break;
      case FRONTEND.close:
        this.#close(scanner, server);
        break;
      case FRONTEND.execute:
        this.queries += 1;
        server.queries += 1;
        replies.push(REPLY.execute);
        break;
      case FRONTEND.sync:
        replies.push(REPLY.sync);
        break;
      case FRONTEND.flush:
        this.sawFlush = true;
        break;
      case FRONTEND.copyDone:
      case FRONTEND.copyFail:
        replies.push(REPLY.copyEnd);
        break;
      default:
        break;
    }
  }

  #query(scanner: FrameScanner, server: ServerConnection): void {
    const { start, end, length } = scanner;
    this.queries += 1;
    server.queries += 1;
    if (this.keyed !== null) {
      this.#bindKey(this.keyed, scanner, server);
      return;
    }
    server.unnamed = null;
    server.replies.push(REPLY.query);
    this.#lookForState(start, end);
    // A text that passes in parts is not looked into: the first part is on its way before the last has come.
    const text = (): string => readQuery(this.#buffer, start, end);
    if (end - start < length) return;
    const sent = this.#refuse(text) ?? this.#queriesAnother(start, text) ?? this.#rewritten(text, server);
    if (sent !== null) this.#replace(start, end, query(sent));
  }

  #bindKey(
    { statement, messages }: NonNullable<Forwarder['keyed']>,
    scanner: FrameScanner,
    server: ServerConnection,
  ): void {
    const { replies } = server;
    const { start, end } = scanner;
    this.prepared = true;
    this.#ensure(statement, server, start, false);
    replies.push(REPLY.injectedBind, statement);
    for (const reply of BEHIND_BIND) replies.push(reply);
    this.#replace(start, end, messages);
  }

  /** On shards what is left in a session is refused. */
  #lookForState(start: number, end: number): void {
    if (this.screen === null && !this.mentionedState) this.mentionedState = mentionsState(this.#buffer, start, end);
  }

  #rewritten(text: () => string, server: ServerConnection): string | null {
    const rewritten = this.screen?.rewritten(text) ?? null;
    if (rewritten !== null) server.hidesPositions = true;
    return rewritten;
  }

  /** What is prepared on a server in the place of a text; null: the text itself. */
  #preparedAs(body: Buffer, server: ServerConnection): string | null {
    return this.screen === null ? null : this.#rewritten(() => readParseText(body, 0, body.length), server);
  }

  /** What is sent in the place of a query that the screen holds back. */
  #queriesAnother(start: number, text: () => string): string | null {
    const { screen } = this;
    return screen === null || screen.passes(this.#buffer, start) ? null : screen.instead(text(), NO_PARAMETERS, '');
  }

  #parse(scanner: FrameScanner, server: ServerConnection): void {
    const { start, end } = scanner;
    const { name, bodyAt } = readParse(this.#buffer, start, end);
    if (name === '') {
      this.#lookForState(bodyAt, end);
      this.#unnamedMentions = this.mentionedState;
    }
    const refusal = this.#refuse(() => readParseText(this.#buffer, bodyAt, end));
    const body = refusal === null ? this.#buffer.subarray(bodyAt, end) : Buffer.concat([cstring(refusal), NO_TYPES]);
    this.parses += 1;
    const as = refusal === null ? this.#preparedAs(body, server) : null;
    if (this.sharesUnnamed && name === '') {
      this.#shareUnnamed(body, server, start, end);
      return;
    }
    if (name === '') {
      if (refusal !== null || as !== null) this.#replace(start, end, parse('', bodyWith(body, as)));
      this.#statements.unnamed = body;
      server.unnamed = body;
      server.unnamedAs = as;
      server.replies.push(REPLY.parse, this.#unnamedGone(server, body));
      return;
    }
    const existing = this.#statements.get(name);
    if (existing !== undefined) {
      // The server refuses a name twice (42P05), and fails the transaction if one is open: so it shall.
      this.#ensure(existing, server, start, this.#statements.isUncertain(name));
      server.replies.push(REPLY.parse);
      this.#replace(start, end, parse(existing.name, body));
      return;
    }
    if (this.#statements.count >= STATEMENTS_MAX)
      throw new CutoverError('statements_exhausted', { count: STATEMENTS_MAX });
    const { statement, undo } = this.#statements.prepare(name, body);
    this.#prepare(statement, as, undo, server, start, end);
  }

  /** A Parse from `start` to `end` under the name that servers know, or the answer to it where the server at hand has it. */
  #prepare(
    statement: Statement,
    as: string | null,
    undo: Undo,
    server: ServerConnection,
    start: number,
    end: number,
  ): void {
    if (server.statements.has(statement, as)) {
      server.replies.push(REPLY.sayParseComplete, undo);
      this.#replace(start, end);
      return;
    }
    this.#makeRoom(statement, server, start);
    server.replies.push(REPLY.parse, both(undo, server.statements.added(statement, as)));
    this.#replace(start, end, parse(statement.name, bodyWith(statement.body, as)));
  }

  #shareUnnamed(body: Buffer, server: ServerConnection, start: number, end: number): void {
    const statement = (this.#shared = this.#statements.shared(body));
    this.prepared = true;
    this.#statements.unnamed = statement.body;
    this.#prepare(statement, null, statement, server, start, end);
  }

  #bind(scanner: FrameScanner, server: ServerConnection): void {
    const { start, end } = scanner;
    const buffer = this.#buffer;
    const names = readBind(buffer, start, end);
    this.binds += 1;
    if (this.#bindsAnother(scanner, server)) return;
    const unnamed = names.statementEnd === names.portalEnd + 1;
    const shared = unnamed && this.prepared ? this.#shared : null;
    if (unnamed && shared === null) {
      this.#ensureUnnamed(server, start);
      server.replies.push(REPLY.bind);
      this.mentionedState ||= this.#unnamedMentions;
      return;
    }
    const statement = shared ?? this.#statements.named(buffer, names.portalEnd + 1, names.statementEnd);
    if (statement !== undefined) {
      this.mentionedState ||= statement.mentionsState;
      if (shared === null) this.#ensure(statement, server, start, this.#isOwn(names.portalEnd + 1, names.statementEnd));
      this.#replace(start, names.statementEnd, this.#renamed(scanner, names, statement));
    }
    // Without one the name may be that of an SQL PREPARE, or wrong: the server knows.
    server.replies.push(REPLY.bind, statement ?? null);
  }

  /** The beginning of a Bind under the name that servers know. */
  #renamed({ start, length }: FrameScanner, names: BindNames, statement: Statement): Buffer {
    const portalBytes = names.portalEnd - start - HEADER_BYTES;
    const nameBytes = names.statementEnd - names.portalEnd;
    const bound = this.#bound;
    const same = bound.statement === statement && bound.length === length && bound.nameBytes === nameBytes;
    if (same && portalBytes === 0) return bound.head;
    const head = rebindHead(this.#buffer, start, length, names, statement.name);
    if (portalBytes === 0) this.#bound = { statement, length, nameBytes, head };
    return head;
  }

  /** Sends another statement in the place of one that the screen holds back: it fails when the portal is executed. */
  #bindsAnother({ start, end }: FrameScanner, server: ServerConnection): boolean {
    const { screen } = this;
    if (screen === null || screen.passes(this.#buffer, start)) return false;
    const bound = boundTo(this.#buffer, start, end, this.#statements);
    const instead = bound === null ? null : screen.instead(bound.text, bound.parameters, bound.portal);
    if (bound === null || instead === null) return false;
    server.unnamed = null;
    server.replies.push(REPLY.injectedParse);
    server.replies.push(REPLY.bind);
    const body = Buffer.concat([cstring(instead), NO_TYPES]);
    this.#replace(start, end, Buffer.concat([parse('', body), bindUnnamed(bound.portal)]));
    return true;
  }

  #describe(scanner: FrameScanner, server: ServerConnection): void {
    const { start, end } = scanner;
    const { kind, name } = readTarget(this.#buffer, start, end);
    const statement = kind === STATEMENT ? this.#statements.get(name) : undefined;
    if (statement !== undefined) {
      this.#ensure(statement, server, start, this.#statements.isUncertain(name));
      this.#replace(start, end, describeStatement(statement.name));
    } else if (kind === STATEMENT && name === '') this.#ensureUnnamed(server, start);
    server.replies.push(REPLY.describe, statement ?? null);
  }

  #close(scanner: FrameScanner, server: ServerConnection): void {
    const { start, end } = scanner;
    const { kind, name } = readTarget(this.#buffer, start, end);
    if (kind === STATEMENT && this.#statements.get(name) !== undefined) {
      // The server keeps it: others may use it, and it goes by itself when it is in the way.
      server.replies.push(REPLY.sayCloseComplete, this.#statements.close(name));
      this.#replace(start, end);
      return;
    }
    // The server's may be another client's, who has it still.
    if (kind === STATEMENT && name === '') this.#statements.unnamed = server.unnamed = null;
    server.replies.push(REPLY.close);
  }

  /** Of a name in the buffer: see {@link ClientStatements.isUncertain}. */
  #isOwn(from: number, to: number): boolean {
    return this.#statements.hasUncertain && this.#statements.isUncertain(this.#buffer.toString('utf8', from, to));
  }

  /**
   * Puts a Parse before the message at `start` when the server lacks the statement.
   *
   * @param own the client prepared it in this batch, or in one that is not answered
   */
  #ensure(statement: Statement, server: ServerConnection, start: number, own: boolean): void {
    statement.uses += 1;
    const as = this.#preparedAs(statement.body, server);
    // What the client itself has prepared in a batch that fails, it shall miss as on a server.
    if (server.statements.has(statement, as, own)) return;
    this.#makeRoom(statement, server, start);
    server.replies.push(REPLY.injectedParse, server.statements.added(statement, as));
    this.#insert(start, parse(statement.name, bodyWith(statement.body, as)));
  }

  /** The server may have an unnamed statement of this client, but an older one, or that of another client. */
  #ensureUnnamed(server: ServerConnection, start: number): void {
    const { unnamed } = this.#statements;
    if (unnamed === null) {
      // The client has none: the server shall say so.
      server.unnamed = null;
      server.replies.push(REPLY.injectedClose);
      this.#insert(start, closeStatement(''));
      return;
    }
    const as = this.#preparedAs(unnamed, server);
    if (server.unnamed === unnamed && server.unnamedAs === as) return;
    server.unnamed = unnamed;
    server.unnamedAs = as;
    server.replies.push(REPLY.injectedParse, { undo: () => (server.unnamed = null) });
    this.#insert(start, parse('', bodyWith(unnamed, as)));
  }

  /** When its Parse has failed or was passed over, nobody knows what the server has. */
  #unnamedGone(server: ServerConnection, body: Buffer): Undo {
    return {
      undo: () => {
        if (server.unnamed === body) server.unnamed = null;
        if (this.#statements.unnamed === body) this.#statements.unnamed = null;
      },
    };
  }

  #makeRoom(statement: Statement, server: ServerConnection, start: number): void {
    const { statements, replies } = server;
    // A Close would be passed over, as what it makes room for.
    if (replies.skipping) return;
    // More than one where a Close was passed over. Ends, since each turn takes one away.
    for (let next = statements.inTheWayOf(statement); next !== null; next = statements.inTheWayOf(statement)) {
      replies.push(REPLY.injectedClose, statements.closed(next));
      this.#insert(start, closeStatement(next.name));
    }
  }

  /** Puts bytes of the proxy's own before the message at `start`. */
  #insert(start: number, bytes: Buffer): void {
    this.#replace(start, start, bytes);
  }

  #replace(start: number, end: number, replacement?: Buffer): void {
    this.#splice.replace(start, end, replacement);
  }

  #send(server: ServerConnection, first: number, end: number): void {
    const buffer = this.#buffer;
    const splice = this.#splice;
    if (splice.touched) {
      splice.finish(end);
      if (splice.bytes > JOIN_BYTES_MAX) for (const piece of splice.pieces()) this.full = !server.send(piece);
      else {
        const bytes = splice.joined();
        if (bytes.length > 0) this.full = !server.send(bytes);
      }
    } else if (first < end)
      this.full = !server.send(first === 0 && end === buffer.length ? buffer : buffer.subarray(first, end));
    this.#buffer = EMPTY;
    if (!server.replies.empty) server.sayDue();
  }
}

const NO_FUNCTION_CALLS = new CutoverError('feature_unsupported', { feature: 'the function call message' });

/** The body of a Parse with another text and the same parameter types. */
function bodyWith(body: Buffer, text: string | null): Buffer {
  return text === null ? body : Buffer.concat([cstring(text), body.subarray(body.indexOf(0) + 1)]);
}

/** A statement that has not come whole; one that is too long to be looked at ends the session. */
function awaitsRest({ type, start, end, length }: FrameScanner): boolean {
  if (end - start === length || (type !== FRONTEND.query && type !== FRONTEND.bind)) return false;
  if (length > TOO_LONG_BYTES)
    throw new CutoverError('protocol_violation', { problem: 'a message is too long for a shard' });
  return true;
}

/** True where something was sent, all of it will be answered, and the next message begins something new. */
function mayStop(type: number, server: ServerConnection): boolean {
  if (type === FRONTEND.copyData || type === FRONTEND.copyDone || type === FRONTEND.copyFail) return false;
  return server.replies.owesClient && server.replies.complete;
}

function both(first: Undo, second: Undo): Undo {
  return {
    undo: () => {
      second.undo();
      first.undo();
    },
  };
}
