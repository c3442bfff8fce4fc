/**
 * One task: know which answers a server still owes, in order.
 *
 * Every message sent that will be answered has one entry. An error takes away what the server skips: everything up to the next
 * Sync (PostgreSQL documentation, 54.2.3). Taken-away entries are undone, last first, so that what was noted when a
 * message was sent (a statement prepared, a name closed) is as if it never was.
 */

import { FrameError } from '../wire/frames.js';

export const REPLY = {
  none: 0,
  /** Query or FunctionCall: ends with ReadyForQuery */
  query: 1,
  /** a Query of the proxy's own, not shown to the client */
  setup: 2,
  parse: 3,
  injectedParse: 4,
  bind: 5,
  injectedBind: 6,
  describe: 7,
  execute: 8,
  close: 9,
  injectedClose: 10,
  sync: 11,
  /** not sent to the server: ParseComplete is due to the client when everything before is answered */
  sayParseComplete: 12,
  /** as above, CloseComplete */
  sayCloseComplete: 13,
  /** CopyDone or CopyFail: has no answer, but Syncs before it are ignored by a server in COPY */
  copyEnd: 14,
} as const;

export type Reply = (typeof REPLY)[keyof typeof REPLY];

/** Answered entries kept before the queue is shortened. An array that is made empty by its length is allocated anew at the next entry. */
const COMPACT_AT = 1_024;

/** What to take back when a message was skipped or failed. */
export interface Undo {
  undo(): void;
}

export class ReplyQueue {
  #kinds: Reply[] = [];
  #undos: (Undo | null)[] = [];
  /** the entries from here to `#end` are owed; what lies outside means nothing */
  #at = 0;
  #end = 0;
  /** an error was reported and the Sync that ends the skipping is not sent yet */
  #skipping = false;
  /** messages of the extended protocol were sent and the Sync that ends them was not: what they did is not committed yet */
  #unsynced = false;
  /** a command of the Query at the head has come to its end, or has failed */
  ended = false;
  /** the server waits for CopyData */
  copyIn = false;
  /** Syncs sent so far: messages between two of them are one batch, and an error ends at most one */
  syncs = 0;
  /** Syncs that are not answered yet */
  syncsOwed = 0;

  get empty(): boolean {
    return this.#at === this.#end;
  }

  get head(): Reply {
    return this.#at === this.#end ? REPLY.none : (this.#kinds[this.#at] ?? REPLY.none);
  }

  get headUndo(): Undo | null {
    return this.#at === this.#end ? null : (this.#undos[this.#at] ?? null);
  }

  /** the next answer is the proxy's own to give */
  get dueHere(): boolean {
    const { head } = this;
    return head === REPLY.sayParseComplete || head === REPLY.sayCloseComplete;
  }

  /** the server skips what it gets until a Sync */
  get skipping(): boolean {
    return this.#skipping;
  }

  /** The server waits for a Sync, or for data: whoever sends it now ends what was begun before, even with nothing left to answer. */
  get open(): boolean {
    return this.#unsynced || this.#skipping || this.copyIn;
  }

  /** answers owed */
  get size(): number {
    return this.#end - this.#at;
  }

  /** something of the client's own was sent and is not answered; statements of the proxy's come before it */
  get owesClient(): boolean {
    return !this.empty && this.#kinds[this.#end - 1] !== REPLY.setup;
  }

  /** everything sent so far will be answered without the client sending more, and nothing of it waits for a Sync */
  get complete(): boolean {
    if (this.copyIn || (this.empty && this.open)) return false;
    let last = this.#end - 1;
    while (last >= this.#at && this.#kinds[last] === REPLY.copyEnd) last -= 1;
    const kind = this.#kinds[last];
    return last < this.#at || kind === REPLY.sync || kind === REPLY.query || kind === REPLY.setup;
  }

  push(kind: Reply, undo: Undo | null = null): void {
    if (this.#skipping) {
      if (kind !== REPLY.sync) {
        undo?.undo();
        return;
      }
      this.#skipping = false;
    }
    if (kind === REPLY.sync && this.copyIn) return;
    if (kind === REPLY.copyEnd) {
      this.copyIn = false;
      if (this.empty) return;
    }
    if (kind === REPLY.sync || kind === REPLY.query || kind === REPLY.setup) this.#unsynced = false;
    else if (kind <= REPLY.injectedClose) this.#unsynced = true;
    if (kind === REPLY.sync) {
      this.syncs += 1;
      this.syncsOwed += 1;
    }
    this.#kinds[this.#end] = kind;
    this.#undos[this.#end] = undo;
    this.#end += 1;
  }

  pop(): void {
    do {
      this.#undos[this.#at] = null;
      this.#at += 1;
    } while (this.#at < this.#end && this.#kinds[this.#at] === REPLY.copyEnd);
    if (this.#at >= COMPACT_AT) this.#compact();
    else if (this.#at === this.#end) this.#at = this.#end = 0;
    if (this.empty) this.syncsOwed = 0;
  }

  /** CopyInResponse: the server ignores Syncs that come before the end of the copy. */
  copyInStarted(): void {
    this.copyIn = true;
    for (let at = this.#at + 1; at < this.#end;) {
      if (this.#kinds[at] === REPLY.copyEnd) {
        this.copyIn = false;
        return;
      }
      if (this.#kinds[at] === REPLY.sync) this.#removeSync(at);
      else at += 1;
    }
    this.#unsynced ||= this.head === REPLY.execute;
  }

  /** ErrorResponse: takes away what the server skips now. A Query goes on to its ReadyForQuery. */
  failed(): void {
    this.copyIn = false;
    if (this.head === REPLY.query || this.head === REPLY.setup) this.ended = true;
    if (this.ended || this.empty) return;
    let end = this.#at;
    while (end < this.#end && this.#kinds[end] !== REPLY.sync) end += 1;
    for (let at = end - 1; at >= this.#at; at -= 1) {
      this.#undos[at]?.undo();
      this.#undos[at] = null;
    }
    this.#skipping = end === this.#end;
    this.#at = end - 1;
    this.pop();
  }

  /** CommandComplete, or what comes in its place: a Query is not answered without one. */
  commandEnded(): void {
    this.ended = true;
  }

  /** ReadyForQuery: takes away the message it answers. @throws FrameError when that is not answered yet */
  ready(): void {
    const { head } = this;
    if (this.copyIn || (head !== REPLY.sync && !this.ended)) throw unasked();
    if (head === REPLY.sync) this.syncsOwed -= 1;
    this.ended = false;
    this.pop();
  }

  /** A client that always has something in flight never lets the queue run empty. */
  #compact(): void {
    this.#kinds = this.#kinds.slice(this.#at, this.#end);
    this.#undos = this.#undos.slice(this.#at, this.#end);
    this.#end -= this.#at;
    this.#at = 0;
  }

  #removeSync(at: number): void {
    this.syncsOwed -= 1;
    this.#kinds.splice(at, 1);
    this.#undos.splice(at, 1);
    this.#end -= 1;
  }
}

function unasked(): FrameError {
  return new FrameError('the server is ready for what it was not asked');
}
