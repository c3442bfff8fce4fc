/**
 * One task: the 64-bit hash of bytes that PostgreSQL's hash partitioning uses.
 *
 * Bob Jenkins' lookup3 (public domain), widened to 64 bits and seeded, byte order little-endian. PostgreSQL's documentation names
 * neither algorithm nor seed; both are fixed all the same, because `pg_dump` and `pg_upgrade` carry hash partitions over. The vectors in
 * test/sharding/hash.test.ts and a comparison with real servers hold this file to it.
 */

/** A 64-bit number in two halves: 64-bit integers are slow in JavaScript, and this runs for each row of a COPY. */
export interface Halves {
  /** unsigned, 32 bits */
  readonly high: number;
  /** unsigned, 32 bits */
  readonly low: number;
}

/** The seed of hash partitioning, 0x7A5B22367996DCFD. */
const SEED: Halves = { high: 0x7a5b2236, low: 0x7996dcfd };
const GOLDEN_RATIO = 0x9e3779b9;
/** PostgreSQL's own addition to lookup3's start value. */
const START = 3_923_095;
const BLOCK_BYTES = 12;

/** Three words of 32 bits; arithmetic on the array's elements wraps by itself. */
type State = Uint32Array & { 0: number; 1: number; 2: number };

/** The extended hash of `bytes`, as `hashtextextended` and `uuid_hash_extended` give it for this seed. */
export function hashBytes(bytes: Uint8Array): Halves {
  const state = startState(bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  for (; bytes.length - offset >= BLOCK_BYTES; offset += BLOCK_BYTES) {
    state[0] += view.getUint32(offset, true);
    state[1] += view.getUint32(offset + 4, true);
    state[2] += view.getUint32(offset + 8, true);
    mix(state);
  }
  addTail(state, bytes, offset);
  return finish(state);
}

/** The extended hash of one unsigned 32-bit number, the same as that of its four bytes. */
export function hashWord(word: number): Halves {
  // Asked for each statement with a number as its key: nothing is made anew for it.
  wordState[0] = WORD_START[0] + word;
  wordState[1] = WORD_START[1];
  wordState[2] = WORD_START[2];
  return finish(wordState);
}

function startState(lengthBytes: number): State {
  const state = new Uint32Array(3).fill(GOLDEN_RATIO + lengthBytes + START) as State;
  state[0] += SEED.high;
  state[1] += SEED.low;
  mix(state);
  return state;
}

/** The last, incomplete block. The lowest byte of the third word is left alone: lookup3 keeps it for the length. */
function addTail(state: State, bytes: Uint8Array, start: number): void {
  for (let offset = start; offset < bytes.length; offset += 1) {
    const place = offset - start;
    const byte = bytes[offset] ?? 0;
    if (place < 4) state[0] += byte << (8 * place);
    else if (place < 8) state[1] += byte << (8 * (place - 4));
    else state[2] += byte << (8 * (place - 8 + 1));
  }
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

function mix(s: State): void {
  mixInto(s, 0, 1, 2, 4);
  mixInto(s, 1, 2, 0, 6);
  mixInto(s, 2, 0, 1, 8);
  mixInto(s, 0, 1, 2, 16);
  mixInto(s, 1, 2, 0, 19);
  mixInto(s, 2, 0, 1, 4);
}

type Word = 0 | 1 | 2;

function mixInto(s: State, x: Word, y: Word, z: Word, bits: number): void {
  s[x] -= s[z];
  s[x] ^= rotate(s[z], bits);
  s[z] += s[y];
}

function finish(s: State): Halves {
  fold(s, 2, 1, 14);
  fold(s, 0, 2, 11);
  fold(s, 1, 0, 25);
  fold(s, 2, 1, 16);
  fold(s, 0, 2, 4);
  fold(s, 1, 0, 14);
  fold(s, 2, 1, 24);
  return { high: s[1], low: s[2] };
}

function fold(s: State, x: Word, y: Word, bits: number): void {
  s[x] ^= s[y];
  s[x] -= rotate(s[y], bits);
}

const WORD_START = startState(4);
const wordState = startState(4);
