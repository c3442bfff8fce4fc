/**
 * One task: cut what a client sends for COPY FROM STDIN into rows, in text and CSV format, wherever its messages end.
 *
 * Lines end as PostgreSQL ends them (CopyReadLineText in copyfromparse.c): the first line says how all end, a backslash (text) or quotes
 * (CSV) hide an end. What PostgreSQL would refuse for its place among other lines is refused here: a shard sees only some of them.
 */
import { csvField, textField, type FieldFormat } from './copy-fields.js';

export interface LineFormat extends FieldFormat {
  readonly kind: 'text' | 'csv';
  /** the first line is not a row */
  readonly header: boolean;
  /** `\.` on a line of its own in CSV: the end before PostgreSQL 18, a row since; the shards may differ */
  readonly csvMarker: 'end' | 'row' | 'unclear';
}

/** What the shards get of a COPY, in order. */
export type CopyPiece =
  /** for every shard: what stands before or behind the rows */
  | { readonly kind: 'all'; readonly bytes: Buffer }
  /** `key`: as its type writes it in text, or its bytes in binary format; null: NULL */
  | { readonly kind: 'row'; readonly bytes: Buffer; readonly key: Buffer | null }
  /** cannot be placed: the last piece; a server may say better what is wrong with `bytes`, if there are any */
  | { readonly kind: 'unreadable'; readonly bytes: Buffer; readonly problem: string };

export interface CopyRows {
  /** Takes the next bytes, which may end anywhere. */
  push(chunk: Buffer): readonly CopyPiece[];
  /** The client has sent all. */
  end(): readonly CopyPiece[];
}

/** As long as the longest message of the proxy's own: a row is kept until its end has come. */
export const ROW_BYTES_MAX = 16 * 1024 * 1024;
export const TOO_LONG = `a row is longer than ${ROW_BYTES_MAX.toString()} bytes`;

const NEWLINE = 0x0a;
const RETURN = 0x0d;
const BACKSLASH = 0x5c;
const DOT = 0x2e;
const NOTHING = Buffer.alloc(0);
const END_MARKER = Buffer.from('\\.');

/** What a byte means for the line it stands in. `before`: the line has ended before it. */
const STEP = { goesOn: 0, ends: 1, before: 2, wrong: 3 } as const;
type Step = (typeof STEP)[keyof typeof STEP];

export class CopyLines implements CopyRows {
  readonly #format: LineFormat;
  readonly #csv: boolean;
  /** that counts inside quotes; -1: none, since a quote that is its own escape is only a toggle */
  readonly #escape: number;
  #ending: 'unknown' | 'newline' | 'return' | 'both' = 'unknown';
  /** the byte before was a backslash that hides this one (text) */
  #hidden = false;
  #quoted = false;
  #escaped = false;
  /** a carriage return that may be the end of the line, or its first half */
  #afterReturn = false;
  /** `\.` stands in the line */
  #marker = false;
  #headerAhead: boolean;
  /** the beginning of a line whose end has not come */
  #begun: Buffer[] = [];
  #begunBytes = 0;
  /** the rest is not looked at */
  #over = false;

  constructor(format: LineFormat) {
    this.#format = format;
    this.#csv = format.kind === 'csv';
    this.#escape = format.escape === format.quote ? -1 : format.escape;
    this.#headerAhead = format.header;
  }

  push(chunk: Buffer): readonly CopyPiece[] {
    const pieces: CopyPiece[] = [];
    let from = 0;
    for (let at = 0; at < chunk.length && !this.#over; at += 1) {
      const byte = chunk[at] ?? 0;
      let step = this.#step(byte);
      if (step === STEP.before) {
        if (!this.#line(pieces, chunk.subarray(from, at))) break;
        from = at;
        step = this.#step(byte);
      }
      if (step === STEP.ends) {
        this.#line(pieces, chunk.subarray(from, at + 1));
        from = at + 1;
      } else if (step === STEP.wrong) this.#stop(pieces, NOTHING, 'its lines do not all end alike');
    }
    if (!this.#over) this.#keep(pieces, chunk.subarray(from));
    return pieces;
  }

  end(): readonly CopyPiece[] {
    const pieces: CopyPiece[] = [];
    if (this.#over) return pieces;
    if (this.#afterReturn && this.#ending === 'both') this.#stop(pieces, NOTHING, 'its lines do not all end alike');
    else if (this.#afterReturn) {
      this.#ending = 'return';
      this.#line(pieces, NOTHING);
    } else if (this.#begunBytes > 0) this.#unended(pieces);
    return pieces;
  }

  /** The last line, without an end of its own. */
  #unended(pieces: CopyPiece[]): void {
    const bytes = Buffer.concat(this.#begun);
    if (this.#hidden || this.#quoted || (this.#marker && !this.#csv))
      this.#stop(pieces, bytes, 'its last line is cut off');
    else pieces.push(this.#headerAhead ? { kind: 'all', bytes } : this.#row(bytes, bytes));
  }

  #step(byte: number): Step {
    if (this.#afterReturn) return this.#second(byte);
    if (this.#csv) this.#noteQuotes(byte);
    else if (this.#hidden) {
      this.#hidden = false;
      if (byte === DOT) this.#marker = true;
      return STEP.goesOn;
    } else if (byte === BACKSLASH) {
      this.#hidden = true;
      return STEP.goesOn;
    }
    if ((byte !== NEWLINE && byte !== RETURN) || this.#quoted) return STEP.goesOn;
    if (byte === NEWLINE) {
      if (this.#ending === 'unknown') this.#ending = 'newline';
      return this.#ending === 'newline' ? STEP.ends : STEP.wrong;
    }
    if (this.#ending === 'newline') return STEP.wrong;
    if (this.#ending === 'return') return STEP.ends;
    this.#afterReturn = true;
    return STEP.goesOn;
  }

  /** The byte behind a carriage return, where lines end with a newline as well, or nobody knows yet. */
  #second(byte: number): Step {
    this.#afterReturn = false;
    if (byte === NEWLINE) {
      this.#ending = 'both';
      return STEP.ends;
    }
    if (this.#ending === 'both') return STEP.wrong;
    this.#ending = 'return';
    return STEP.before;
  }

  #noteQuotes(byte: number): void {
    if (this.#quoted && byte === this.#escape) this.#escaped = !this.#escaped;
    if (byte === this.#format.quote && !this.#escaped) this.#quoted = !this.#quoted;
    if (byte !== this.#escape) this.#escaped = false;
  }

  /** A line has come to its end. @returns false when the rest is not looked at */
  #line(pieces: CopyPiece[], rest: Buffer): boolean {
    const bytes = this.#begunBytes === 0 ? rest : Buffer.concat([...this.#begun, rest]);
    const content = bytes.subarray(0, bytes.length - (this.#ending === 'both' ? 2 : 1));
    this.#begun = [];
    this.#begunBytes = 0;
    const marker = (this.#csv || this.#marker) && content.equals(END_MARKER);
    const means = this.#csv ? this.#format.csvMarker : 'end';
    if (marker && means === 'end') this.#over = true;
    else if (marker && means === 'unclear') this.#stop(pieces, NOTHING, '\\. means another thing on each shard');
    else if (this.#marker) this.#stop(pieces, bytes, '\\. is not alone on its line');
    else if (bytes.length > ROW_BYTES_MAX) this.#stop(pieces, NOTHING, TOO_LONG);
    else if (this.#headerAhead) {
      this.#headerAhead = false;
      pieces.push({ kind: 'all', bytes });
    } else this.#add(pieces, this.#row(bytes, content));
    return !this.#over;
  }

  #add(pieces: CopyPiece[], piece: CopyPiece): void {
    pieces.push(piece);
    if (piece.kind === 'unreadable') this.#over = true;
  }

  #row(bytes: Buffer, content: Buffer): CopyPiece {
    const key = this.#csv ? csvField(content, this.#format) : textField(content, this.#format);
    if (key === undefined) return { kind: 'unreadable', bytes, problem: 'a row has no sharding key' };
    return { kind: 'row', bytes, key };
  }

  #stop(pieces: CopyPiece[], bytes: Buffer, problem: string): void {
    this.#add(pieces, { kind: 'unreadable', bytes, problem });
  }

  #keep(pieces: CopyPiece[], rest: Buffer): void {
    if (rest.length === 0) return;
    this.#begun.push(rest);
    this.#begunBytes += rest.length;
    if (this.#begunBytes > ROW_BYTES_MAX) this.#stop(pieces, NOTHING, TOO_LONG);
  }
}
