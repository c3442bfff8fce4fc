/** One task: a set of states, numbered in the order in which they were found, in a few flat arrays. */
import { invariant } from '../../src/errors/invariant.js';

const EMPTY = -1;

/** An array of numbers that grows. */
export class Numbers {
  #values = new Int32Array(1 << 12);
  length = 0;

  push(value: number): void {
    if (this.length === this.#values.length) {
      const wider = new Int32Array(this.#values.length * 2);
      wider.set(this.#values);
      this.#values = wider;
    }
    this.#values[this.length++] = value;
  }

  at(i: number): number {
    return this.#values[i] ?? 0;
  }
}

export class StateStore {
  readonly #words: number;
  readonly #limit: number;
  #arena: Int32Array;
  #slots = new Int32Array(1 << 13).fill(EMPTY);
  count = 0;

  /** @param width bytes of a state, a multiple of four; @param limit how many states may be kept */
  constructor(width: number, limit: number) {
    this.#words = width / 4;
    this.#limit = limit;
    this.#arena = new Int32Array(this.#words << 12);
  }

  /** The number of the state; a new one is `count - 1` afterwards. */
  add(state: Int32Array): number {
    let slot = this.#hash(state) & (this.#slots.length - 1);
    for (;;) {
      const known = this.#slots[slot] ?? EMPTY;
      if (known === EMPTY) break;
      if (this.#same(known, state)) return known;
      slot = (slot + 1) & (this.#slots.length - 1);
    }
    invariant(this.count < this.#limit, `more than ${this.#limit.toString()} states: the bounds are too wide`);
    this.#slots[slot] = this.count;
    this.#append(state);
    if (this.count * 2 > this.#slots.length) this.#rehash();
    return this.count - 1;
  }

  read(number: number, into: Int32Array): void {
    const start = number * this.#words;
    for (let i = 0; i < this.#words; i++) into[i] = this.#arena[start + i] ?? 0;
  }

  #append(state: Int32Array): void {
    const start = this.count * this.#words;
    if (start + this.#words > this.#arena.length) {
      const wider = new Int32Array(this.#arena.length * 2);
      wider.set(this.#arena);
      this.#arena = wider;
    }
    this.#arena.set(state, start);
    this.count += 1;
  }

  #same(number: number, state: Int32Array): boolean {
    const start = number * this.#words;
    for (let i = 0; i < this.#words; i++) if (this.#arena[start + i] !== state[i]) return false;
    return true;
  }

  /** FNV-1a over words, with the finalizer of MurmurHash3: neighbouring states differ in a few bits only. */
  #hash(state: Int32Array): number {
    let hash = 0x811c9dc5;
    for (let i = 0; i < this.#words; i++) hash = Math.imul(hash ^ (state[i] ?? 0), 0x01000193) ^ (hash >>> 15);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return (hash ^ (hash >>> 16)) >>> 0;
  }

  #rehash(): void {
    this.#slots = new Int32Array(this.#slots.length * 2).fill(EMPTY);
    const state = new Int32Array(this.#words);
    for (let number = 0; number < this.count; number++) {
      this.read(number, state);
      let slot = this.#hash(state) & (this.#slots.length - 1);
      while (this.#slots[slot] !== EMPTY) slot = (slot + 1) & (this.#slots.length - 1);
      this.#slots[slot] = number;
    }
  }
}
