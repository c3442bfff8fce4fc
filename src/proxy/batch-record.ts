/** One task: keep what a client sent since the last boundary, so that it can be sent anew or read once more. */

/** A batch longer than this is not kept: it can't be routed anew. */
const BATCH_BYTES_MAX = 1_048_576;

export class BatchRecord {
  /** most batches come in one piece */
  #first: Buffer | null = null;
  #others: Buffer[] = [];
  #bytes = 0;

  /** false once more was sent than is kept */
  get complete(): boolean {
    return this.#bytes <= BATCH_BYTES_MAX;
  }

  /** Keeps a view, not a copy. Made once, since it is handed on with each batch. */
  readonly add = (bytes: Buffer): void => {
    this.#bytes += bytes.length;
    if (!this.complete) this.#forget();
    else if (this.#first === null) this.#first = bytes;
    else this.#others.push(bytes);
  };

  clear(): void {
    this.#forget();
    this.#bytes = 0;
  }

  /** Everything kept, as one. */
  bytes(): Buffer {
    return Buffer.concat(this.#first === null ? [] : [this.#first, ...this.#others]);
  }

  #forget(): void {
    this.#first = null;
    if (this.#others.length > 0) this.#others = [];
  }
}
