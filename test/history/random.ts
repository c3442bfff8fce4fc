/** One task: numbers that look random and are the same again for the same seed. */

const RANGE = 2 ** 32;

/** G. Marsaglia, "Xorshift RNGs" (2003), 32 bits, shifts 13, 17 and 5. */
export class Random {
  #state: number;

  /** @param seed any integer; streams of one seed differ by `stream` */
  constructor(seed: number, stream = 0) {
    // Neighbouring seeds must not begin alike, and zero would stay zero for ever.
    this.#state = Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b) || 1;
    for (let round = 0; round < 8; round++) this.below(2);
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return Math.floor(((state >>> 0) / RANGE) * limit);
  }

  pick<T>(choices: readonly [T, ...T[]]): T {
    return choices[this.below(choices.length)] ?? choices[0];
  }
}
