/**
 * One task: find, by its bytes alone, what was kept of a Query that differs at most in the one integer in its text.
 *
 * Applications send the same few texts again and again, with another number. What is found here is not decoded, taken apart or looked up.
 */
import { HEADER_BYTES } from '../wire/frames.js';

const KNOWN_MAX = 16;
/** A longer text is not kept. */
export const BYTES_MAX = 2_048;
/** So many have room in 31 bits, whatever they are: then the literal is of the same kind each time (statement-template.ts). */
const DIGITS_MAX = 9;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;

interface Text<Kept> {
  readonly head: Buffer;
  /** with the zero byte at its end */
  readonly tail: Buffer;
  readonly kept: Kept;
}

export class KnownQueries<Kept> {
  /** in the text that was found last */
  number = 0;
  readonly #texts = new Recent<Text<Kept>>();

  /**
   * What was kept of the Query from `at` to `end`, which has come whole; null: nothing. Its integer is in `number` then.
   *
   * @param holds whether what was kept of a text holds for this client
   */
  find(buffer: Buffer, at: number, end: number, holds: (kept: Kept) => boolean): Kept | null {
    return this.#texts.find((text) => this.#isIt(text, buffer, at, end) && holds(text.kept))?.kept ?? null;
  }

  /**
   * @param start where a literal begins in the text that is an integer without a sign, by the rules of statement-template.ts; UTF-16 code
   * units
   */
  keep(text: string, start: number, end: number, kept: Kept): void {
    // One with more digits would not be found.
    if (text.length > BYTES_MAX || end - start > DIGITS_MAX) return;
    this.#texts.add({ head: Buffer.from(text.slice(0, start)), tail: Buffer.from(`${text.slice(end)}\0`), kept });
  }

  #isIt({ head, tail }: Text<Kept>, buffer: Buffer, at: number, end: number): boolean {
    const from = at + HEADER_BYTES + head.length;
    const to = end - tail.length;
    if (to <= from || to - from > DIGITS_MAX || !isAt(head, buffer, at + HEADER_BYTES)) return false;
    if (!isAt(tail, buffer, to)) return false;
    this.number = numberAt(buffer, from, to);
    return this.number >= 0;
  }
}

/** The number that these bytes are the digits of, nine of them at most; -1: they are something else. */
export function numberAt(buffer: Buffer, from: number, to: number): number {
  if (to <= from || to - from > DIGITS_MAX) return -1;
  let number = 0;
  for (let at = from; at < to; at += 1) {
    const byte = buffer[at] ?? 0;
    if (byte < DIGIT_0 || byte > DIGIT_9) return -1;
    number = number * 10 + byte - DIGIT_0;
  }
  return number;
}

/** A few, of which the one that was found last is looked at first. */
export class Recent<Entry> {
  readonly #entries: Entry[] = [];
  #last = 0;
  #oldest = 0;

  find(matches: (entry: Entry) => boolean): Entry | null {
    const last = this.#entries[this.#last];
    if (last !== undefined && matches(last)) return last;
    const at = this.#entries.findIndex(matches);
    if (at < 0) return null;
    this.#last = at;
    return this.#entries[at] ?? null;
  }

  add(entry: Entry): void {
    this.#entries[this.#oldest] = entry;
    this.#last = this.#oldest;
    this.#oldest = (this.#oldest + 1) % KNOWN_MAX;
  }
}

/** Where the message ends that begins there; 0: it has not come whole, or is none. */
export function endOf(buffer: Buffer, at: number): number {
  if (at + HEADER_BYTES > buffer.length) return 0;
  const end = at + 1 + buffer.readUInt32BE(at + 1);
  return end < at + HEADER_BYTES || end > buffer.length ? 0 : end;
}

/** Whether these bytes stand there. */
export function isAt(bytes: Buffer, buffer: Buffer, from: number): boolean {
  // The ends of two statements are less alike than their beginnings.
  for (let at = bytes.length - 1; at >= 0; at -= 1) if (bytes[at] !== buffer[from + at]) return false;
  return true;
}
