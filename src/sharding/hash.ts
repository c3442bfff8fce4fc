/** One task: the shard of a key: by hash as PostgreSQL's hash partitioning, or by a list, a range, a default. Pure. */
import { createHash } from 'node:crypto';
import { inBigint, parseKey } from '../config/key-values.js';
import { invariant } from '../errors/invariant.js';
import { hashBytes, hashWord, type Halves } from './lookup3.js';
import type { KeyType, KeyValue, TableRule } from './scheme.js';
import { ValuePlaces } from './value-places.js';

const WORD = 2 ** 32;
/** What combining a hash with the start value 0 adds: 0x49a0f4dd15e5a8e3 (64 bits). */
const COMBINE: Halves = { high: 0x49a0f4dd, low: 0x15e5a8e3 };
/** So many that no product below leaves the exact integers of a double. */
const SHARDS_MAX = 1_024;
const SHA1_TAIL_BYTES = 4;

/**
 * The shard of a key, from 0 on; null when it has none: the mapping has no place for the value, or the text is no value of the
 * key's type (the server will say so better).
 *
 * A null key is on shard 0 with the hasher "postgres", as in PostgreSQL, whose hash partitioning counts NULL as a hash of 0;
 * on the default shard of a mapping, as in a DEFAULT partition; on none with "sha1".
 *
 * @param rule what `ruleOf` answered
 * @param value an integer or its text for `bigint`; a text for `varchar` (a server in UTF-8); any text form of a `uuid`
 * @param shards number of shards, 1 to 1024
 */
export function shardOf(
  rule: Pick<TableRule, 'type' | 'mapping'>,
  value: KeyValue | null,
  shards: number,
): number | null {
  invariant(Number.isInteger(shards) && shards >= 1 && shards <= SHARDS_MAX, 'the number of shards is possible');
  const { mapping, type } = rule;
  if (value === null) return shardOfNull(mapping);
  const key = keyOf(type, value);
  if (key === null) return null;
  if (mapping.kind === 'values') return ValuePlaces.of(mapping).shardOf(key);
  return mapping.hasher === 'sha1' ? sha1Remainder(type, key, shards) : remainder(partitionHash(type, key), shards);
}

/** As {@link shardOf}, of an integer from 0 to 2³¹ - 1 that is at hand as a number: to make another of it takes longer than to hash it. */
export function shardOfNumber(rule: Pick<TableRule, 'type' | 'mapping'>, value: number, shards: number): number | null {
  const { mapping, type } = rule;
  if (type !== 'bigint' || (mapping.kind === 'hash' && mapping.hasher !== 'postgres'))
    return shardOf(rule, BigInt(value), shards);
  if (mapping.kind === 'values') return ValuePlaces.of(mapping).shardOfNumber(value);
  invariant((value | 0) === value && value >= 0, 'an integer without a sign in 31 bits');
  return remainder(combined(hashWord(value)), shards);
}

function shardOfNull(mapping: TableRule['mapping']): number | null {
  if (mapping.kind === 'values') return mapping.default;
  return mapping.hasher === 'postgres' ? 0 : null;
}

/** The value in the one form its type has here; null when it is none of that type. */
function keyOf(type: KeyType, value: KeyValue): KeyValue | null {
  if (typeof value === 'string') return parseKey(type, value);
  return type === 'bigint' ? inBigint(value) : null;
}

/**
 * The 64-bit number whose remainder is the hash partition of `key`: what `satisfies_hash_partition` computes for a table
 * `PARTITION BY HASH` of this one column.
 *
 * @param key in the form `parseKey` gives
 */
export function partitionHash(type: KeyType, key: KeyValue): Halves {
  return combined(typeof key === 'bigint' ? hashWord(foldInteger(key)) : hashBytes(bytesOf(type, key)));
}

function combined(hash: Halves): Halves {
  const low = hash.low + COMBINE.low;
  const carry = low >= WORD ? 1 : 0;
  return { high: (hash.high + COMBINE.high + carry) % WORD, low: low % WORD };
}

/** 64 bits in 32 such that equal numbers of int2, int4 and int8 hash alike: a negative number's upper half is inverted. */
function foldInteger(key: bigint): number {
  const number = Number(key);
  if (Number.isSafeInteger(number)) {
    const high = Math.floor(number / WORD);
    return (number ^ (number >= 0 ? high : ~high)) >>> 0;
  }
  const high = Number(BigInt.asUintN(32, key >> 32n));
  const low = Number(BigInt.asUintN(32, key));
  return (low ^ (key >= 0n ? high : ~high)) >>> 0;
}

function bytesOf(type: KeyType, key: string): Uint8Array {
  return type === 'uuid' ? Buffer.from(key.replaceAll('-', ''), 'hex') : Buffer.from(key, 'utf8');
}

function remainder({ high, low }: Halves, shards: number): number {
  return ((high % shards) * (WORD % shards) + (low % shards)) % shards;
}

/** PgDog's other hasher: the last four bytes of SHA-1, big-endian, over the integer's decimal text or the key's bytes. */
function sha1Remainder(type: KeyType, key: KeyValue, shards: number): number {
  const bytes = typeof key === 'bigint' ? Buffer.from(key.toString()) : bytesOf(type, key);
  const digest = createHash('sha1').update(bytes).digest();
  return digest.readUInt32BE(digest.length - SHA1_TAIL_BYTES) % shards;
}
