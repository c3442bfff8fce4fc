/**
 * One task: the server connections of one user to one target: lend them, keep them few, throw bad ones away.
 *
 * A connection is lent only when it is whole: nothing in flight, no transaction open, no cancel request on its way to
 * it, nothing left behind by the client before. Who comes first waits first.
 */
import { performance } from 'node:perf_hooks';
import { CutoverError, messageOf } from '../errors/errors.js';
import { addressOf } from '../postgres/endpoint.js';
import { runErrand } from './errand.js';
import { IdleServers } from './idle-servers.js';
import type { PoolOptions } from './pool-options.js';
import type { ServerConnection } from './server-connection.js';
import { openServer } from './server-opening.js';
import { SessionSettings } from './settings.js';
import type { Statement } from './statement-cache.js';

/** What a pool needs of a session that wants a connection. */
export interface Borrower {
  granted(server: ServerConnection): void;
  /** A connection that several share has room. @returns whether what it waits for is on its way there: then it waits no more */
  joins?(shared: SharedServer): boolean;
  denied(error: CutoverError): void;
  /** the pool is no longer the right one */
  sentAway(): void;
}

/** A connection that runs the statements of several sessions, one behind the other. */
export interface SharedServer {
  readonly server: ServerConnection;
  /** it may take another one of those who wait */
  readonly hasRoom: boolean;
}

/** What SHOW POOLS calls it: changes when databases change places. */
export interface PoolLabel {
  readonly database: string;
  readonly user: string;
  readonly shard: number;
  readonly role: string;
}

/** An empty query: the least a server can be asked (PostgreSQL documentation, 54.2.2). */
const HEALTH_CHECK = ';';
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
  readonly #idle = new IdleServers();
  readonly #waiting: Waiting[] = [];
  #connecting = 0;
  /** idle connections that are being checked */
  #checking = 0;
  #firstContact: Promise<void> | null = null;
  #retired = false;
  /** of a jitter, what each connection has got by chance: -1 to 1 */
  readonly #chances = new WeakMap<ServerConnection, number>();
  readonly #begunAtMs = performance.now();

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
    return this.#idle.count;
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
    return this.#retired || !server.usable || server.retiresAtMs === 0;
  }

  /**
   * Gives a connection at once when one is idle; otherwise null, and `granted` or `denied` is called later.
   *
   * @param since when it began to wait, where it has joined others and has to wait once more: it has its place again
   */
  take(borrower: Borrower, since = performance.now()): ServerConnection | null {
    const now = performance.now();
    const entry = this.#idle.take();
    if (entry !== null && now - entry.heardAtMs < this.options.healthcheckIntervalMs) {
      this.counters.serverAssignments += 1;
      return entry.server;
    }
    let at = this.#waiting.length;
    while (at > 0 && (this.#waiting[at - 1]?.since ?? 0) > since) at -= 1;
    if (at === this.#waiting.length) this.#waiting.push({ borrower, since });
    else this.#waiting.splice(at, 0, { borrower, since });
    if (entry === null) this.#grow();
    else this.#check(entry.server, entry.sinceMs);
    return null;
  }

  /** Gives an idle connection that suits, at once; null: there is none that need not be checked first, and nothing is waited for. */
  takeIdle(suits: (server: ServerConnection) => boolean): ServerConnection | null {
    const now = performance.now();
    const { healthcheckIntervalMs } = this.options;
    const entry = this.#idle.takeLast(
      ({ server, heardAtMs }) => now - heardAtMs < healthcheckIntervalMs && suits(server),
    );
    if (entry !== null) this.counters.serverAssignments += 1;
    return entry?.server ?? null;
  }

  /** Lets those who wait join a connection that several share, in their order, until one does not. */
  invite(shared: SharedServer): void {
    while (shared.hasRoom) {
      const first = this.#waiting.shift();
      if (first === undefined) return;
      if (first.borrower.joins?.(shared) !== true) {
        this.#waiting.unshift(first);
        return;
      }
      this.counters.waitMs += performance.now() - first.since;
    }
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
    this.#takeBack(server, clean, null);
  }

  /** @param sinceMs it became idle; null: now */
  #takeBack(server: ServerConnection, clean: boolean, sinceMs: number | null): void {
    server.owner = null;
    server.resume();
    if (!server.usable) return;
    if (!server.idle) {
      server.destroy();
      return;
    }
    const now = performance.now();
    if (this.isOutdated(server) || now > server.retiresAtMs) {
      server.end();
      return;
    }
    if (!clean) server.dirty = true;
    if (server.cancelsInFlight > 0) return;
    if (server.dirty) this.#clean(server);
    else this.#lend(server, sinceMs ?? now, now);
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
    return this.#idle.takeAll().map(({ server }) => server);
  }

  /**
   * To be called about once a second: ends what was idle or open for too long, and waits that took too long, and checks what is idle.
   *
   * @param held clients are held: no server is asked for anything meanwhile
   */
  sweep(held: boolean): void {
    this.#endIdle();
    this.#refuseLate();
    // Who waits for a promotion is not refused where a connection failed: it is tried again.
    if (this.options.access === 'primary') this.#grow();
    if (held) return;
    this.#checkIdle();
    this.#closeUnused();
  }

  #endIdle(): void {
    const now = performance.now();
    const { idleTimeoutMs, minimum } = this.options;
    let spare = this.#servers.size - minimum;
    const ended = this.#idle.takeAll(({ server, sinceMs }) => {
      const due = now > server.retiresAtMs || (now - sinceMs > idleTimeoutMs && spare > 0);
      if (due) spare -= 1;
      return due;
    });
    for (const { server } of ended) server.end();
  }

  #refuseLate(): void {
    const now = performance.now();
    const { checkoutTimeoutMs } = this.options;
    while (this.#waiting[0] !== undefined && now - this.#waiting[0].since > checkoutTimeoutMs) {
      const waitedMs = Math.round(now - this.#waiting[0].since);
      const late = new CutoverError('checkout_timeout', { database: this.label.database, waitedMs });
      this.#refuse(this.#waiting.shift(), this.#awaitsPrimary ? this.#unreachable() : late);
    }
  }

  /** No server is there from which one could become free. */
  get #awaitsPrimary(): boolean {
    return this.options.access !== 'any' && this.#servers.size === 0;
  }

  #checkIdle(): void {
    const now = performance.now();
    const { idleHealthcheckIntervalMs: intervalMs, idleHealthcheckDelayMs } = this.options;
    if (intervalMs === 0 || now - this.#begunAtMs < idleHealthcheckDelayMs) return;
    for (const { server, sinceMs } of this.#idle.takeAll(({ heardAtMs }) => now - heardAtMs >= intervalMs))
      this.#check(server, sinceMs);
  }

  /** Statements that nobody has used for long are closed at servers that are idle. */
  #closeUnused(): void {
    const { preparedStatementsTtlMs: ttlMs, preparedStatementsTtlJitterMs: jitterMs, rollbackTimeoutMs } = this.options;
    if (ttlMs === null) return;
    const now = performance.now();
    const unused = new Map<ServerConnection, readonly Statement[]>();
    const due = this.#idle.takeAll(({ server }) => {
      const later = Math.abs(this.#chances.get(server) ?? 0) * jitterMs;
      const statements = server.statements.unused(ttlMs + later, now);
      unused.set(server, statements);
      return statements.length > 0;
    });
    for (const { server, sinceMs } of due) {
      const statements = unused.get(server) ?? [];
      for (const statement of statements) server.statements.closed(statement);
      // Names of the proxy's own, of letters and digits.
      this.#ask(server, statements.map(({ name }) => `DEALLOCATE ${name}`).join(';'), rollbackTimeoutMs, sinceMs);
    }
  }

  /** Asks an idle connection whether it answers. */
  #check(server: ServerConnection, sinceMs: number): void {
    this.#ask(server, HEALTH_CHECK, this.options.healthcheckTimeoutMs, sinceMs);
  }

  /** Runs a text on an idle connection, which has been taken out for that. One that answers in time goes on as it was. */
  #ask(server: ServerConnection, sql: string, timeoutMs: number, sinceMs: number): void {
    this.#checking += 1;
    runErrand(server, sql, timeoutMs, (failure) => {
      this.#checking -= 1;
      if (failure === null) this.#takeBack(server, true, sinceMs);
      else server.destroy();
      this.#grow();
    });
  }

  /** Closes idle connections now and the others when they are given back; those opened later stay. */
  reconnect(): void {
    for (const server of this.#servers) server.retiresAtMs = 0;
    for (const { server } of this.#idle.takeAll()) server.end();
  }

  /** No name leads here any more: everything is closed as soon as it is idle, and who waits is sent away. */
  retire(): void {
    this.#retired = true;
    for (const { server } of this.#idle.takeAll()) server.end();
    this.sendAway();
  }

  /** Who waits here looks anew where it belongs. */
  sendAway(): void {
    for (const { borrower } of this.#waiting.splice(0)) borrower.sentAway();
  }

  destroy(): void {
    this.retire();
    for (const server of this.#servers) server.destroy();
  }

  #grow(): void {
    if (this.options.access === 'nobody') return;
    const wanted = this.#waiting.length - this.#connecting - this.#checking;
    if (wanted > 0 && this.#servers.size + this.#connecting < this.options.size) void this.#connect();
  }

  async #connect(): Promise<void> {
    if (this.options.access === 'nobody') return;
    this.#connecting += 1;
    const start = performance.now();
    try {
      const server = await openServer(this.options, () => !this.#retired);
      this.#expectPrimary(server);
      this.#connecting -= 1;
      this.#opened(server, performance.now() - start);
    } catch (error) {
      this.#connecting -= 1;
      this.#failed(error);
    }
  }

  /** What the last look at the servers said may have changed since. Before version 14 a server does not say it at the login. */
  #expectPrimary(server: ServerConnection): void {
    if (this.options.access !== 'primary' || server.initialParameters.get('in_hot_standby') !== 'on') return;
    server.end();
    throw new Error('it is a standby now');
  }

  #opened(server: ServerConnection, connectMs: number): void {
    this.counters.connects += 1;
    this.counters.connectMs += connectMs;
    this.parameters = server.initialParameters;
    this.#lastFailure = null;
    this.#servers.add(server);
    const now = performance.now();
    const { serverLifetimeMs, serverLifetimeJitterMs } = this.options;
    const chance = 2 * Math.random() - 1;
    this.#chances.set(server, chance);
    server.retiresAtMs = now + serverLifetimeMs + chance * serverLifetimeJitterMs;
    server.onClosed = () => {
      this.#closed(server);
    };
    // However short its lifetime is, it serves once.
    if (!server.usable) this.#closed(server);
    else if (this.isOutdated(server)) server.end();
    else this.#lend(server, now, now);
    this.#grow();
  }

  #closed(server: ServerConnection): void {
    this.#servers.delete(server);
    this.#idle.remove(server);
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
    if (this.#servers.size > 0 || this.#connecting > 0 || this.options.access === 'primary') return;
    for (const waiting of this.#waiting.splice(0)) this.#refuse(waiting, this.#unreachable());
  }

  /** The error for who needs a connection and can't have one. */
  #unreachable(): CutoverError {
    const nobody = this.options.access === 'nobody' ? 'none of its servers is known to be the primary' : null;
    const problem = nobody ?? this.#lastFailure ?? 'no connection could be opened';
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

  #lend(server: ServerConnection, sinceMs: number, now: number): void {
    const waiting = this.#waiting.length === 0 ? undefined : this.#waiting.shift();
    if (waiting === undefined) {
      this.#idle.add(server, sinceMs, now);
      return;
    }
    this.counters.serverAssignments += 1;
    this.counters.waitMs += now - waiting.since;
    waiting.borrower.granted(server);
  }

  /** DISCARD ALL ends everything a session can leave behind (PostgreSQL documentation, DISCARD). */
  #clean(server: ServerConnection): void {
    runErrand(server, 'DISCARD ALL', this.options.rollbackTimeoutMs, (failure) => {
      if (failure !== null) {
        server.destroy();
        return;
      }
      server.statements.clear();
      server.settings = SessionSettings.NONE;
      server.dirty = false;
      this.giveBack(server, true);
    });
  }
}
