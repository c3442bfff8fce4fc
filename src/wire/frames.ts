/**
 * One task: find where one PostgreSQL message ends and the next begins, and nothing else.
 *
 * Contract: only headers are read (a type byte and a length, PostgreSQL documentation, 54.1); bodies are neither decoded nor
 * copied. Every length is checked against the limit of its type before a byte of the body is waited for; a type without
 * a limit is refused. A frame is handed on whole, except where its type may be *streamed*: then the part that has arrived
 * is handed on first and the rest, as it comes, as continuations.
 */

/** Bytes of a header: type and length. */
export const HEADER_BYTES = 5;
const EMPTY = Buffer.alloc(0);
const WHOLE_ONLY = 0xffff_ffff;

/** What one side of a conversation may send, by type byte. */
export interface FrameRules {
  /** longest length field accepted; 0 = the type is refused */
  readonly lengthMax: Uint32Array;
  /** bytes of a frame that must have arrived before it may be handed on in parts */
  readonly streamFrom: Uint32Array;
}

export interface FrameRule {
  readonly types: string;
  readonly lengthMax: number;
  /** absent: this type is always handed on whole */
  readonly streamFrom?: number;
}

/** Compiles rules into the tables that the scanner reads. A later rule overrides an earlier one. */
export function frameRules(rules: readonly FrameRule[]): FrameRules {
  const lengthMax = new Uint32Array(256);
  const streamFrom = new Uint32Array(256).fill(WHOLE_ONLY);
  for (const rule of rules) {
    for (const type of Buffer.from(rule.types, 'latin1')) {
      lengthMax[type] = rule.lengthMax;
      streamFrom[type] = rule.streamFrom ?? WHOLE_ONLY;
    }
  }
  return { lengthMax, streamFrom };
}

/** The bytes are not PostgreSQL messages; the stream has no next frame and must be closed. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
}

/**
 * A cursor over a stream of messages.
 *
 * ```ts
 * scanner.feed(chunk);
 * const buffer = scanner.buffer; // stays valid after the last peek()
 * while (scanner.peek()) {
 *   use(scanner.type, buffer, scanner.start, scanner.end);
 *   scanner.consume();
 * }
 * ```
 */
export class FrameScanner {
  /** what start and end refer to; replaced by feed(), emptied when peek() has to wait for more */
  buffer: Buffer = EMPTY;
  /** type byte of the current frame, also in its continuations */
  type = 0;
  start = 0;
  /** end of what has arrived of the current frame */
  end = 0;
  /** bytes of the whole current frame with its header */
  length = 0;
  /** the bytes from start to end continue a frame whose beginning was handed on before */
  continued = false;
  #rules: FrameRules;
  #position = 0;
  /** bytes of a streamed frame that are not consumed yet */
  #rest = 0;
  #peeked = false;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #neededBytes = 0;

  constructor(rules: FrameRules) {
    this.#rules = rules;
  }

  /** index of the first byte of `buffer` that is not consumed */
  get position(): number {
    return this.#position;
  }

  /** bytes held back: not consumed yet, or waiting for the rest of their frame */
  get unreadBytes(): number {
    return this.buffer.length - this.#position + this.#waitingBytes;
  }

  /** true when peek() has found the beginning of a frame that must come whole: without more bytes nothing goes on */
  get awaitsRest(): boolean {
    return this.#waitingBytes > 0;
  }

  /** bytes, from its beginning on, of a frame that peek() waits for; 0 when it waits for none */
  get neededBytes(): number {
    return this.awaitsRest ? this.#neededBytes : 0;
  }

  /** true between the first part of a streamed frame and its last */
  get insideFrame(): boolean {
    return this.#rest > 0;
  }

  /** Waits until so many bytes are there before peek() shows anything: who needs the next frames whole need not look in between. */
  hold(bytes: number): void {
    if (!this.awaitsRest && this.unreadBytes < bytes) this.#wait(bytes);
  }

  /** Adds bytes at the end. Copies only when a frame was cut by the end of the bytes before. */
  feed(chunk: Buffer): void {
    if (this.#waitingBytes === 0) {
      const rest = this.#position < this.buffer.length ? this.buffer.subarray(this.#position) : null;
      this.#replace(rest === null ? chunk : Buffer.concat([rest, chunk]));
      return;
    }
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes >= this.#neededBytes) this.#gather();
  }

  /** Copies what is held back: the bytes fed last may be overwritten after it. To be called behind each feed() of such bytes. */
  detach(): void {
    const last = this.#waiting.pop();
    if (last !== undefined) this.#waiting.push(Buffer.from(last));
    else if (this.#position < this.buffer.length) this.#replace(Buffer.from(this.buffer.subarray(this.#position)));
  }

  /** Lets go of what was fed, where all of it is consumed: whoever waits long for more need not keep it. */
  release(): void {
    if (this.#position === this.buffer.length && !this.#peeked) this.#replace(EMPTY);
  }

  /** Puts bytes before everything unread, as if they had not been consumed; only between two frames. */
  unshift(bytes: Buffer): void {
    this.#gather();
    this.#replace(Buffer.concat([bytes, this.buffer.subarray(this.#position)]));
  }

  /**
   * Looks at the next frame; may be called again and gives the same one until consume().
   *
   * @returns false when more bytes are needed
   * @throws FrameError when the type or the length is not acceptable
   */
  peek(): boolean {
    if (this.#peeked) return true;
    const available = this.buffer.length - this.#position;
    if (available === 0) return false;
    if (this.#rest > 0) return this.#continue(available);
    if (available < HEADER_BYTES) return this.#wait(HEADER_BYTES);
    const buffer = this.buffer;
    const at = this.#position;
    const type = buffer[at] ?? 0;
    const declared = buffer.readUInt32BE(at + 1);
    if (declared < 4 || declared > (this.#rules.lengthMax[type] ?? 0)) throw unacceptable(type, declared);
    const length = declared + 1;
    if (available < length) {
      const enough = this.#rules.streamFrom[type] ?? WHOLE_ONLY;
      if (available < enough) return this.#wait(Math.min(length, enough));
    }
    this.type = type;
    this.start = at;
    this.end = at + Math.min(length, available);
    this.length = length;
    this.continued = false;
    this.#peeked = true;
    return true;
  }

  /** Moves behind the frame, or the part of it, that peek() showed. */
  consume(): void {
    if (this.continued) this.#rest -= this.end - this.start;
    else this.#rest = this.length - (this.end - this.start);
    this.#position = this.end;
    this.#peeked = false;
  }

  #continue(available: number): boolean {
    this.start = this.#position;
    this.end = this.start + Math.min(available, this.#rest);
    this.continued = true;
    this.#peeked = true;
    return true;
  }

  #wait(bytes: number): false {
    const rest = this.buffer.subarray(this.#position);
    this.#waiting.push(rest);
    this.#waitingBytes = rest.length;
    this.#neededBytes = bytes;
    this.#replace(EMPTY);
    return false;
  }

  #gather(): void {
    if (this.#waitingBytes === 0) return;
    this.#replace(Buffer.concat(this.#waiting, this.#waitingBytes));
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  #replace(buffer: Buffer): void {
    this.buffer = buffer;
    this.#position = 0;
    this.#peeked = false;
  }
}

function unacceptable(type: number, length: number): FrameError {
  const shown = type >= 0x21 && type <= 0x7e ? `"${String.fromCharCode(type)}"` : `0x${type.toString(16)}`;
  return new FrameError(`invalid message of type ${shown} with length ${length.toString()}`);
}
