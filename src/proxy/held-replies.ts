/** One task: keep the replies to a batch back until it is known that the fence did not refuse it. */
const NOTHING = Buffer.alloc(0);

export class HeldReplies {
  /** the batch may still be refused */
  undecided = false;
  /** it was */
  refused = false;
  #replies: Buffer[] = [];

  /** What comes now is not for the client yet. */
  get holding(): boolean {
    return this.undecided || this.refused;
  }

  /** @param bytes stay as they are */
  add(bytes: Buffer): void {
    this.#replies.push(bytes);
  }

  /** All of them, once; null: there are none. */
  take(): Buffer | null {
    if (this.#replies.length === 0) return null;
    return Buffer.concat(this.#replies.splice(0));
  }

  /** What was held back for one client is no other's. */
  forget(): void {
    this.undecided = false;
    this.refused = false;
    if (this.#replies.length > 0) this.#replies = [];
  }

  /** To be called when it was refused and all is answered. @returns the refusal, with what came before and behind it */
  takeRefusal(): Buffer {
    this.refused = false;
    return this.take() ?? NOTHING;
  }
}
