/**
 * One task: stand in the place of node:crypto for a proxy under the fuzzer: what is by chance there, and when a slow computation is done,
 * is decided by the fuzzer's numbers.
 */
import { pbkdf2Sync } from 'node:crypto';
import { Random } from '../history/random.js';

export * from 'node:crypto';

/** In ms of the fuzzer's clock: whatever is under way comes first. */
const DERIVING_MS = 1;

let random = new Random(0);

/** Begins the numbers anew, those of Math.random too. */
export function reseed(): void {
  random = new Random(0);
  Math.random = () => random.below(2 ** 31) / 2 ** 31;
}

export function randomBytes(size: number): Buffer {
  return Buffer.from(Array.from({ length: size }, () => random.below(256)));
}

/** Computes at once and says so later, where Node's uses another thread for as long as that takes. */
export function pbkdf2(
  password: string,
  salt: Buffer,
  iterations: number,
  keyBytes: number,
  digest: string,
  done: (error: Error | null, key: Buffer) => void,
): void {
  const key = pbkdf2Sync(password, salt, iterations, keyBytes, digest);
  setTimeout(() => {
    done(null, key);
  }, DERIVING_MS);
}
