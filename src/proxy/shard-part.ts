/**
 * One task: the part that one server has in a statement for several: borrow it, run the part in a transaction, pass its rows on, and
 * do what two-phase commit asks of it.
 *
 * Every wait ends: for a connection by the pool's limit, for an answer when the connection ends, which
 * `abandon` and a bound of the proxy's own statements bring about.
 */
import { type CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import type { Participant } from '../postgres/two-phase.js';
import { errorField, readCommandTag } from '../wire/backend.js';
import { BACKEND, SERVER_RULES } from '../wire/codes.js';
import { FrameScanner } from '../wire/frames.js';
import type { Borrower, Pool } from './pool.js';
import { sendCancel } from './server-cancel.js';
import type { ServerConnection, ServerOwner } from './server-connection.js';
import { differenceSql, type SessionSettings } from './settings.js';
import type { PartMessages } from './write-batch.js';

/** A statement of the proxy's own that a server does not answer in this time ends its connection; whoever resolves ends the rest. */
export const END_TIMEOUT_MS = 30_000;

/** The server's own error, as it came. */
export class ServerError extends Error {
  readonly severity: string;
  readonly code: string;
  readonly reply: Buffer;

  constructor(reply: Buffer) {
    super(errorField(reply, 0, reply.length, 'M') ?? 'unknown');
    this.severity = errorField(reply, 0, reply.length, 'V') ?? 'ERROR';
    this.code = errorField(reply, 0, reply.length, 'C') ?? '';
    this.reply = reply;
  }
}

/** A pool that is no longer the right one. */
export class SentAway extends Error {}

/** Gets messages of the server, in parts if they are long. */
export type Passing = (type: number, bytes: Buffer, continued: boolean) => void;

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class ShardPart implements Borrower, ServerOwner, Participant {
  readonly id: number;
  readonly shard: number;
  server: ServerConnection | null = null;
  /** of the command that ran */
  tag = '';
  /** the server takes bytes again after `send` said no; for who sends more than one message */
  onWritable: () => void = () => undefined;
  #pool: Pool | null = null;
  #waiting: Waiting | null = null;
  #failure: ServerError | null = null;
  #scanner = new FrameScanner(SERVER_RULES);
  #pass: Passing = () => undefined;

  constructor(clientId: number, shard: number) {
    this.id = clientId;
    this.shard = shard;
  }

  /** @throws CutoverError of the pool; SentAway */
  async borrow(pool: Pool): Promise<void> {
    this.#pool = pool;
    await this.#answer(() => {
      const server = pool.take(this);
      if (server !== null) this.granted(server);
    });
  }

  /** Takes a server that a session has had, with its transaction. */
  adopt(server: ServerConnection, pool: Pool): void {
    server.owner = this;
    server.resume();
    this.server = server;
    this.#pool = pool;
    this.#failure = null;
  }

  /** Lets a session have the server; null: it is lost. */
  lend(): { readonly server: ServerConnection; readonly pool: Pool } | null {
    const [server, pool] = [this.server, this.#pool];
    if (server === null || pool === null) return null;
    this.server = null;
    return { server, pool };
  }

  /**
   * Brings the server's settings to those of the session and begins a transaction.
   *
   * @param opening what begins it, in SQL
   */
  async begin(wanted: SessionSettings, opening = 'BEGIN'): Promise<void> {
    const { server } = this;
    invariant(server, 'a part begins on its server');
    if (server.settings?.key !== wanted.key) {
      const sql = differenceSql(server.settings, wanted);
      server.settings = null;
      await this.execute(sql);
      server.settings = wanted;
    }
    await this.execute(opening);
  }

  /**
   * Runs the client's statement.
   *
   * @param pass gets what the server says, without its errors, its tag and ReadyForQuery
   * @throws ServerError
   */
  async run({ bytes, replies }: PartMessages, pass: Passing): Promise<void> {
    const { server } = this;
    invariant(server, 'a part runs on its server');
    this.#scanner = new FrameScanner(SERVER_RULES);
    this.#pass = pass;
    this.#failure = null;
    // The unnamed statement there is nobody's any more.
    server.unnamed = null;
    server.queries += 1;
    await this.#answer(() => {
      for (const reply of replies) server.replies.push(reply);
      server.send(bytes);
    });
    const failure = this.#failure as ServerError | null;
    if (failure !== null) throw failure;
  }

  async execute(sql: string): Promise<void> {
    if (this.server === null) throw gone();
    await this.#answer(() => this.server?.setup(sql, END_TIMEOUT_MS));
  }

  /** Asks the server to stop what it runs; nothing happens when it runs nothing. */
  cancel(): void {
    const [server, pool] = [this.server, this.#pool];
    if (server === null || pool === null || server.replies.empty) return;
    server.cancelsInFlight += 1;
    void sendCancel(server).then(() => {
      pool.cancelArrived(server);
    });
  }

  /** Ends the connection where an answer is owed: it was to stop, and has not. */
  giveUp(): void {
    if (this.server?.replies.empty === false) this.server.destroy();
  }

  /** Ends the connection, whatever is in flight. */
  abandon(): void {
    if (this.server === null) {
      this.#pool?.forget(this);
      this.#settle(gone());
    } else this.server.destroy();
  }

  /** Gives the server back; one with an open transaction is ended. May be called again. */
  release(): void {
    const { server } = this;
    this.server = null;
    this.#pool?.forget(this);
    if (server !== null) this.#pool?.giveBack(server, true);
  }

  // ---- the pool

  granted(server: ServerConnection): void {
    if (this.#waiting === null) {
      const pool = this.#pool;
      queueMicrotask(() => pool?.giveBack(server, true));
      return;
    }
    server.owner = this;
    server.changedParameters.clear();
    this.server = server;
    this.#settle(null);
  }

  denied(error: CutoverError): void {
    this.#settle(error);
  }

  sentAway(): void {
    this.#settle(new SentAway('the pool is no longer the right one'));
  }

  // ---- the server

  deliver(bytes: Buffer): void {
    const scanner = this.#scanner;
    scanner.feed(bytes);
    const { buffer } = scanner;
    while (scanner.peek()) {
      const { type, start, end, continued } = scanner;
      if (type === BACKEND.errorResponse) this.#failure ??= new ServerError(Buffer.from(buffer.subarray(start, end)));
      else if (type === BACKEND.commandComplete) this.tag = readCommandTag(buffer, start, end);
      else if (type !== BACKEND.readyForQuery) this.#pass(type, buffer.subarray(start, end), continued);
      scanner.consume();
    }
  }

  setupDone(failure: Buffer | null): void {
    this.#settle(failure === null ? null : new ServerError(failure));
  }

  settled(): void {
    this.#settle(null);
  }

  lost(): void {
    this.server = null;
    this.#settle(this.#failure ?? gone());
  }

  refused(reply: Buffer): void {
    this.deliver(reply);
    this.settled();
  }

  sessionChanged(): void {
    // The statement changes tables; settings are refused beside it.
  }

  clientNameOf(): undefined {
    // The statement has no name there.
  }

  writable(): void {
    this.onWritable();
  }

  #answer(ask: () => void): Promise<void> {
    invariant(this.#waiting === null, 'one thing at a time is asked of a part');
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      ask();
    });
  }

  #settle(error: Error | null): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    if (error === null) waiting?.resolve();
    else waiting?.reject(error);
  }
}

function gone(): Error {
  return new Error('the connection to the server was lost');
}
