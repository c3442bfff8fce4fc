/** One task: keep, outside the database, what the database answered to every write, and when. */
import { closeSync, openSync, writeSync } from 'node:fs';

/** A write whose commit a client has seen. Times are in milliseconds since 1970, from a clock that never steps back. */
export interface AcknowledgedWrite {
  readonly token: string;
  /** where the token is found */
  readonly table: string;
  readonly atMs: number;
  readonly client: string;
  /** longest time the client waited for the answer to one statement of this write */
  readonly longestStatementMs: number;
}

/** A statement that was answered with an error, or a connection lost where nothing can have been committed. */
export interface Refusal {
  readonly atMs: number;
  readonly client: string;
  /** the write it belonged to; absent for reads and logins */
  readonly token?: string;
  /** absent when the connection broke without an answer */
  readonly sqlstate?: string;
  readonly message: string;
}

/** A write whose commit was sent and never answered: it may or may not be there. */
export interface UnknownWrite {
  readonly token: string;
  readonly atMs: number;
  readonly client: string;
  readonly message: string;
}

/** Milliseconds since 1970 with fractions; unlike Date.now() it never steps back. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

export class Book {
  readonly acknowledged: AcknowledgedWrite[] = [];
  readonly refused: Refusal[] = [];
  readonly unknown: UnknownWrite[] = [];
  readonly #startedAtMs = nowMs();
  #endedAtMs: number | undefined;
  #file: number | undefined;

  /** @param file is given each acknowledged token as a line, before the writer goes on */
  constructor(file?: string) {
    if (file !== undefined) this.#file = openSync(file, 'a');
  }

  acknowledge(write: AcknowledgedWrite): void {
    this.acknowledged.push(write);
    if (this.#file !== undefined) writeSync(this.#file, `${write.token}\n`);
  }

  /** No answer comes after this; may be called again. */
  close(): void {
    this.#endedAtMs ??= nowMs();
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  /** how many writes were acknowledged at `fromMs` or later and before `toMs` */
  acknowledgedBetween(fromMs: number, toMs: number): number {
    return this.#firstAtOrAfter(toMs) - this.#firstAtOrAfter(fromMs);
  }

  /**
   * The longest time between two consecutive acknowledged writes that touches the window. The start and the end of the
   * run count as acknowledgements, so that a database that stopped answering is a long gap and not a short list.
   */
  longestGapBetween(fromMs: number, toMs: number): number {
    const end = this.#endedAtMs ?? nowMs();
    const last = this.#firstAtOrAfter(toMs);
    let previous = this.#at(this.#firstAtOrAfter(fromMs) - 1) ?? this.#startedAtMs;
    let longest = 0;
    for (let index = this.#firstAtOrAfter(fromMs); index <= last; index += 1) {
      const next = this.#at(index) ?? Math.max(end, previous);
      longest = Math.max(longest, next - previous);
      previous = next;
    }
    return longest;
  }

  /** The longest time a writer waited for the answer to one statement of a write acknowledged in the window. */
  longestStallBetween(fromMs: number, toMs: number): number {
    const writes = this.acknowledged.slice(this.#firstAtOrAfter(fromMs), this.#firstAtOrAfter(toMs));
    return writes.reduce((longest, write) => Math.max(longest, write.longestStatementMs), 0);
  }

  #at(index: number): number | undefined {
    return this.acknowledged[index]?.atMs;
  }

  /** Binary search: writes are kept in the order of their acknowledgement. */
  #firstAtOrAfter(atMs: number): number {
    let low = 0;
    let high = this.acknowledged.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#at(middle) ?? Infinity) < atMs) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
