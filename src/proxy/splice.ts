/** One task: put other bytes in the place of parts of a buffer, and give all of it out as one. */
import { Buffer } from 'node:buffer';

const EMPTY = Buffer.alloc(0);
/** Up to so many bytes are copied one by one: a call of the runtime takes longer. */
const SHORT_BYTES = 64;

export class Splice {
  /** of what comes out, so far */
  bytes = 0;
  /** something was put in or left out: otherwise what comes out is what the buffer has */
  touched = false;
  #buffer: Buffer = EMPTY;
  /** beginning of what is not among the parts yet */
  #from = 0;
  /** parts by number: where their bytes are; the arrays are kept, so that nothing is allocated for the next splice */
  readonly #sources: Buffer[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  #count = 0;

  begin(buffer: Buffer, from: number): void {
    this.#buffer = buffer;
    this.#from = from;
  }

  /** Puts bytes, or nothing, in the place of what is there from `start` to `end`; to be called from the beginning to the end. */
  replace(start: number, end: number, replacement?: Buffer): void {
    this.#add(this.#buffer, this.#from, start);
    if (replacement !== undefined) this.#add(replacement, 0, replacement.length);
    this.#from = end;
    this.touched = true;
  }

  /** What is left up to `end` comes out too. */
  finish(end: number): void {
    this.#add(this.#buffer, this.#from, end);
  }

  /** Everything in a new buffer, once. To be called behind finish(). */
  joined(): Buffer {
    const joined = Buffer.allocUnsafe(this.bytes);
    let at = 0;
    for (let part = 0; part < this.#count; part += 1) {
      const source = this.#sources[part] ?? EMPTY;
      const start = this.#starts[part] ?? 0;
      const end = this.#ends[part] ?? 0;
      if (end - start > SHORT_BYTES) source.copy(joined, at, start, end);
      else for (let byte = start; byte < end; byte += 1) joined[at + byte - start] = source[byte] ?? 0;
      at += end - start;
    }
    this.#clear();
    return joined;
  }

  /** Everything where it is, once. To be called behind finish(). */
  pieces(): readonly Buffer[] {
    const pieces = this.#sources
      .slice(0, this.#count)
      .map((source, part) => source.subarray(this.#starts[part], this.#ends[part]));
    this.#clear();
    return pieces;
  }

  #add(source: Buffer, start: number, end: number): void {
    if (start >= end) return;
    this.#sources[this.#count] = source;
    this.#starts[this.#count] = start;
    this.#ends[this.#count] = end;
    this.#count += 1;
    this.bytes += end - start;
  }

  #clear(): void {
    for (let part = 0; part < this.#count; part += 1) this.#sources[part] = EMPTY;
    this.#buffer = EMPTY;
    this.#count = 0;
    this.bytes = 0;
    this.touched = false;
  }
}
