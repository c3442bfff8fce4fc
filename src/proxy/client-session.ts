/**
 * One task: serve one logged-in client: pass its messages to a borrowed server and the answers back, one transaction
 * after the other.
 *
 * Phases (`#phase`):
 *   idle      nothing in flight; in session mode a server may be kept
 *   waiting   a message waits for a server (borrowing.ts: gate, pool, setup)
 *   attached  messages pass; back to idle at ReadyForQuery outside of a transaction with nothing left to answer
 *   sharing   a read is under way in a lane, together with those of other clients (pipelining/)
 *   writing   a statement runs on several shards (shard-write.ts); what is sent for a COPY goes to it (shard-copy.ts)
 *   rerouting the fence refused the batch; the hook is asked whether it may be sent anew
 *   leaving   the client is gone, what it started is brought to an end
 *   closed    nothing is left of it
 * While waiting and rerouting, messages are kept in the scanner; beyond UNREAD_BYTES_MAX they stay in the socket, unless the rest of
 * the message at hand is among them.
 */
import { CutoverError, messageOf } from '../errors/errors.js';
import { errorResponse, READY_IDLE } from '../wire/backend.js';
import { CLIENT_RULES, FRONTEND, STATUS } from '../wire/codes.js';
import { FrameScanner } from '../wire/frames.js';
import { BatchRecord } from './batch-record.js';
import { Borrowing, type BorrowingListener } from './borrowing.js';
import { ClientChannel } from './client-channel.js';
import { ClientStatements } from './client-statements.js';
import { Forwarder } from './forwarder.js';
import type { Gate } from './gate.js';
import { SessionReads } from './pipelining/session-reads.js';
import type { SharedServer } from './pool.js';
import type { ServerConnection } from './server-connection.js';
import { Reroute } from './reroute.js';
import { refusing } from './schema-change.js';
import { SessionCounters } from './session-counters.js';
import { GOODBYE_TIMEOUT_MS, SessionEnd, VANISHED_TIMEOUT_MS } from './session-end.js';
import { endsClient, sessionError } from './session-error.js';
import { SessionKeeping } from './session-keeping.js';
import { ONLY_SHARD, SessionPlace } from './session-place.js';
import { SessionServers } from './session-servers.js';
import { SessionSeveral } from './session-several.js';
import { SessionWriter } from './session-writer.js';
import type { LoggedInClient, SessionContext } from './session-context.js';
import { StatementMode } from './statement-mode.js';
import { TrackedSettings } from './tracked-settings.js';
import { SESSION_TAG } from './session-tags.js';

const UNREAD_BYTES_MAX = 65_536;

type Phase = 'idle' | 'waiting' | 'attached' | 'sharing' | 'writing' | 'rerouting' | 'leaving' | 'closed';

export class ClientSession implements BorrowingListener {
  readonly id: number;
  readonly secret: Buffer;
  readonly user: string;
  readonly database: string;
  readonly counters: SessionCounters;
  readonly statements: ClientStatements;
  readonly channel: ClientChannel;
  readonly servers: SessionServers;
  readonly #context: SessionContext;
  readonly #gate: Gate;
  readonly #borrowing: Borrowing;
  readonly #scanner = new FrameScanner(CLIENT_RULES);
  readonly #forwarder: Forwarder;
  readonly #statementMode: StatementMode;
  readonly #record = new BatchRecord();
  readonly #settings: TrackedSettings;
  #phase: Phase = 'idle';
  /** the gate closed while statements were in flight: the next ones wait for these */
  #stopped = false;
  /** messages up to the next Sync are thrown away, as PostgreSQL does after an error */
  #discarding = false;
  readonly #reroute: Reroute;
  /** the proxy shuts down: no transaction after this one */
  #ending = false;
  /** the client closed its side while its server was made ready */
  #gone = false;
  readonly #place: SessionPlace;
  readonly #writer: SessionWriter;
  readonly #several: SessionSeveral;
  readonly #keeping: SessionKeeping;
  readonly #end: SessionEnd;
  readonly #reads: SessionReads;

  constructor(client: LoggedInClient, context: SessionContext) {
    this.id = client.id;
    this.secret = client.secret;
    this.user = client.user;
    this.database = client.database;
    this.#context = context;
    this.#gate = context.gate(client.database);
    this.counters = new SessionCounters(client.socket);
    this.statements = new ClientStatements(context.statements);
    this.#statementMode = new StatementMode(client, context);
    this.#forwarder = new Forwarder(this.statements, this.#statementMode.refusing(refusing(context, client)));
    this.#settings = new TrackedSettings(client.settings, client.parameters);
    this.#place = new SessionPlace(this, context, this.#settings, this.#forwarder);
    this.#reroute = new Reroute(this, context);
    this.#writer = new SessionWriter(this, context, this.#settings, this.#forwarder);
    this.#borrowing = new Borrowing(client, context, this.#settings, this);
    this.#keeping = new SessionKeeping(this, context, this.#borrowing, this.#forwarder);
    const [borrowing, writer, scanner, keeping] = [this.#borrowing, this.#writer, this.#scanner, this.#keeping];
    const [forwarder, place, record] = [this.#forwarder, this.#place, this.#record];
    this.#several = new SessionSeveral(this, { borrowing, forwarder, place, scanner, writer }, this.#steps);
    this.#reads = new SessionReads(this, context, this.#settings, { forwarder, record, scanner });
    this.servers = new SessionServers(this, { borrowing, writer, keeping, reads: this.#reads });
    this.#end = new SessionEnd({ borrowing, writer, scanner, keeping, context }, this.#close);
    this.channel = new ClientChannel(client.socket, context.unread, {
      received: (chunk) => {
        this.#scanner.feed(chunk);
        this.#advance();
      },
      filled: (full) => {
        if (full) this.server?.pause();
        else this.server?.resume();
        this.#writer.hold(full);
        if (full) this.#updateReading();
        else this.#advance();
      },
      // The rows of several servers pass in parts.
      insideMessage: () => this.#phase === 'writing' || this.server?.hasLastWord === true,
      gone: () => {
        // With a server in hand, what was sent before is still run: PostgreSQL would not do less.
        if (this.#borrowing.step !== 'setup') this.#leave(VANISHED_TIMEOUT_MS);
        else this.#gone = true;
      },
    });
    this.#scanner.feed(client.unread);
    this.channel.open();
    this.#advance();
  }

  get phase(): Phase {
    return this.#phase;
  }

  get server(): ServerConnection | null {
    return this.#borrowing.server;
  }

  get applicationName(): string {
    return this.#settings.applicationName;
  }

  /** The database's name may lead elsewhere. Resolves when the session hears the server that it leads to, if it listens. */
  follow(): Promise<void> {
    return this.#keeping.follow();
  }

  /** Ends the session with a reason; what it left unfinished is rolled back. */
  terminate(error: CutoverError): void {
    if (this.#phase === 'leaving' || this.#phase === 'closed') return;
    if (this.server?.hasLastWord !== true) this.channel.write(this.#context.journal.answer(error, 'FATAL', this));
    this.#leave(VANISHED_TIMEOUT_MS);
  }

  /** As terminate(), but a transaction that is open may end first. */
  endAfterTransaction(): void {
    this.#ending = true;
  }

  // ---- the client's side

  /** Goes on with what the client has sent, as far as the phase lets it. */
  readonly #advance = (): void => {
    this.#guarded(this.#step);
    if (this.#gone && this.#phase !== 'waiting') this.#leave(VANISHED_TIMEOUT_MS);
    this.#updateReading();
  };

  readonly #step = (): void => {
    if (this.#phase === 'attached' && !this.#stopped && !this.#forwarder.full) this.#forward();
    else if (this.#phase === 'idle' && !this.channel.full) this.#next();
    else if (this.#phase === 'writing') this.#writer.feed(this.#scanner);
  };

  /** Runs a step; a client that breaks the protocol is told and closed, and nobody else notices. */
  #guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      const told = sessionError(error);
      if (told.code === 'internal')
        this.#context.logger.error({ client: this.id }, `session failed: ${messageOf(error)}`);
      this.terminate(told);
    }
  }

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
      } else if (!this.#begin()) return;
    }
  }

  /** Goes for a server. @returns false when more of the batch must come first */
  #begin(): boolean {
    const place = this.#place.next(this.#scanner, this.#borrowing);
    if (place.kind === 'more') return false;
    if (place.kind === 'refused') {
      this.#answerWith(place.error);
      return true;
    }
    if (place === ONLY_SHARD && !this.#borrowing.keeps && this.#reads.take()) {
      this.#phase = 'sharing';
      return true;
    }
    this.#phase = place.kind === 'several' ? 'writing' : 'waiting';
    if (place.kind === 'several') this.#several.begin(place.plan);
    else if (place.kind === 'read') void this.#place.read().then(this.#routerRead);
    else this.#borrowing.begin(place.shard, this.#reads.alone);
    // Mostly a server has been there at once, and the clock need not be asked.
    if (this.phase === 'waiting' || this.phase === 'writing') this.counters.waiting();
    return true;
  }

  /** For what runs on several shards. */
  readonly #steps = {
    enter: (phase: Phase): void => {
      this.#phase = phase;
    },
    say: (bytes: Buffer): void => {
      this.channel.write(bytes);
    },
    boundary: (): void => {
      this.#boundary();
    },
    advance: this.#advance,
    close: (): void => {
      this.#close();
    },
  };

  readonly #routerRead = (failure: CutoverError | null): void => {
    if (this.#phase !== 'waiting') return;
    if (failure === null) this.placeAnew();
    else this.notObtained(failure);
  };

  #forward(): void {
    const { server } = this;
    const { placement, mover } = this.#place;
    // One that skips what it gets until a Sync would not hear what has to be said to it first.
    const free = server?.replies.empty === true && !server.replies.skipping;
    if (server === null || (mover !== null && free && !this.#several.staysHere(mover))) return;
    // Between two answers, where nothing of the server's can be cut in two.
    const notice = server.replies.empty ? (placement?.takeNotice() ?? null) : null;
    if (notice !== null) this.channel.write(errorResponse({ severity: 'NOTICE', sqlstate: '00000', message: notice }));
    const forwarder = this.#forwarder;
    const stopAtBoundary =
      this.#gate.closed || placement !== null || this.#borrowing.onReplica || this.#statementMode.applies;
    const outcome = forwarder.forward(this.#scanner, server, stopAtBoundary, this.#record.add);
    // Else nothing was sent that a server answers: what counts as running would begin while the client thinks.
    if (!server.replies.empty) server.lastRequestAt = this.counters.requested(forwarder);
    if (forwarder.sawFlush) {
      forwarder.sawFlush = false;
      server.stopWatching();
    }
    // What can't be sent anew need not be remembered either.
    if (!this.#record.complete) this.statements.keep();
    if (outcome === 'stopped') this.#stopped = true;
    else if (outcome === 'terminated') this.#leave(GOODBYE_TIMEOUT_MS);
  }

  /** The socket is read as long as messages can pass, or are few enough to be kept. */
  #updateReading(): void {
    if (this.#phase === 'leaving' || this.#phase === 'closed') return;
    const passing = this.#phase === 'attached' && !this.#stopped;
    const wanted = this.#scanner.awaitsRest || this.#scanner.unreadBytes <= UNREAD_BYTES_MAX;
    const room = passing ? !this.#forwarder.full : wanted;
    this.channel.read(room && !this.channel.full);
  }

  #discarded(): void {
    this.#discarding = false;
    this.channel.write(READY_IDLE);
  }

  // ---- borrowing a server

  obtained(server: ServerConnection): void {
    this.#phase = 'attached';
    this.counters.started();
    if (this.#context.hooks !== undefined) server.watchForRefusal();
    this.#advance();
  }

  placeAnew(): void {
    this.#phase = 'idle';
    this.#advance();
  }

  shares(by: ServerConnection | SharedServer): boolean {
    if (this.#place.placement !== null) return false;
    this.#guarded(() => {
      if (this.#reads.join(by)) this.#phase = 'sharing';
    });
    return this.phase !== 'waiting';
  }

  shardAnew(): number | null {
    return this.#place.shardAnew();
  }

  notObtained(error: CutoverError): void {
    // Without its transaction, what the client sends next would be committed one by one.
    if (this.#borrowing.moving || endsClient(error, this.#context.config)) {
      this.terminate(error);
      return;
    }
    this.#answerWith(error);
    this.#advance();
  }

  /** Answers the message at hand, or all up to the next Sync, with an error of the proxy's own. */
  #answerWith(error: CutoverError): void {
    const scanner = this.#scanner;
    this.counters.errors += 1;
    this.counters.waited();
    this.#phase = 'idle';
    this.channel.write(this.#context.journal.answer(error, 'ERROR', this));
    this.#discarding = true;
    if (scanner.peek() && (scanner.type === FRONTEND.query || scanner.type === FRONTEND.functionCall)) {
      scanner.consume();
      this.#discarded();
    }
  }

  failed(error: CutoverError): void {
    if (this.#phase === 'leaving') this.server?.destroy();
    else this.terminate(error);
  }

  setupDone(failure: Buffer | null): void {
    if (this.#borrowing.step === 'asking') {
      this.#keeping.told(failure);
      this.#rest();
      this.#advance();
      return;
    }
    this.#borrowing.setupDone(failure);
    if (this.#phase === 'leaving' && this.server !== null) this.#end.finish(this.server);
  }

  // ---- the server's side

  deliver(bytes: Buffer): void {
    if (this.#phase !== 'leaving') this.channel.write(bytes);
  }

  relay(bytes: Buffer): boolean {
    return this.#phase === 'leaving' || this.channel.relay(bytes);
  }

  writable(): void {
    this.#forwarder.full = false;
    this.#advance();
  }

  clientNameOf(serverName: string): string | undefined {
    return this.statements.nameOf(serverName);
  }

  sessionChanged(tags: number, failed: boolean): void {
    const { server } = this;
    if (server === null) return;
    if (failed) this.counters.errors += 1;
    if ((tags & SESSION_TAG.state) !== 0) this.#keeping.suspect();
    this.#reads.changed(tags);
    this.#settings.noteCommands(tags, failed, server, this.#record, (name) => this.statements.textOf(name));
    if ((tags & (SESSION_TAG.discardAll | SESSION_TAG.deallocateAll)) !== 0) this.statements.clear();
  }

  settled(): void {
    const { server } = this;
    if (server === null) return;
    this.statements.keep();
    this.#record.clear();
    this.#stopped = false;
    const idle = server.transactionStatus === STATUS.idle;
    this.counters.answered(idle, this.#forwarder, this.#borrowing.pool);
    if (idle) this.#settings.commit(server);
    this.#place.mover?.settled(server.transactionStatus);
    this.#reads.settled(idle);
    if (this.#phase === 'leaving') {
      this.#end.finish(server);
      return;
    }
    if (idle) this.#boundary();
    else if (this.#statementMode.applies) this.terminate(this.#statementMode.error);
    this.#advance();
  }

  /** Between two transactions: the server goes back, unless the session keeps it. */
  #boundary(): void {
    this.#reroute.answered();
    this.#forwarder.full = false;
    // On shards what would be left in a session is refused.
    const asks = this.#keeping.suspected && this.#place.placement === null && this.server !== null;
    this.#phase = asks ? 'waiting' : 'idle';
    if (asks) this.#borrowing.ask();
    else this.#rest();
  }

  #rest(): void {
    this.#phase = 'idle';
    this.#scanner.release();
    if (this.#borrowing.state !== null) void this.#keeping.follow();
    // The rest of a message that it has a part of is not for it any more: its COPY has failed, or it never was in one.
    if (this.#borrowing.keeps && this.server?.insideRequest === true) this.server.destroy();
    else if (this.#borrowing.keeps) this.#gate.released();
    else this.#borrowing.giveBack();
    if (this.#ending) this.terminate(new CutoverError('shutting_down'));
  }

  readDone(failure?: CutoverError): void {
    const shared = this.#phase === 'sharing';
    if (shared && failure !== undefined) this.#answerWith(failure);
    if (shared) this.#rest();
    this.#advance();
  }

  refused(reply: Buffer): void {
    const keeps = this.#borrowing.state !== null;
    if (this.#phase === 'leaving' || keeps || !this.#reroute.possible || !this.#record.complete) {
      // What it has on this server cannot go along in the middle of a batch; the others shall hear that the side has changed.
      if (keeps && this.#reroute.possible) void this.#reroute.ask();
      this.deliver(reply);
      this.settled();
      return;
    }
    const batch = this.#record.bytes();
    this.#record.clear();
    this.statements.revert();
    this.counters.takenBack();
    this.#place.placement?.settled(STATUS.idle);
    this.#phase = 'rerouting';
    this.#stopped = false;
    this.#forwarder.full = false;
    this.#borrowing.giveBack();
    void this.#reroute.ask().then((told) => {
      if (this.#phase !== 'rerouting') return;
      if (told) this.#scanner.unshift(batch);
      else this.channel.write(reply);
      this.#phase = 'idle';
      this.#advance();
    });
  }

  lost(): void {
    const told = this.server?.hasLastWord === true;
    const { preparing } = this.#borrowing;
    const { loss } = this.#keeping;
    const retried = this.#borrowing.lost();
    if (this.#phase === 'leaving') this.#close();
    else if (this.#gone) this.#leave(VANISHED_TIMEOUT_MS);
    else if (loss !== null && this.#phase !== 'attached') this.terminate(loss);
    else if (!retried && (this.#phase === 'waiting' ? preparing : this.#phase === 'attached')) {
      const error = new CutoverError('server_lost', { database: this.database });
      if (!told) this.channel.write(this.#context.journal.answer(error, 'FATAL', this));
      this.#leave(VANISHED_TIMEOUT_MS);
    }
    this.#gate.released();
  }

  // ---- the end

  /** The client is gone or said goodbye: nothing more is read or answered; what runs is brought to an end. */
  #leave(timeoutMs: number): void {
    if (this.#phase === 'leaving' || this.#phase === 'closed') return;
    this.#phase = 'leaving';
    this.#reads.leave();
    this.#borrowing.leave();
    this.channel.leave();
    this.#end.begin(timeoutMs);
  }

  readonly #close = (): void => {
    this.#phase = 'closed';
    this.#end.ended();
    this.statements.clear();
    this.#context.forget(this.id);
  };
}
