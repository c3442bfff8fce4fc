/**
 * One task: serve one logged-in client: wait at the gate, borrow a server, pass messages both ways, give the server back.
 *
 * Phases (`#phase`), in the order they are gone through:
 *   idle      nothing in flight; in session mode a server may be kept
 *   gate      a message waits until the gate is open
 *   pool      the gate was passed, a server connection is waited for
 *   setup     the server gets the settings of this session
 *   attached  messages pass; back to idle at ReadyForQuery outside of a transaction with nothing left to answer
 *   rerouting the fence refused the batch; the hook is asked whether it may be sent anew
 *   leaving   the client is gone, what it started is brought to an end
 *   closed    nothing is left of it
 * From gate, pool, setup and rerouting the messages wait in the scanner; beyond UNREAD_BYTES_MAX they wait in the socket.
 */
import type { Socket } from 'node:net';
import { CutoverError, messageOf } from '../errors/errors.js';
import { errorField, errorResponseOf, READY_IDLE } from '../wire/backend.js';
import { CLIENT_RULES, FRONTEND, STATUS } from '../wire/codes.js';
import { FrameError, FrameScanner } from '../wire/frames.js';
import { BatchRecord } from './batch-record.js';
import { ClientStatements } from './client-statements.js';
import { Forwarder } from './forwarder.js';
import type { Gate, Holder } from './gate.js';
import type { Borrower, Pool } from './pool.js';
import type { Route } from './routes.js';
import { SESSION_TAG, type ServerConnection, type ServerOwner } from './server-connection.js';
import { sendCancel } from './server-cancel.js';
import { SessionCounters } from './session-counters.js';
import type { LoggedInClient, SessionContext } from './session-context.js';
import { cannotFail, differenceSql } from './settings.js';
import { TrackedSettings } from './tracked-settings.js';

const UNREAD_BYTES_MAX = 65_536;
const REROUTES_MAX = 3;
const SETUPS_MAX = 3;
/** A client that said goodbye has its last statement run to the end, as with PostgreSQL; one that vanished has less. */
const GOODBYE_TIMEOUT_MS = 60_000;
const VANISHED_TIMEOUT_MS = 5_000;

type Phase = 'idle' | 'gate' | 'pool' | 'setup' | 'attached' | 'rerouting' | 'leaving' | 'closed';

export class ClientSession implements ServerOwner, Borrower {
  readonly id: number;
  readonly secret: Buffer;
  readonly user: string;
  readonly database: string;
  readonly counters: SessionCounters;
  readonly statements: ClientStatements;
  readonly #context: SessionContext;
  readonly #gate: Gate;
  readonly #socket: Socket;
  readonly #scanner = new FrameScanner(CLIENT_RULES);
  readonly #forwarder: Forwarder;
  readonly #record = new BatchRecord();
  readonly #settings: TrackedSettings;
  #phase: Phase = 'idle';
  #server: ServerConnection | null = null;
  #pool: Pool | null = null;
  #route: Route | null = null;
  #routeVersion = -1;
  #leaveGate: (() => void) | null = null;
  #timer: NodeJS.Timeout | null = null;
  /** the gate closed while statements were in flight: the next ones wait for these */
  #stopped = false;
  #clientFull = false;
  #reading = true;
  /** messages up to the next Sync are thrown away, as PostgreSQL does after an error */
  #discarding = false;
  #reroutes = 0;
  #setups = 0;
  #ending = false;
  #timedOut = false;

  constructor(client: LoggedInClient, context: SessionContext) {
    this.id = client.id;
    this.secret = client.secret;
    this.user = client.user;
    this.database = client.database;
    this.#socket = client.socket;
    this.#context = context;
    this.#gate = context.gate(client.database);
    this.counters = new SessionCounters(client.socket);
    this.statements = new ClientStatements(context.statements);
    this.#forwarder = new Forwarder(client.id, this.statements);
    this.#settings = new TrackedSettings(client.settings, client.parameters);
    this.#listen(client.unread);
  }

  get phase(): Phase {
    return this.#phase;
  }

  get server(): ServerConnection | null {
    return this.#server;
  }

  get applicationName(): string {
    return this.#settings.applicationName;
  }

  /** A transaction is open, or answers are owed. An idle session that keeps its server holds nothing. */
  get holding(): boolean {
    return this.#server !== null && !(this.#phase === 'idle' && this.#server.idle);
  }

  get inTransaction(): boolean {
    return this.#server !== null && this.#server.transactionStatus !== STATUS.idle;
  }

  holder(): Holder {
    return {
      clientId: this.id,
      user: this.user,
      application: this.applicationName,
      serverPid: this.#server?.processId ?? 0,
      transactionMs: this.counters.transactionMsSoFar,
    };
  }

  /** Asks the server to stop the statement it runs for this client; nothing happens when there is none. */
  cancel(): void {
    const server = this.#server;
    const pool = this.#pool;
    if (server === null || pool === null || server.replies.empty) return;
    server.cancelsInFlight += 1;
    void sendCancel(server).then(() => {
      pool.cancelArrived(server);
    });
  }

  /** Ends the session with a reason; what it left unfinished is rolled back. */
  terminate(error: CutoverError): void {
    if (this.#phase === 'leaving' || this.#phase === 'closed') return;
    this.#say(errorResponseOf(error, 'FATAL'));
    this.#leave(VANISHED_TIMEOUT_MS);
  }

  /** As terminate(), but a transaction that is open may end first. */
  endAfterTransaction(): void {
    this.#ending = true;
  }

  /** Cancels the statement in flight when it has been running for longer; once for each statement. */
  cancelAfter(limitMs: number): void {
    if (this.#timedOut || this.counters.requestMsSoFar <= limitMs) return;
    this.#timedOut = true;
    this.cancel();
  }

  /** Closes the socket at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  // ---- the client's side

  #listen(unread: Buffer): void {
    this.#socket.on('data', (chunk: Buffer) => {
      this.counters.bytesReceived += chunk.length;
      this.#scanner.feed(chunk);
      this.#guarded(this.#advance);
    });
    this.#socket.on('drain', () => {
      this.#clientFull = false;
      this.#server?.resume();
      this.#guarded(this.#advance);
    });
    this.#socket.on('end', () => {
      this.#leave(VANISHED_TIMEOUT_MS);
    });
    this.#socket.on('close', () => {
      this.#leave(VANISHED_TIMEOUT_MS);
    });
    this.#scanner.feed(unread);
    this.#socket.resume();
    this.#guarded(this.#advance);
  }

  /** Runs a step; a client that breaks the protocol is told and closed, and nobody else notices. */
  #guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (error instanceof CutoverError) this.terminate(error);
      else if (error instanceof FrameError) this.terminate(new CutoverError('protocol_violation', { problem: error.message }));
      else {
        this.#context.logger.error({ client: this.id }, `session failed: ${messageOf(error)}`);
        this.terminate(new CutoverError('internal', { problem: messageOf(error) }, { cause: error }));
      }
    }
  }

  /** Goes on with what the client has sent, as far as the phase lets it. */
  readonly #advance = (): void => {
    if (this.#phase === 'leaving' || this.#phase === 'closed') return;
    if (this.#phase === 'attached') {
      if (!this.#stopped && !this.#forwarder.full) this.#forward();
    } else if (this.#phase === 'idle' && !this.#clientFull) this.#next();
    this.#updateReading();
  };

  /** Begins with the next message that needs a server. */
  #next(): void {
    const scanner = this.#scanner;
    while (this.#phase === 'idle' && scanner.peek()) {
      const { type } = scanner;
      if (scanner.continued || type === FRONTEND.copyData || type === FRONTEND.copyDone || type === FRONTEND.copyFail) {
        // What is left of a COPY that has failed, or of a message thrown away.
        scanner.consume();
      } else if (type === FRONTEND.terminate) {
        this.#leave(GOODBYE_TIMEOUT_MS);
      } else if (this.#discarding) {
        scanner.consume();
        if (type === FRONTEND.sync) this.#discarded();
      } else this.#begin();
    }
  }

  #forward(): void {
    const server = this.#server;
    if (server === null) return;
    const forwarder = this.#forwarder;
    const outcome = forwarder.forward(this.#scanner, server, this.#gate.closed, this.#keep);
    server.lastRequestAtMs = this.counters.requested(forwarder);
    if (forwarder.sawFlush) {
      forwarder.sawFlush = false;
      server.stopWatching();
    }
    // What can't be sent anew need not be remembered either.
    if (!this.#record.complete) this.statements.keep();
    if (outcome === 'stopped') this.#stopped = true;
    else if (outcome === 'terminated') this.#leave(GOODBYE_TIMEOUT_MS);
  }

  readonly #keep = (bytes: Buffer): void => {
    this.#record.add(bytes);
  };

  /** The socket is read as long as messages can pass, or are few enough to be kept. */
  #updateReading(): void {
    const passing = this.#phase === 'attached' && !this.#stopped;
    const room = passing ? !this.#forwarder.full : this.#scanner.unreadBytes <= UNREAD_BYTES_MAX;
    const reading = room && !this.#clientFull;
    if (reading === this.#reading) return;
    this.#reading = reading;
    if (reading) this.#socket.resume();
    else this.#socket.pause();
  }

  #say(bytes: Buffer): void {
    this.counters.bytesSent += bytes.length;
    if (this.#socket.write(bytes) || this.#clientFull) return;
    this.#clientFull = true;
    this.#server?.pause();
    this.#updateReading();
  }

  /** Answers the message at hand, or all up to the next Sync, with an error of the proxy's own. */
  #refuse(error: CutoverError): void {
    const scanner = this.#scanner;
    this.counters.errors += 1;
    this.counters.waited();
    this.#phase = 'idle';
    this.#say(errorResponseOf(error, 'ERROR'));
    this.#discarding = true;
    if (scanner.peek() && (scanner.type === FRONTEND.query || scanner.type === FRONTEND.functionCall)) {
      scanner.consume();
      this.#discarded();
    }
    this.#guarded(this.#advance);
  }

  #discarded(): void {
    this.#discarding = false;
    this.#say(READY_IDLE);
  }

  // ---- gate and pool

  #begin(): void {
    this.#phase = 'gate';
    this.counters.waiting();
    this.#leaveGate = this.#gate.pass(this.#passed);
    if (this.#waitsAtGate()) this.#timer = setTimeout(this.#gateTimedOut, this.#context.gateWaitMs);
  }

  #waitsAtGate(): boolean {
    return this.#phase === 'gate';
  }

  readonly #gateTimedOut = (): void => {
    this.#stopWaiting();
    const reasons = this.#gate.reasons.join(', ');
    this.#refuse(new CutoverError('gate_timeout', { database: this.database, waitedMs: this.#context.gateWaitMs, reasons }));
  };

  #stopWaiting(): void {
    this.#leaveGate?.();
    this.#leaveGate = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  readonly #passed = (): void => {
    if (this.#phase !== 'gate') return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#guarded(this.#takeServer);
  };

  readonly #takeServer = (): void => {
    const { routes } = this.#context;
    if (this.#routeVersion !== routes.version) {
      this.#route = routes.of(this.user, this.database);
      this.#routeVersion = routes.version;
    }
    const pool = this.#route?.pool ?? null;
    if (pool === null) return;
    const kept = this.#server;
    if (kept !== null) {
      if (this.#pool === pool && !pool.isOutdated(kept)) {
        this.#use(kept);
        return;
      }
      this.#giveBack(kept, false);
    }
    this.#pool = pool;
    this.#phase = 'pool';
    const server = pool.take(this);
    if (server !== null) this.#attach(server);
  };

  granted(server: ServerConnection): void {
    if (this.#gate.closed || this.#phase !== 'pool') {
      // Back in a turn of its own: the next in line may find the gate closed just the same.
      const pool = this.#pool;
      queueMicrotask(() => pool?.giveBack(server, true));
      if (this.#phase === 'pool') this.#begin();
      return;
    }
    this.#guarded(() => {
      this.#attach(server);
    });
    this.#updateReading();
  }

  denied(error: CutoverError): void {
    if (this.#phase === 'pool') this.#refuse(error);
  }

  sentAway(): void {
    if (this.#phase === 'pool') this.#begin();
  }

  #attach(server: ServerConnection): void {
    server.owner = this;
    server.changedParameters.clear();
    this.#server = server;
    this.#use(server);
  }

  /** Brings the server's settings to those of this session, then passes what waits. */
  #use(server: ServerConnection): void {
    const wanted = this.#settings.current;
    if (server.settings?.key === wanted.key) {
      this.#tellNews(server);
      this.#start(server);
      return;
    }
    const waits = !cannotFail(server.settings, wanted);
    server.setup(differenceSql(server.settings, wanted));
    server.settings = wanted;
    if (waits) this.#phase = 'setup';
    else this.#start(server);
  }

  #start(server: ServerConnection): void {
    this.#phase = 'attached';
    this.#setups = 0;
    this.counters.started();
    if (this.#context.hooks !== undefined) server.watchForRefusal();
    this.#forward();
  }

  #tellNews(server: ServerConnection): void {
    for (const news of this.#settings.newsFrom(server)) this.#say(news);
  }

  #giveBack(server: ServerConnection, clean: boolean): void {
    this.#server = null;
    this.#pool?.giveBack(server, clean);
    this.#gate.released();
  }

  // ---- the server's side

  deliver(bytes: Buffer): void {
    if (this.#phase !== 'leaving') this.#say(bytes);
  }

  writable(): void {
    this.#forwarder.full = false;
    this.#guarded(this.#advance);
  }

  clientNameOf(serverName: string): string | undefined {
    return this.statements.nameOf(serverName);
  }

  setupDone(failure: Buffer | null): void {
    const server = this.#server;
    if (server === null) return;
    if (failure !== null) {
      server.settings = null;
      if (this.#phase === 'leaving') server.destroy();
      else {
        const problem = errorField(failure, 0, failure.length, 'M') ?? 'unknown';
        this.terminate(new CutoverError('settings_refused', { problem }));
      }
      return;
    }
    if (this.#phase === 'leaving') {
      this.#finishLeaving(server);
      return;
    }
    this.#tellNews(server);
    if (this.#phase !== 'setup') return;
    this.#guarded(() => {
      this.#start(server);
    });
    this.#updateReading();
  }

  sessionChanged(tags: number, failed: boolean): void {
    const server = this.#server;
    if (server === null) return;
    if (failed) this.counters.errors += 1;
    this.#settings.noteCommands(tags, failed, server, this.#record, (name) => this.statements.textOf(name));
    if ((tags & (SESSION_TAG.discardAll | SESSION_TAG.deallocateAll)) !== 0) this.statements.clear();
  }

  settled(): void {
    const server = this.#server;
    if (server === null) return;
    this.statements.keep();
    this.#record.clear();
    this.#stopped = false;
    this.#timedOut = false;
    const idle = server.transactionStatus === STATUS.idle;
    this.counters.answered(idle, this.#forwarder, this.#pool);
    if (idle) this.#settings.commit(server);
    if (this.#phase === 'leaving') {
      this.#finishLeaving(server);
      return;
    }
    if (idle) this.#boundary(server);
    if (idle && this.#ending) this.terminate(new CutoverError('shutting_down'));
    this.#guarded(this.#advance);
  }

  /** Between two transactions: the server goes back, unless the session keeps it. */
  #boundary(server: ServerConnection): void {
    this.#phase = 'idle';
    this.#reroutes = 0;
    this.#forwarder.full = false;
    if (this.#route?.mode === 'session' && this.#pool?.retired === false) this.#gate.released();
    else this.#giveBack(server, true);
  }

  refused(reply: Buffer): void {
    const server = this.#server;
    const { hooks } = this.#context;
    if (server === null || hooks === undefined) return;
    if (this.#phase === 'leaving' || this.#reroutes >= REROUTES_MAX || !this.#record.complete) {
      this.deliver(reply);
      this.settled();
      return;
    }
    this.#reroutes += 1;
    const batch = this.#record.bytes();
    this.#record.clear();
    this.statements.revert();
    this.#phase = 'rerouting';
    this.#stopped = false;
    this.#forwarder.full = false;
    this.#giveBack(server, this.#route?.mode !== 'session');
    hooks.onFenceRefusal(this.database).then(
      () => {
        this.#sendAnew(batch);
      },
      (error: unknown) => {
        this.#context.logger.warn({ client: this.id, database: this.database }, `not routed anew: ${messageOf(error)}`);
        this.#answerRefusal(reply);
      },
    );
  }

  #sendAnew(batch: Buffer): void {
    if (this.#phase !== 'rerouting') return;
    this.#phase = 'idle';
    this.#scanner.unshift(batch);
    this.#guarded(this.#advance);
  }

  #answerRefusal(reply: Buffer): void {
    if (this.#phase !== 'rerouting') return;
    this.#phase = 'idle';
    this.#say(reply);
    this.#guarded(this.#advance);
  }

  lost(): void {
    const server = this.#server;
    this.#server = null;
    const before = this.#phase;
    if (before === 'leaving') this.#close();
    else if (before === 'setup' && this.#setups < SETUPS_MAX) {
      // Nothing of the client's was sent yet, so another server does as well.
      this.#setups += 1;
      this.#begin();
    } else if (before === 'setup' || before === 'attached') {
      if (server?.saidWhy !== true) this.#say(errorResponseOf(new CutoverError('server_lost', { database: this.database }), 'FATAL'));
      this.#leave(VANISHED_TIMEOUT_MS);
    }
    this.#gate.released();
  }

  // ---- the end

  /** The client is gone or said goodbye: nothing more is read or answered; what runs is brought to an end. */
  #leave(timeoutMs: number): void {
    if (this.#phase === 'leaving' || this.#phase === 'closed') return;
    const waited = this.#phase;
    this.#phase = 'leaving';
    this.#stopWaiting();
    if (waited === 'pool') this.#pool?.forget(this);
    this.#socket.removeAllListeners('data');
    this.#socket.resume();
    this.#socket.end();
    const server = this.#server;
    if (server === null) {
      this.#close();
      return;
    }
    server.resume();
    if (this.#scanner.insideFrame || !server.replies.complete) server.destroy();
    else if (server.replies.empty) this.#finishLeaving(server);
    else this.#timer = setTimeout(this.#leftTooLong, timeoutMs);
  }

  readonly #leftTooLong = (): void => {
    this.cancel();
    this.#server?.destroy();
  };

  /** Nothing is in flight: an open transaction is rolled back, then the server goes back. */
  #finishLeaving(server: ServerConnection): void {
    if (server.idle) {
      this.#giveBack(server, this.#route?.mode !== 'session');
      this.#close();
      return;
    }
    if (!server.replies.empty) return;
    this.#timer ??= setTimeout(this.#leftTooLong, VANISHED_TIMEOUT_MS);
    server.setup('ROLLBACK');
  }

  #close(): void {
    this.#phase = 'closed';
    this.#stopWaiting();
    this.statements.clear();
    // Whoever does not take its last bytes in time loses them.
    this.#socket.setTimeout(VANISHED_TIMEOUT_MS, () => this.#socket.destroy());
    this.#context.forget(this);
  }
}
