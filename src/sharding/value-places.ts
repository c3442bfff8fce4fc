/** One task: find the shard of a key among lists, ranges and a default, however many there are. Pure. */
import { compareKeys, inRange } from '../config/key-values.js';
import type { KeyValue, ValueMapping } from './scheme.js';

type Range = ValueMapping['ranges'][number];

/** Larger than every integer that `ofNumber` is asked for. */
const NO_NUMBER_ABOVE = 2 ** 31;

/** Of one mapping: no value is in two lists, and no two ranges overlap. */
export class ValuePlaces {
  static readonly #known = new WeakMap<ValueMapping, ValuePlaces>();

  readonly #default: number | null;
  readonly #lists: ReadonlyMap<KeyValue, number>;
  /** in the order of their starts; one without a start comes first */
  readonly #ranges: readonly Range[];
  /** the same of integers that fit, as numbers */
  readonly #listsOfNumbers: ReadonlyMap<number, number>;
  readonly #starts: readonly number[];
  readonly #ends: readonly number[];

  private constructor(mapping: ValueMapping) {
    this.#default = mapping.default;
    this.#lists = new Map(mapping.lists.flatMap(({ values, shard }) => values.map((value) => [value, shard])));
    this.#ranges = [...mapping.ranges].sort((a, b) => {
      if (a.start === null || b.start === null) return a.start === null ? -1 : 1;
      return compareKeys(a.start, b.start);
    });
    const small = [...this.#lists].flatMap(([value, shard]) =>
      typeof value === 'bigint' && value >= 0n && value < NO_NUMBER_ABOVE ? [[Number(value), shard] as const] : [],
    );
    this.#listsOfNumbers = new Map(small);
    this.#starts = this.#ranges.map(({ start }) => (typeof start === 'bigint' ? Number(start) : -Infinity));
    this.#ends = this.#ranges.map(({ end }) => (typeof end === 'bigint' ? Number(end) : Infinity));
  }

  /** Made once for each mapping: a list may hold thousands of tenants. */
  static of(mapping: ValueMapping): ValuePlaces {
    const known = ValuePlaces.#known.get(mapping);
    if (known !== undefined) return known;
    const made = new ValuePlaces(mapping);
    ValuePlaces.#known.set(mapping, made);
    return made;
  }

  /** @param key in the form `parseKey` gives. @returns null: it has no place */
  shardOf(key: KeyValue): number | null {
    const listed = this.#lists.get(key);
    if (listed !== undefined) return listed;
    const range = this.#ranges[lastOf(this.#ranges, ({ start }) => start === null || compareKeys(key, start) >= 0)];
    return range !== undefined && inRange(key, range) ? range.shard : this.#default;
  }

  /** @param key an integer from 0 to 2³¹ - 1, of a mapping of integers */
  shardOfNumber(key: number): number | null {
    if (this.#listsOfNumbers.size > 0) {
      const listed = this.#listsOfNumbers.get(key);
      if (listed !== undefined) return listed;
    }
    const at = lastOf(this.#starts, (start) => start <= key);
    return at >= 0 && key < (this.#ends[at] ?? 0) ? (this.#ranges[at]?.shard ?? null) : this.#default;
  }
}

/** Index of the last entry that `reached` holds for, where it holds for all before that one too; -1: for none. */
function lastOf<Entry>(entries: readonly Entry[], reached: (entry: Entry) => boolean): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = entries[middle];
    if (entry !== undefined && reached(entry)) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
