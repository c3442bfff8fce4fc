/**
 * One task: the ledger application: clients that stay connected while their database moves, and remember every answer.
 *
 * Writers transfer money in explicit transactions and insert rows in autocommit, each statement in the simple protocol,
 * the extended one, or as a prepared statement in turn. What was acknowledged is kept in this process, outside the
 * database; `compare.ts` holds the database against it.
 */
import { invariant } from '../../errors/invariant.js';
import type { Endpoint } from '../../postgres/endpoint.js';
import { Book, nowMs, type AcknowledgedWrite, type Refusal, type UnknownWrite } from './book.js';
import type { ClientContext } from './client.js';
import { runClients } from './clients.js';
import { ACCOUNTS } from './prepare.js';
import { reader, type ReaderStatistics } from './reader.js';
import { writer } from './writer.js';
import { writeOfTurn, type Write } from './writes.js';

export type { AcknowledgedWrite, Refusal, UnknownWrite } from './book.js';
export type { ReaderStatistics } from './reader.js';

export interface LedgerOptions {
  /** where the application connects: a proxy, a server, or several nodes among which its clients are spread */
  readonly endpoint: Endpoint | readonly Endpoint[];
  /** default 8 */
  readonly writers?: number;
  /** pause of every client between two turns; default 2 ms, 0 = none */
  readonly thinkMs?: number;
  /** how many of the prepared extra tables are written; default 0 */
  readonly writtenTables?: number;
  /** what a writer of this name writes in its turn 0, 1, …; default: `writes.ts` */
  readonly writeOfTurn?: (turn: number, writer: string) => Write;
  /** the application ends by itself after this time; default 30 minutes */
  readonly deadlineMs?: number;
  /** a file to which every acknowledged token is appended as a line */
  readonly file?: string;
}

/** Times given and taken are milliseconds since 1970. */
export interface Ledger {
  /** in the order of their acknowledgement */
  readonly acknowledged: readonly AcknowledgedWrite[];
  /** every error a client saw, logins and reads included */
  readonly refused: readonly Refusal[];
  readonly unknown: readonly UnknownWrite[];
  readonly reader: ReaderStatistics;
  /** longest time between two consecutive acknowledged writes of all writers */
  readonly longestGapMs: number;
  /** longest wait of any client, the reader included, for the answer to one statement */
  readonly longestStallMs: number;
  longestGapBetween(fromMs: number, toMs: number): number;
  /** longest wait of a writer, of the writes acknowledged in the window */
  longestStallBetween(fromMs: number, toMs: number): number;
  acknowledgedBetween(fromMs: number, toMs: number): number;
  /** Lets every client finish its turn and disconnects; who is still held after 10 s is cut off. May be called again. */
  stop(): Promise<void>;
}

const WRITERS = 8;
const THINK_MS = 2;
const DEADLINE_MS = 30 * 60_000;

/**
 * Starts the writers and the reader; resolves once all of them are connected. The schema is `prepareLedger`'s.
 *
 * @throws Error when a client cannot log in
 */
export async function startLedger(options: LedgerOptions): Promise<Ledger> {
  const book = new Book(options.file);
  const endsAtMs = nowMs() + (options.deadlineMs ?? DEADLINE_MS);
  let stopping = false;
  const endpoints = [options.endpoint].flat();
  const context = (name: string, index: number): ClientContext => ({
    name,
    endpoint: endpointAt(endpoints, index),
    book,
    thinkMs: options.thinkMs ?? THINK_MS,
    ended: () => stopping || nowMs() >= endsAtMs,
  });
  const mix = { accounts: ACCOUNTS, writtenTables: options.writtenTables ?? 0 };
  const chosen = options.writeOfTurn ?? ((turn, name) => writeOfTurn(turn, name, mix));
  const writers = Array.from({ length: options.writers ?? WRITERS }, (_, index) =>
    writer(context(`ledger writer ${(index + 1).toString()}`, index), chosen),
  );
  const { client, statistics } = reader(context('ledger reader', writers.length));
  const running = await runClients([...writers, client], book, () => {
    stopping = true;
  });
  return new RunningLedger(book, statistics, () => running.stop());
}

function endpointAt(endpoints: readonly Endpoint[], index: number): Endpoint {
  const endpoint = endpoints[index % endpoints.length];
  invariant(endpoint, 'the ledger connects somewhere');
  return endpoint;
}

class RunningLedger implements Ledger {
  readonly reader: ReaderStatistics;
  readonly stop: () => Promise<void>;
  readonly #book: Book;

  constructor(book: Book, statistics: ReaderStatistics, stop: () => Promise<void>) {
    this.#book = book;
    this.reader = statistics;
    this.stop = stop;
  }

  get acknowledged(): readonly AcknowledgedWrite[] {
    return this.#book.acknowledged;
  }

  get refused(): readonly Refusal[] {
    return this.#book.refused;
  }

  get unknown(): readonly UnknownWrite[] {
    return this.#book.unknown;
  }

  get longestGapMs(): number {
    return this.longestGapBetween(0, Infinity);
  }

  get longestStallMs(): number {
    return Math.max(this.longestStallBetween(0, Infinity), this.reader.longestStallMs);
  }

  longestGapBetween(fromMs: number, toMs: number): number {
    return this.#book.longestGapBetween(fromMs, toMs);
  }

  longestStallBetween(fromMs: number, toMs: number): number {
    return this.#book.longestStallBetween(fromMs, toMs);
  }

  acknowledgedBetween(fromMs: number, toMs: number): number {
    return this.#book.acknowledgedBetween(fromMs, toMs);
  }
}
