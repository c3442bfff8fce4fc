/** One task: count what one client did, for SHOW CLIENTS and SHOW STATS. */
import { performance } from 'node:perf_hooks';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { Forwarder } from './forwarder.js';
import type { Pool } from './pool.js';

/** The date of a moment by the monotonic clock; null for 0. */
export function wallTime(atMs: number): Date | null {
  return atMs === 0 ? null : new Date(Date.now() - (performance.now() - atMs));
}

export class SessionCounters {
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly connectedAt = new Date();
  queries = 0;
  transactions = 0;
  waitMs = 0;
  queryMs = 0;
  transactionMs = 0;
  errors = 0;
  #waitingSince = 0;
  #transactionSince = 0;
  /** its client was told something last, or came */
  #answeredAt = performance.now();
  /** 0 = no statement in flight */
  #requestSince = 0;
  /** 0 = never */
  #requestAt = 0;
  #timedOut = false;
  #parses = 0;
  #binds = 0;
  #counted = 0;
  #reported = 0;

  constructor(socket: Socket) {
    this.host = socket.remoteAddress ?? '';
    this.port = socket.remotePort ?? 0;
    this.tls = socket instanceof TLSSocket;
  }

  get lastRequestAt(): Date | null {
    return wallTime(this.#requestAt);
  }

  get transactionMsSoFar(): number {
    return this.#transactionSince === 0 ? 0 : performance.now() - this.#transactionSince;
  }

  /** Something was sent to a server and is not answered to the end, as before a Sync. */
  get answerOwed(): boolean {
    return this.#requestSince !== 0;
  }

  /** Since the last answer. */
  get idleMs(): number {
    return performance.now() - this.#answeredAt;
  }

  /** How long the statement in flight has been running; 0 when there is none. */
  get runsForMs(): number {
    return this.#requestSince === 0 ? 0 : performance.now() - this.#requestSince;
  }

  /** True once for each statement, when it has been running for longer. */
  runsTooLong(limitMs: number): boolean {
    if (this.#timedOut || this.runsForMs <= limitMs) return false;
    this.#timedOut = true;
    return true;
  }

  /** A message waits for the gate or for a server. */
  waiting(): void {
    if (this.#waitingSince === 0) this.#waitingSince = performance.now();
  }

  /** The wait is over without a server. */
  waited(): void {
    if (this.#waitingSince !== 0) this.waitMs += performance.now() - this.#waitingSince;
    this.#waitingSince = 0;
    this.#answeredAt = performance.now();
  }

  /** A server was given; a transaction begins. */
  started(): void {
    const now = performance.now();
    if (this.#waitingSince !== 0) this.waitMs += now - this.#waitingSince;
    this.#waitingSince = 0;
    this.#transactionSince = now;
  }

  /** Messages were sent to the server. @returns when, by the monotonic clock */
  requested(forwarder: Forwarder): number {
    const now = performance.now();
    if (this.#requestSince === 0) this.#requestSince = now;
    this.queries += forwarder.queries - this.#counted;
    this.#counted = forwarder.queries;
    this.#requestAt = now;
    return now;
  }

  /** What was sent was not answered and will be sent anew: until then nothing is in flight. */
  takenBack(): void {
    this.#requestSince = 0;
    this.#timedOut = false;
  }

  /** Everything sent was answered. */
  answered(transactionEnded: boolean, forwarder: Forwarder, pool: Pool | null): void {
    const now = performance.now();
    const queryMs = this.#requestSince === 0 ? 0 : now - this.#requestSince;
    this.queryMs += queryMs;
    this.#requestSince = 0;
    this.#answeredAt = now;
    this.#timedOut = false;
    if (pool === null) return;
    const total = pool.counters;
    total.queryMs += queryMs;
    total.queries += forwarder.queries - this.#reported;
    this.#reported = forwarder.queries;
    total.parses += forwarder.parses - this.#parses;
    total.binds += forwarder.binds - this.#binds;
    this.#parses = forwarder.parses;
    this.#binds = forwarder.binds;
    if (!transactionEnded) return;
    this.transactions += 1;
    total.transactions += 1;
    const transactionMs = now - this.#transactionSince;
    this.transactionMs += transactionMs;
    total.transactionMs += transactionMs;
    this.#transactionSince = 0;
  }
}
