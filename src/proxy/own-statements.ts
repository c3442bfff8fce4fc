/**
 * One task: bound the time of the statements of the proxy's own that one server has been sent: settings, questions, what takes away what a
 * client has left.
 *
 * Nobody waits for them but the proxy, and a client that is gone, or does not read, does not end them.
 */
export class OwnStatements {
  readonly #late: () => void;
  #count = 0;
  #timer: NodeJS.Timeout | null = null;

  /** @param late called when they have taken too long, once */
  constructor(late: () => void) {
    this.#late = late;
  }

  /** Some are not answered. */
  get owed(): boolean {
    return this.#count > 0;
  }

  /** One is on its way; it and those before it have so long from now. */
  sent(withinMs: number): void {
    this.#count += 1;
    this.#stop();
    this.#timer = setTimeout(this.#late, withinMs);
  }

  /** The first is answered. */
  answered(): void {
    this.#count -= 1;
    if (this.#count === 0) this.#stop();
  }

  /** The connection is over; may be called again. */
  ended(): void {
    this.#count = 0;
    this.#stop();
  }

  #stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
