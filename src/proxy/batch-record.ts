/** One task: keep what a client sent since the last boundary, so that it can be sent anew or read once more. */

/** A batch longer than this is not kept: it can't be routed anew. */
const BATCH_BYTES_MAX = 1_048_576;

export class BatchRecord {
  #parts: Buffer[] = [];
  #bytes = 0;

  /** false once more was sent than is kept */
  get complete(): boolean {
    return this.#bytes <= BATCH_BYTES_MAX;
  }

  /** Keeps a view, not a copy. */
  add(bytes: Buffer): void {
    this.#bytes += bytes.length;
    if (this.complete) this.#parts.push(bytes);
    else this.#parts.length = 0;
  }

  clear(): void {
    this.#parts.length = 0;
    this.#bytes = 0;
  }

  /** Everything kept, as one. */
  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}
