/**
 * One task: the state of the model, as bytes: two sides with their records and streams, nodes, and what engines know.
 *
 * One state is one Uint8Array of fixed width, so that a million of them are a few flat arrays, compared word by word.
 */
import { invariant } from '../../src/errors/invariant.js';

export type State = Uint8Array;

/** What is explored: sizes, and which faults may happen. Every bound is printed with the result. */
export interface Bounds {
  readonly nodes: number;
  /** shards of side A; side B has one */
  readonly shards: 1 | 2;
  /** attempts begun in all, each with an epoch, a nonce and a heading of its own */
  readonly attempts: 1 | 2;
  /** application writes in all */
  readonly writes: number;
  /** which headings an attempt after the first may have */
  readonly next: 'retry' | 'rollback' | 'either';
  /** a node may die and start again, any number of times */
  readonly nodeCrashes: boolean;
  /** side A may fail over once to a standby that lags by any number of transactions */
  readonly failover: boolean;
  /** the migration may be finalized after a commit */
  readonly finalize: boolean;
  /** the migration may be removed before a commit, with all that it made */
  readonly remove: boolean;
  /** a write takes two steps, and what began before a seal may end after it */
  readonly openTransactions: boolean;
}

export const SIDE_A = 0;
export const SIDE_B = 1;

/** Databases by number: shard 0 of A, B, then shard 1 of A or, in a model with a fail-over, the standby of A. */
export const A0 = 0;
export const B0 = 1;
export const THIRD = 2;

export const FENCE = { open: 0, closed: 1, sealed: 2, ready: 3, refused: 4 } as const;
/** 0: no row */
export const DECISION = {
  none: 0,
  preparing: 1,
  sealed: 2,
  committed: 3,
  finalizing: 4,
  finalized: 5,
  aborted: 6,
} as const;
export const GATE = { open: 0, closed: 1, down: 2 } as const;
/** What a node has read of the last decision and not yet acted on. */
export const FOLLOWS = { nothing: 0, commit: 1, abort: 2 } as const;
/** What somebody once read or was answered; a process that knows it may act on it at any later time. */
export const KNOWN = { committed: 1, aborted: 2, sealedShard0: 4, sealedShard1: 8 } as const;

/** Entries of a stream: an application write by its number, the marker of a seal and a canary by their attempt. */
export const ENTRY = { write: 1, seal: 16, canary: 32 } as const;
export const QUEUE_MAX = 5;

export const sideOf = (database: number): number => (database === B0 ? SIDE_B : SIDE_A);
export const otherSide = (side: number): number => 1 - side;

/** One named byte, or one in each of several equal blocks. */
export class Field {
  readonly #offset: number;
  readonly #stride: number;

  constructor(offset: number, stride: number) {
    this.#offset = offset;
    this.#stride = stride;
  }

  get(s: State, i = 0): number {
    return s[this.#offset + i * this.#stride] ?? 0;
  }

  set(s: State, value: number, i = 0): void {
    s[this.#offset + i * this.#stride] = value;
  }
}

/** Hands out bytes block by block. */
class Allocation {
  width = 0;

  block<Name extends string>(count: number, names: readonly Name[]): Record<Name, Field> {
    const start = this.width;
    this.width += count * names.length;
    const fields = names.map((name, place) => [name, new Field(start + place, names.length)] as const);
    return Object.fromEntries(fields) as Record<Name, Field>;
  }
}

const NODE = ['gate', 'route', 'seen', 'resolved', 'hold', 'follows', 'followed', 'answered', 'flight'] as const;
const DATABASE = [
  ...['fenceEpoch', 'fenceState', 'fenceNonce', 'flag'],
  ...['decision1', 'decision2', 'nonce1', 'nonce2'],
  ...['data', 'seals', 'canaries', 'ahead'],
  ...['entry0', 'entry1', 'entry2', 'entry3', 'entry4'],
] as const;
const ATTEMPT = ['epoch', 'source', 'pinned', 'pinnedPeer', 'phase', 'known'] as const;
const WHOLE = [
  'acknowledged',
  'timeline',
  'down',
  'finalizing',
  'removing',
  'disarmed',
  'streamless',
  'wayBack',
  'gap',
  'sampled',
] as const;

/** Where each byte is, for one set of bounds. */
export class Layout {
  readonly bounds: Bounds;
  readonly width: number;
  readonly node: Record<(typeof NODE)[number], Field>;
  readonly database: Record<(typeof DATABASE)[number], Field>;
  readonly attempt: Record<(typeof ATTEMPT)[number], Field>;
  readonly whole: Record<(typeof WHOLE)[number], Field>;
  /** a transaction that began and did not end, by side: of a direct writer, or of a node that died */
  readonly flight: Field;
  readonly databases: number;
  readonly nodeBytes = NODE.length;
  readonly databaseBytes = DATABASE.length;
  readonly #firstDatabase: number;

  constructor(bounds: Bounds) {
    invariant(!(bounds.failover && bounds.shards === 2), 'the third database is a shard or a standby, not both');
    this.bounds = bounds;
    this.databases = bounds.failover || bounds.shards === 2 ? 3 : 2;
    const allocation = new Allocation();
    this.node = allocation.block(bounds.nodes, NODE);
    this.#firstDatabase = allocation.width;
    this.database = allocation.block(this.databases, DATABASE);
    this.attempt = allocation.block(bounds.attempts, ATTEMPT);
    this.whole = allocation.block(1, WHOLE);
    this.flight = allocation.block(2, ['flight']).flight;
    this.width = Math.ceil(allocation.width / 4) * 4;
  }

  /** The whole block of one database over that of another. */
  copyDatabase(s: State, from: number, to: number): void {
    const start = this.#firstDatabase + from * this.databaseBytes;
    s.copyWithin(this.#firstDatabase + to * this.databaseBytes, start, start + this.databaseBytes);
  }

  clearDatabase(s: State, database: number): void {
    const start = this.#firstDatabase + database * this.databaseBytes;
    s.fill(0, start, start + this.databaseBytes);
  }

  sameDatabase(s: State, one: number, two: number): boolean {
    const first = this.#firstDatabase + one * this.databaseBytes;
    const second = this.#firstDatabase + two * this.databaseBytes;
    for (let i = 0; i < this.databaseBytes; i++) if (s[first + i] !== s[second + i]) return false;
    return true;
  }

  /** Nodes are alike: of the states that differ only in which is which, one stands for all. Nodes come first in the bytes. */
  sortNodes(s: State): void {
    for (let i = 1; i < this.bounds.nodes; i++)
      for (let j = i; j > 0 && this.#firstIsGreater(s, j - 1, j); j--) this.#swapNodes(s, j - 1, j);
  }

  #firstIsGreater(s: State, one: number, two: number): boolean {
    for (let k = 0; k < this.nodeBytes; k++) {
      const difference = (s[one * this.nodeBytes + k] ?? 0) - (s[two * this.nodeBytes + k] ?? 0);
      if (difference !== 0) return difference > 0;
    }
    return false;
  }

  #swapNodes(s: State, one: number, two: number): void {
    for (let k = 0; k < this.nodeBytes; k++) {
      const kept = s[one * this.nodeBytes + k] ?? 0;
      s[one * this.nodeBytes + k] = s[two * this.nodeBytes + k] ?? 0;
      s[two * this.nodeBytes + k] = kept;
    }
  }
}
