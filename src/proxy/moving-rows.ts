/**
 * One task: read the rows that an UPDATE of the sharding column answers: what the client gets of each, and, where its new key leads to
 * another shard, where it lies and where it belongs.
 */
import { CutoverError } from '../errors/errors.js';
import { shardOf } from '../sharding/hash.js';
import { TOLD_COLUMNS } from '../sharding/router-move.js';
import { REFUSAL_TEXTS } from '../sharding/router-refusals.js';
import type { TableRule } from '../sharding/scheme.js';
import { cutRow } from './told-rows.js';

/** Rows of one table, or of one partition, on one shard that belong to one other. */
export interface MovingGroup {
  readonly from: number;
  readonly to: number;
  /** oid of the table or partition there */
  readonly table: string;
  /** ctid of each: they stay what they are until the transaction ends, since its own UPDATE has locked the rows */
  readonly places: readonly string[];
}

/** The place of each row that moves is kept until it has moved. */
export const MOVED_ROWS_MAX = 100_000;
/** A row of RETURNING is kept until it is whole. */
const ROW_BYTES_MAX = 16 * 1024 * 1024;
/** A statement with more of them is long to read. */
const GROUP_ROWS_MAX = 5_000;

export class MovingRows {
  /** why they are not moved */
  #problem: CutoverError | null = null;
  readonly #database: string;
  readonly #rule: TableRule;
  readonly #shards: number;
  readonly #groups: { from: number; to: number; table: string; places: string[] }[] = [];
  /** the newest of each kind */
  readonly #open = new Map<string, { places: string[] }>();
  #count = 0;
  /** rows of the UPDATE at hand */
  #read = 0;
  #parts: Buffer[] = [];
  #restBytes = 0;

  /** @param shards of the database */
  constructor(database: string, rule: TableRule, shards: number) {
    this.#database = database;
    this.#rule = rule;
    this.#shards = shards;
  }

  get groups(): readonly MovingGroup[] {
    return this.#groups;
  }

  /** Nothing more is read. */
  get failed(): boolean {
    return this.#problem !== null;
  }

  /**
   * @param tag of the UPDATE that has ended: it has told of each of its rows
   * @throws CutoverError `moved_rows_limit` | `statement_not_routed` | `shards_not_committed`
   */
  check(tag?: string): void {
    if (this.#problem !== null) throw this.#problem;
    if (tag === undefined) return;
    if (tag !== `UPDATE ${this.#read.toString()}`)
      throw new CutoverError('shards_not_committed', { problem: 'it has not told of all the rows that it changed' });
    this.#read = 0;
  }

  /**
   * Takes a DataRow, or a part of one.
   *
   * @returns what the client gets of it, once it is whole; null before, and when nothing more is read
   */
  push(shard: number, bytes: Buffer, continued: boolean): Buffer | null {
    if (!continued) {
      this.#restBytes = bytes.readUInt32BE(1) + 1;
      this.#parts = [];
    }
    if (this.#restBytes > ROW_BYTES_MAX) {
      const problem = `a row of its RETURNING is longer than ${ROW_BYTES_MAX.toString()} bytes`;
      this.#problem ??= new CutoverError('shards_not_committed', { problem });
    }
    if (this.#problem !== null) return null;
    this.#restBytes -= bytes.length;
    this.#parts.push(this.#restBytes > 0 || continued ? Buffer.from(bytes) : bytes);
    return this.#restBytes > 0 ? null : this.#whole(shard, Buffer.concat(this.#parts));
  }

  #whole(shard: number, bytes: Buffer): Buffer | null {
    this.#parts = [];
    this.#read += 1;
    const { row, told } = cutRow(bytes, TOLD_COLUMNS);
    const [place = null, table = null, key = null] = told;
    const to = shardOf(this.#rule, key, this.#shards);
    if (to === null || place === null || table === null) {
      const reason = REFUSAL_TEXTS['key-unmapped'];
      this.#problem = new CutoverError('statement_not_routed', { database: this.#database, reason });
      return null;
    }
    if (to !== shard) this.#add(shard, to, table, place);
    return this.#problem === null ? row : null;
  }

  #add(from: number, to: number, table: string, place: string): void {
    this.#count += 1;
    if (this.#count > MOVED_ROWS_MAX)
      this.#problem = new CutoverError('moved_rows_limit', { database: this.#database, limit: MOVED_ROWS_MAX });
    const key = `${from.toString()} ${to.toString()} ${table}`;
    const group = this.#open.get(key);
    if (group !== undefined && group.places.length < GROUP_ROWS_MAX) {
      group.places.push(place);
      return;
    }
    const added = { from, to, table, places: [place] };
    this.#groups.push(added);
    this.#open.set(key, added);
  }
}
