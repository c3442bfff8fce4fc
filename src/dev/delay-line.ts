/** One task: let things arrive some time after they were sent, in the order in which they were sent. */
import { performance } from 'node:perf_hooks';

interface Piece {
  readonly dueAtMs: number;
  readonly bytes: number;
  readonly deliver: () => void;
}

export class DelayLine {
  readonly #pieces: Piece[] = [];
  #bytes = 0;
  #timer: NodeJS.Timeout | null = null;

  /** how much is on its way; whoever adds has to keep it bounded */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Calls `deliver` after `delayMs`, and never before what was added earlier, even if its delay was longer: a stream of bytes must
   * not change its order when the delay does. At once when there is no delay and nothing is on its way.
   */
  add(bytes: number, delayMs: number, deliver: () => void): void {
    const earliestMs = this.#pieces.at(-1)?.dueAtMs ?? 0;
    if (delayMs === 0 && this.#pieces.length === 0) {
      deliver();
      return;
    }
    this.#bytes += bytes;
    this.#pieces.push({ dueAtMs: Math.max(performance.now() + delayMs, earliestMs), bytes, deliver });
    this.#wait();
  }

  /** What is on its way never arrives; may be called again. */
  clear(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#pieces.length = 0;
    this.#bytes = 0;
  }

  #wait(): void {
    const [next] = this.#pieces;
    if (!next || this.#timer) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        this.#deliverDue();
      },
      // A timer counts whole milliseconds and may be a fraction early.
      Math.max(Math.ceil(next.dueAtMs - performance.now()), 1),
    );
  }

  #deliverDue(): void {
    for (let next = this.#pieces[0]; next && next.dueAtMs <= performance.now(); next = this.#pieces[0]) {
      this.#pieces.shift();
      this.#bytes -= next.bytes;
      next.deliver();
    }
    this.#wait();
  }
}
