/** One task: read and compare the values of sharding keys as PostgreSQL would. */
import type { KeyType, KeyValue, RangePlace } from './sharding.js';

const BIGINT_MIN = -(2n ** 63n);
const BIGINT_MAX = 2n ** 63n - 1n;
/** An integer of 64 bits has at most 64 binary digits; the rest is room for zeros and underscores. */
const BIGINT_TEXT_MAX = 200;
/** PostgreSQL documentation, 4.1.2.6; servers before 16 know decimal digits only and refuse the others themselves. */
const INTEGER = /^([+-]?)((?:\d(?:_?\d)*)|(?:0[xX](?:_?[\da-fA-F])+)|(?:0[oO](?:_?[0-7])+)|(?:0[bB](?:_?[01])+))$/;
/** Decimal, and sure to have room: what most are. */
const SHORT_INTEGER = /^-?\d{1,18}$/;
const SPACE_AROUND = /^[ \t\n\v\f\r]+|[ \t\n\v\f\r]+$/g;
/** Any letter case, braces around, hyphens left out after any four digits: PostgreSQL documentation, 8.12. */
const UUID = /^(?:[\da-f]{4}-?){7}[\da-f]{4}$/i;

/**
 * The value a text stands for, as the input function of its type reads it; null when it is no value of that type.
 * Never throws: the text may come from a client.
 */
export function parseKey(type: KeyType, text: string): KeyValue | null {
  switch (type) {
    case 'bigint':
      return parseInteger(text);
    case 'uuid':
      return parseUuid(text);
    case 'varchar':
      return text;
  }
}

function parseInteger(text: string): bigint | null {
  if (SHORT_INTEGER.test(text)) return BigInt(text);
  if (text.length > BIGINT_TEXT_MAX) return null;
  const match = INTEGER.exec(text.replace(SPACE_AROUND, ''));
  if (match === null) return null;
  const [, sign, digits = ''] = match;
  const size = BigInt(digits.replaceAll('_', ''));
  return inBigint(sign === '-' ? -size : size);
}

/** The integer itself, or null where a bigint has no room for it. */
export function inBigint(value: bigint): bigint | null {
  return value >= BIGINT_MIN && value <= BIGINT_MAX ? value : null;
}

function parseUuid(text: string): string | null {
  const bare = text.startsWith('{') && text.endsWith('}') ? text.slice(1, -1) : text;
  if (!UUID.test(bare)) return null;
  const digits = bare.replaceAll('-', '').toLowerCase();
  return [0, 8, 12, 16, 20]
    .map((start, index, starts) => digits.slice(start, starts[index + 1] ?? digits.length))
    .join('-');
}

/**
 * The order of two values of one type: negative, zero or positive. Integers by size; texts by their bytes in UTF-8, as the
 * collation "C" does; a uuid's lower-case text has the order of its value.
 */
export function compareKeys(a: KeyValue, b: KeyValue): number {
  if (typeof a === 'string' && typeof b === 'string') return Buffer.compare(Buffer.from(a), Buffer.from(b));
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** Whether a value is in a range: from its start on, below its end. */
export function inRange(value: KeyValue, { start, end }: Omit<RangePlace, 'shard'>): boolean {
  return (start === null || compareKeys(value, start) >= 0) && (end === null || compareKeys(value, end) < 0);
}
