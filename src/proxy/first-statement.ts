/**
 * One task: under `read_write_strategy = "aggressive"` have the first statement of a transaction decide where all of it runs.
 *
 * BEGIN is answered by the primary. A plain read behind it has the transaction begun anew on a replica, where nothing was done yet; anything
 * else keeps it where it is. So does what was sent along with BEGIN without waiting for its answer.
 */
import { STATUS } from '../wire/codes.js';
import type { FrameScanner } from '../wire/frames.js';
import type { Move } from './place.js';
import { isReplica } from './replica-set.js';

/** What may have an open transaction that has done nothing begun anew elsewhere. */
export interface Mover {
  /** what begins it there, in SQL */
  readonly opening: string;
  move(scanner: FrameScanner): Move;
  /** The server is idle, in a transaction, or in a failed one. */
  settled(status: number): void;
}

const STAY: Move = { kind: 'stay' };

export class FirstStatement implements Mover {
  opening = '';
  /** `begun`: the open transaction has done nothing else */
  #state: 'none' | 'begins' | 'begun' = 'none';
  readonly #readShard: (scanner: FrameScanner) => number | null;

  /** @param readShard where the batch ahead runs as a read, 0 where it is none; null: more of it must come first */
  constructor(readShard: (scanner: FrameScanner) => number | null) {
    this.#readShard = readShard;
  }

  /** The batch ahead goes to the primary and is nothing but this BEGIN; '': it is something else. */
  begins(opening: string): void {
    this.opening = opening;
    this.#state = opening === '' ? 'none' : 'begins';
  }

  settled(status: number): void {
    this.#state = this.#state === 'begins' && status === STATUS.inTransaction ? 'begun' : 'none';
  }

  move(scanner: FrameScanner): Move {
    if (this.#state !== 'begun') return STAY;
    const shard = this.#readShard(scanner);
    if (shard === null) return { kind: 'more' };
    this.#state = 'none';
    return isReplica(shard) ? { kind: 'anew', shard } : STAY;
  }
}
