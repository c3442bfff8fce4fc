/**
 * One task: cut what a client sends for COPY FROM STDIN into rows, in binary format, wherever its messages end.
 *
 * A header, then for each row the number of its fields and for each field its length and its bytes, then a trailer (PostgreSQL
 * documentation, COPY, "Binary Format"). Header and trailer are every shard's.
 */
import { ROW_BYTES_MAX, TOO_LONG, type CopyPiece, type CopyRows } from './copy-rows.js';

const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
const FLAGS_BYTES = 4;
const LENGTH_BYTES = 4;
const COUNT_BYTES = 2;
const HEADER_BYTES = SIGNATURE.length + FLAGS_BYTES + LENGTH_BYTES;
const TRAILER = -1;
const NOTHING = Buffer.alloc(0);

export interface BinaryFormat {
  readonly kind: 'binary';
  /** index of the sharding column */
  readonly keyIndex: number;
  /** number of columns */
  readonly columns: number;
}

export class CopyTuples implements CopyRows {
  readonly #format: BinaryFormat;
  #stage: 'header' | 'rows' | 'trailer' | 'over' = 'header';
  /** what has not been cut yet */
  #begun: Buffer[] = [];
  #begunBytes = 0;
  /** without so many bytes nothing can be cut */
  #needed = HEADER_BYTES;

  constructor(format: BinaryFormat) {
    this.#format = format;
  }

  push(chunk: Buffer): readonly CopyPiece[] {
    const pieces: CopyPiece[] = [];
    if (this.#stage === 'over') return pieces;
    this.#begun.push(chunk);
    this.#begunBytes += chunk.length;
    if (this.#begunBytes >= this.#needed) this.#cut(pieces, Buffer.concat(this.#begun));
    return pieces;
  }

  end(): readonly CopyPiece[] {
    const pieces: CopyPiece[] = [];
    // Without a trailer the end is the end, as for PostgreSQL.
    if (this.#stage !== 'over' && (this.#stage === 'header' || this.#begunBytes > 0))
      this.#stop(pieces, Buffer.concat(this.#begun), 'it ends in the middle');
    return pieces;
  }

  #cut(pieces: CopyPiece[], bytes: Buffer): void {
    let from = 0;
    for (let used = this.#next(pieces, bytes); used > 0; used = this.#next(pieces, bytes.subarray(from))) from += used;
    const rest = bytes.subarray(from);
    this.#begun = [rest];
    this.#begunBytes = rest.length;
    if (this.#needed > ROW_BYTES_MAX) this.#stop(pieces, NOTHING, TOO_LONG);
  }

  /** Cuts off the first piece. @returns its bytes; 0: it has not come whole, and `#needed` says what it takes */
  #next(pieces: CopyPiece[], bytes: Buffer): number {
    this.#needed = 1;
    switch (this.#stage) {
      case 'header':
        return this.#header(pieces, bytes);
      case 'rows':
        return this.#row(pieces, bytes);
      case 'trailer':
        if (bytes.length > 0) this.#stop(pieces, NOTHING, 'there is more behind its trailer');
        return 0;
      case 'over':
        return 0;
    }
  }

  #header(pieces: CopyPiece[], bytes: Buffer): number {
    if (bytes.length < HEADER_BYTES) return this.#wants(HEADER_BYTES);
    const extension = bytes.readInt32BE(HEADER_BYTES - LENGTH_BYTES);
    if (!bytes.subarray(0, SIGNATURE.length).equals(SIGNATURE) || extension < 0)
      return this.#stop(pieces, bytes, 'its header is not that of a binary COPY');
    const end = HEADER_BYTES + extension;
    if (bytes.length < end) return this.#wants(end);
    this.#stage = 'rows';
    pieces.push({ kind: 'all', bytes: bytes.subarray(0, end) });
    return end;
  }

  #row(pieces: CopyPiece[], bytes: Buffer): number {
    if (bytes.length < COUNT_BYTES) return this.#wants(COUNT_BYTES);
    const count = bytes.readInt16BE(0);
    if (count === TRAILER) {
      this.#stage = 'trailer';
      pieces.push({ kind: 'all', bytes: bytes.subarray(0, COUNT_BYTES) });
      return COUNT_BYTES;
    }
    if (count !== this.#format.columns)
      return this.#stop(pieces, bytes.subarray(0, COUNT_BYTES), 'a row has another number of columns');
    let key: Buffer | null = null;
    let at = COUNT_BYTES;
    for (let field = 0; field < count; field += 1) {
      if (bytes.length < at + LENGTH_BYTES) return this.#wants(at + LENGTH_BYTES);
      const length = bytes.readInt32BE(at);
      at += LENGTH_BYTES;
      if (length < -1) return this.#stop(pieces, bytes.subarray(0, at), 'the length of a value is negative');
      const end = at + Math.max(0, length);
      if (bytes.length < end) return this.#wants(end);
      if (field === this.#format.keyIndex && length >= 0) key = bytes.subarray(at, end);
      at = end;
    }
    pieces.push({ kind: 'row', bytes: bytes.subarray(0, at), key });
    return at;
  }

  #wants(bytes: number): 0 {
    this.#needed = bytes;
    return 0;
  }

  #stop(pieces: CopyPiece[], bytes: Buffer, problem: string): 0 {
    this.#stage = 'over';
    this.#needed = 1;
    pieces.push({ kind: 'unreadable', bytes, problem });
    return 0;
  }
}
