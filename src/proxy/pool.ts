/**
 * One task: the server connections of one user to one target: lend them, keep them few, throw bad ones away.
 *
 * A connection is lent only when it is whole: nothing in flight, no transaction open, no cancel request on its way to
 * it, nothing left behind by the client before. Who comes first waits first.
 */
import { CutoverError, messageOf } from '../errors/errors.js';
import type { PoolerMode } from '../config/config.js';
import { addressOf, type Endpoint } from '../postgres/endpoint.js';
import { ServerConnection, type ServerOwner } from './server-connection.js';
import { logIn } from './server-login.js';
import { SessionSettings } from './settings.js';

/** What a pool needs of a session that wants a connection. */
export interface Borrower {
  granted(server: ServerConnection): void;
  denied(error: CutoverError): void;
  /** the pool is no longer the right one */
  sentAway(): void;
}

export interface PoolOptions {
  readonly endpoint: Endpoint;
  readonly size: number;
  readonly minimum: number;
  readonly mode: PoolerMode;
  readonly connectTimeoutMs: number;
  readonly checkoutTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly serverLifetimeMs: number;
  readonly preparedStatementsLimit: number;
  readonly statementTimeoutMs: number | undefined;
}

/** What SHOW POOLS calls it: changes when databases change places. */
export interface PoolLabel {
  readonly database: string;
  readonly user: string;
  readonly shard: number;
  readonly role: string;
}

const CLEANUP_TIMEOUT_MS = 5_000;
let pools = 0;

interface Waiting {
  readonly borrower: Borrower;
  readonly since: number;
}

export class Pool {
  readonly id = (pools += 1);
  readonly counters = {
    transactions: 0,
    queries: 0,
    serverAssignments: 0,
    bytesReceived: 0,
    bytesSent: 0,
    transactionMs: 0,
    queryMs: 0,
    waitMs: 0,
    parses: 0,
    binds: 0,
    errors: 0,
    rollbacks: 0,
    sharedReads: 0,
    connects: 0,
    connectMs: 0,
  };
  label: PoolLabel;
  options: PoolOptions;
  /** what servers of this target reported last; null until one was reached */
  parameters: ReadonlyMap<string, string> | null = null;
  #lastFailure: string | null = null;
  readonly #servers = new Set<ServerConnection>();
  readonly #idle: { readonly server: ServerConnection; readonly since: number }[] = [];
  readonly #waiting: Waiting[] = [];
  #connecting = 0;
  #firstContact: Promise<void> | null = null;
  #retired = false;
  /** connections that are not lent again (RECONNECT) */
  #outdated = new WeakSet<ServerConnection>();

  constructor(options: PoolOptions, label: PoolLabel) {
    this.options = options;
    this.label = label;
  }

  get servers(): Iterable<ServerConnection> {
    return this.#servers;
  }

  get serverCount(): number {
    return this.#servers.size;
  }

  get idleCount(): number {
    return this.#idle.length;
  }

  get connectingCount(): number {
    return this.#connecting;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Why the last attempt to connect failed; null after one that did not. */
  get failure(): string | null {
    return this.#lastFailure;
  }

  /** Somebody waits, and no further connection may be opened for it. */
  get short(): boolean {
    return this.#waiting.length > 0 && this.#servers.size + this.#connecting >= this.options.size;
  }

  get longestWaitMs(): number {
    const [first] = this.#waiting;
    return first === undefined ? 0 : performance.now() - first.since;
  }

  get retired(): boolean {
    return this.#retired;
  }

  /** True when a connection must not be used for a new transaction any more. */
  isOutdated(server: ServerConnection): boolean {
    return this.#retired || !server.usable || this.#outdated.has(server);
  }

  /** Gives a connection at once when one is idle; otherwise null, and `granted` or `denied` is called later. */
  take(borrower: Borrower): ServerConnection | null {
    for (let entry = this.#idle.pop(); entry !== undefined; entry = this.#idle.pop()) {
      if (!entry.server.usable) continue;
      this.counters.serverAssignments += 1;
      return entry.server;
    }
    this.#waiting.push({ borrower, since: performance.now() });
    this.#grow();
    return null;
  }

  /** Gives an idle connection that suits, at once; null: there is none, and nothing is waited for. */
  takeIdle(suits: (server: ServerConnection) => boolean): ServerConnection | null {
    const at = this.#idle.findLastIndex(({ server }) => server.usable && suits(server));
    const [entry] = at < 0 ? [] : this.#idle.splice(at, 1);
    if (entry !== undefined) this.counters.serverAssignments += 1;
    return entry?.server ?? null;
  }

  /** Takes a wait back: the client left. */
  forget(borrower: Borrower): void {
    const at = this.#waiting.findIndex((waiting) => waiting.borrower === borrower);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  /**
   * Takes a connection back from its last owner.
   *
   * @param clean false when the session ended, so that everything it left must go
   */
  giveBack(server: ServerConnection, clean: boolean): void {
    server.owner = null;
    server.resume();
    if (!server.usable) return;
    if (!server.idle) {
      server.destroy();
      return;
    }
    if (this.isOutdated(server)) {
      server.end();
      return;
    }
    if (!clean) server.dirty = true;
    if (server.cancelsInFlight > 0) return;
    if (server.dirty) this.#clean(server);
    else this.#lend(server);
  }

  /** A cancel request has arrived; the server may change hands again. */
  cancelArrived(server: ServerConnection): void {
    server.cancelsInFlight -= 1;
    if (server.cancelsInFlight === 0 && server.owner === null) this.giveBack(server, true);
  }

  /**
   * What servers of this target report; connects when none was ever reached. Who asks meanwhile waits for the same attempt.
   *
   * @throws CutoverError `server_unreachable`
   */
  async reported(): Promise<ReadonlyMap<string, string>> {
    if (this.parameters === null) {
      this.#firstContact ??= this.#connect().finally(() => (this.#firstContact = null));
      await this.#firstContact;
    }
    if (this.parameters === null) throw this.#unreachable();
    return this.parameters;
  }

  /** Opens connections until `count` exist, at most the size of the pool. Failures are left to those who need one. */
  async fill(count: number): Promise<void> {
    const missing = Math.min(count, this.options.size) - this.#servers.size - this.#connecting;
    const opened = Array.from({ length: Math.max(0, missing) }, () => this.#connect());
    await Promise.allSettled(opened);
  }

  /** Runs `work` on every idle connection, which nobody can take meanwhile. */
  borrowIdle(): ServerConnection[] {
    const servers = this.#idle.map((entry) => entry.server).filter((server) => server.usable);
    this.#idle.length = 0;
    return servers;
  }

  /** To be called about once a second: ends what was idle or open for too long, and waits that took too long. */
  sweep(): void {
    const now = performance.now();
    const { idleTimeoutMs, serverLifetimeMs, checkoutTimeoutMs, minimum } = this.options;
    const opened = Date.now() - serverLifetimeMs;
    const keep = this.#idle.filter(({ server, since }) => {
      const old = server.connectedAt.getTime() < opened;
      const unused = now - since > idleTimeoutMs && this.#servers.size > minimum;
      if (server.usable && !old && !unused) return true;
      server.end();
      return false;
    });
    this.#idle.splice(0, this.#idle.length, ...keep);
    while (this.#waiting[0] !== undefined && now - this.#waiting[0].since > checkoutTimeoutMs) {
      const waitedMs = Math.round(now - this.#waiting[0].since);
      this.#refuse(
        this.#waiting.shift(),
        new CutoverError('checkout_timeout', { database: this.label.database, waitedMs }),
      );
    }
  }

  /** Closes idle connections now and the others when they are given back; those opened later stay. */
  reconnect(): void {
    for (const server of this.#servers) this.#outdated.add(server);
    for (const { server } of this.#idle.splice(0)) server.end();
  }

  /** No name leads here any more: everything is closed as soon as it is idle, and who waits is sent away. */
  retire(): void {
    this.#retired = true;
    for (const { server } of this.#idle.splice(0)) server.end();
    for (const { borrower } of this.#waiting.splice(0)) borrower.sentAway();
  }

  destroy(): void {
    this.retire();
    for (const server of this.#servers) server.destroy();
  }

  #grow(): void {
    const wanted = this.#waiting.length - this.#connecting;
    if (wanted > 0 && this.#servers.size + this.#connecting < this.options.size) void this.#connect();
  }

  async #connect(): Promise<void> {
    this.#connecting += 1;
    const start = performance.now();
    try {
      const login = await logIn(this.options.endpoint, this.options.connectTimeoutMs, this.options.statementTimeoutMs);
      const server = new ServerConnection(login, this.options.endpoint, this.options.preparedStatementsLimit);
      this.#connecting -= 1;
      this.#opened(server, performance.now() - start);
    } catch (error) {
      this.#connecting -= 1;
      this.#failed(error);
    }
  }

  #opened(server: ServerConnection, connectMs: number): void {
    this.counters.connects += 1;
    this.counters.connectMs += connectMs;
    this.parameters = server.initialParameters;
    this.#lastFailure = null;
    this.#servers.add(server);
    server.onClosed = () => {
      this.#closed(server);
    };
    if (server.usable) this.giveBack(server, true);
    else this.#closed(server);
    this.#grow();
  }

  #closed(server: ServerConnection): void {
    this.#servers.delete(server);
    const at = this.#idle.findIndex((entry) => entry.server === server);
    if (at >= 0) this.#idle.splice(at, 1);
    this.counters.bytesReceived += server.bytesReceived;
    this.counters.bytesSent += server.bytesSent;
    this.counters.errors += server.errors;
    this.counters.rollbacks += server.rollbacks;
    this.#grow();
  }

  /** With other connections about, a wait may still end well; without any, everybody is told why. */
  #failed(error: unknown): void {
    this.counters.errors += 1;
    this.#lastFailure = messageOf(error);
    if (this.#servers.size > 0 || this.#connecting > 0) return;
    for (const waiting of this.#waiting.splice(0)) this.#refuse(waiting, this.#unreachable());
  }

  /** The error for who needs a connection and can't have one. */
  #unreachable(): CutoverError {
    const problem = this.#lastFailure ?? 'no connection could be opened';
    return new CutoverError('server_unreachable', {
      database: this.label.database,
      address: addressOf(this.options.endpoint),
      problem,
    });
  }

  #refuse(waiting: Waiting | undefined, error: CutoverError): void {
    this.counters.errors += 1;
    waiting?.borrower.denied(error);
  }

  #lend(server: ServerConnection): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) {
      this.#idle.push({ server, since: performance.now() });
      return;
    }
    this.counters.serverAssignments += 1;
    this.counters.waitMs += performance.now() - waiting.since;
    waiting.borrower.granted(server);
  }

  /** DISCARD ALL ends everything a session can leave behind (PostgreSQL documentation, DISCARD). */
  #clean(server: ServerConnection): void {
    const timer = setTimeout(() => {
      server.destroy();
    }, CLEANUP_TIMEOUT_MS);
    server.owner = new Cleaning((failure) => {
      clearTimeout(timer);
      server.owner = null;
      if (failure !== null) {
        server.destroy();
        return;
      }
      server.statements.clear();
      server.settings = SessionSettings.NONE;
      server.dirty = false;
      this.giveBack(server, true);
    });
    server.setup('DISCARD ALL');
  }
}

/** Owns a connection while a statement of the proxy's own runs on it and nobody reads along. */
export class Cleaning implements ServerOwner {
  readonly id = 0;
  readonly #done: (failure: Buffer | null) => void;

  constructor(done: (failure: Buffer | null) => void) {
    this.#done = done;
  }

  setupDone(failure: Buffer | null): void {
    this.#done(failure);
  }

  lost(): void {
    this.#done(Buffer.alloc(0));
  }

  deliver(_bytes: Buffer): void {
    // Nobody reads it.
  }

  settled(): void {
    // Only setup statements run here.
  }

  refused(): void {
    // Nothing is watched for.
  }

  sessionChanged(): void {
    // No session is concerned.
  }

  clientNameOf(): undefined {
    return undefined;
  }

  writable(): void {
    // A single statement fits.
  }
}
