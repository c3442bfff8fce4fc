/** One task: turn the places of a mapping (lists, ranges, a default) into one that leads each key to at most one shard. */
import type { CutoverError } from '../errors/errors.js';
import { compareKeys, inBigint, parseKey } from './key-values.js';
import type { KeyType, KeyValue, ListPlace, RangePlace, ValueMapping } from './sharding.js';
import type { PlaceKeys } from './sharding-schema.js';
import type { Path } from './document.js';

/** One place as it is written, and where. */
export interface WrittenPlace {
  readonly keys: PlaceKeys;
  readonly path: Path;
}

/** What a mapping is checked against. */
export interface MappingContext {
  readonly database: string;
  readonly type: KeyType;
  readonly shards: number;
  /** makes the error for the place in the file */
  invalid(path: Path, problem: string): CutoverError;
}

interface PlacedRange extends RangePlace {
  readonly path: Path;
}

/**
 * @throws CutoverError `configuration_invalid`: a value of another type, a shard that is not there, a value in two lists, an
 * inverted range, two ranges that overlap, two defaults, or a place that says two things
 */
export function valueMapping(places: readonly WrittenPlace[], context: MappingContext): ValueMapping {
  const lists: ListPlace[] = [];
  const ranges: PlacedRange[] = [];
  let fallback: number | null = null;
  const listed = new Set<KeyValue>();
  for (const place of places) {
    const { keys, path } = place;
    checkShard(keys.shard, [...path, 'shard'], context);
    if (keys.values !== undefined) lists.push(listPlace(place, listed, context));
    else if (keys.start !== undefined || keys.end !== undefined) ranges.push(rangePlace(place, ranges, context));
    else if (fallback === null) fallback = keys.shard;
    else throw context.invalid(path, 'a second default: a mapping has one place without values, start and end');
  }
  return { kind: 'values', lists, ranges: ranges.map(({ path: _path, ...range }) => range), default: fallback };
}

/** @throws CutoverError `configuration_invalid` */
export function checkShard(shard: number, path: Path, context: Omit<MappingContext, 'type'>): void {
  const { database, shards } = context;
  if (shard < shards) return;
  const range = shards === 1 ? 'only shard 0' : `shards 0 to ${String(shards - 1)}`;
  throw context.invalid(path, `shard ${String(shard)} does not exist: database "${database}" has ${range}`);
}

function listPlace({ keys, path }: WrittenPlace, listed: Set<KeyValue>, context: MappingContext): ListPlace {
  if (keys.start !== undefined || keys.end !== undefined)
    throw context.invalid(path, 'a place has either "values" or "start" and "end": write two');
  const values = keys.values ?? [];
  if (values.length === 0) throw context.invalid([...path, 'values'], '"values" is empty, so the place has no key');
  return {
    shard: keys.shard,
    values: values.map((written, index) => {
      const at = [...path, 'values', index];
      const value = typed(written, at, context);
      if (listed.has(value)) throw context.invalid(at, `${shown(value)} is listed twice`);
      listed.add(value);
      return value;
    }),
  };
}

function rangePlace(
  { keys, path }: WrittenPlace,
  others: readonly PlacedRange[],
  context: MappingContext,
): PlacedRange {
  const start = keys.start === undefined ? null : typed(keys.start, [...path, 'start'], context);
  const end = keys.end === undefined ? null : typed(keys.end, [...path, 'end'], context);
  const range = { start, end, shard: keys.shard, path };
  if (start !== null && end !== null && compareKeys(start, end) >= 0) {
    const meant =
      compareKeys(start, end) > 0 ? ', did you exchange them?' : ': the end itself is not part of the range';
    throw context.invalid(path, `no key is from ${shown(start)} on and below ${shown(end)}${meant}`);
  }
  const other = others.find((candidate) => overlap(range, candidate));
  if (other !== undefined)
    throw context.invalid(path, `the range ${spanOf(range)} overlaps the range ${spanOf(other)} of the same mapping`);
  return range;
}

function overlap(a: RangePlace, b: RangePlace): boolean {
  return startsBelowEnd(a, b) && startsBelowEnd(b, a);
}

function startsBelowEnd(a: RangePlace, b: RangePlace): boolean {
  return a.start === null || b.end === null || compareKeys(a.start, b.end) < 0;
}

/** The written value as a key of the mapping's type. */
function typed(written: number | bigint | string, path: Path, context: MappingContext): KeyValue {
  const { type } = context;
  if (type === 'bigint') {
    const value = typeof written === 'string' ? null : inBigint(BigInt(written));
    if (value !== null) return value;
    const quoted = typeof written === 'string' && parseKey('bigint', written) !== null;
    throw context.invalid(path, `expected an integer of 64 bits${quoted ? ': leave the quotes away' : wrongType}`);
  }
  if (typeof written !== 'string') {
    throw context.invalid(path, `expected a ${type === 'uuid' ? 'uuid' : 'text'} in quotes${wrongType}`);
  }
  const value = written.includes('\0') ? null : parseKey(type, written);
  if (value === null)
    throw context.invalid(path, type === 'uuid' ? `expected a uuid${wrongType}` : 'a text without NUL');
  return value;
}

const wrongType = ', or another "data_type"';

function shown(value: KeyValue): string {
  return typeof value === 'bigint' ? value.toString() : JSON.stringify(value);
}

function spanOf({ start, end }: RangePlace): string {
  const from = start === null ? 'without a start' : `from ${shown(start)}`;
  return `${from} ${end === null ? 'without an end' : `to ${shown(end)}`}`;
}
