/** One task: a key never gets another shard than PostgreSQL's hash partitioning, PgDog or its mapping would give it. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { partitionHash, shardOf, shardOfNumber } from '../../src/sharding/hash.js';
import type { KeyType, KeyValue, Mapping, TableRule } from '../../src/sharding/scheme.js';

const HASH: Mapping = { kind: 'hash', hasher: 'postgres' };
const SHA1: Mapping = { kind: 'hash', hasher: 'sha1' };

/**
 * Test vectors of the compatibility notes, computed there by an implementation in Python that was compared with
 * `satisfies_hash_partition` of PostgreSQL 15: type, key, 64-bit result, remainders modulo 2, 3 and 4.
 */
const VECTORS: readonly (readonly [KeyType, KeyValue, string, number, number, number])[] = [
  ['bigint', 0n, '0c8440b74fd699b0', 0, 2, 0],
  ['bigint', 1n, '9c7715e2970a8fb8', 0, 2, 0],
  ['bigint', 2n, 'eb7b1343af5ea17a', 0, 0, 2],
  ['bigint', 3n, 'ef0d27b973ee34b9', 1, 1, 1],
  ['bigint', 42n, 'afd30d9a116a5a62', 0, 0, 2],
  ['bigint', 1000n, '7e8f25a0d10f75d4', 0, 2, 0],
  ['bigint', -1n, '0400bc251f3bafa5', 1, 2, 1],
  ['bigint', -42n, 'a610493821626142', 0, 2, 2],
  ['bigint', 4_294_967_296n, '9c7715e2970a8fb8', 0, 2, 0],
  ['bigint', 9_223_372_036_854_775_807n, '8e2a2eec347a3a76', 0, 0, 2],
  ['bigint', -9_223_372_036_854_775_808n, 'f5aa185b5e7fa17f', 1, 1, 3],
  ['varchar', 'test_value', 'e9e7b7f8421c2955', 1, 2, 1],
  ['varchar', 'us-east-1', '618369cdc00d0246', 0, 2, 2],
  ['varchar', '', 'fa8431e86a2568a6', 0, 2, 2],
  ['varchar', 'é', '86624d66e0f247af', 1, 1, 3],
  ['uuid', '550e8400-e29b-41d4-a716-446655440000', '198087c78d25a5c9', 1, 2, 1],
  ['uuid', '11111111-1111-1111-1111-111111111111', '4dfb780febabad9c', 0, 1, 0],
];

/** Ids 0 to 19 modulo 12 with the hasher sha1, from the same notes. */
const SHA1_MODULO_12 = [4, 7, 8, 3, 6, 0, 0, 10, 3, 11, 1, 7, 4, 4, 11, 2, 5, 0, 8, 3];

function rule(type: KeyType, mapping: Mapping): Pick<TableRule, 'type' | 'mapping'> {
  return { type, mapping };
}

describe('the hasher "postgres"', () => {
  test.each(VECTORS)('%s %s hashes as on PostgreSQL', (type, key, result, ...remainders) => {
    const { high, low } = partitionHash(type, key);
    expect([high, low].map((half) => half.toString(16).padStart(8, '0')).join('')).toBe(result);
    expect([2, 3, 4].map((shards) => shardOf(rule(type, HASH), key, shards))).toEqual(remainders);
  });

  test('a tenant on three shards is where PgDog has put it', () => {
    expect([1n, 2n, 3n].map((key) => shardOf(rule('bigint', HASH), key, 3))).toEqual([2, 0, 1]);
  });

  test('a null key is on shard 0, as PostgreSQL counts it', () => {
    expect(shardOf(rule('varchar', HASH), null, 7)).toBe(0);
  });

  test('every text form of a value leads to the shard of the value', () => {
    const uuid = '550e8400-e29b-41d4-a716-446655440000';
    const forms = [
      uuid.toUpperCase(),
      `{${uuid}}`,
      uuid.replaceAll('-', ''),
      '550e-8400-e29b-41d4-a716-4466-5544-0000',
    ];
    for (const form of forms)
      expect(shardOf(rule('uuid', HASH), form, 1_000)).toBe(shardOf(rule('uuid', HASH), uuid, 1_000));
    for (const form of [' 42 ', '+42', '042', '0x2A', '0b10_1010', '4_2']) {
      expect(shardOf(rule('bigint', HASH), form, 1_000)).toBe(shardOf(rule('bigint', HASH), 42n, 1_000));
    }
  });

  test('what is no value of the type has no shard', () => {
    for (const text of ['', 'x', '1.0', '1e3', '9223372036854775808', '1__0', '1'.repeat(10_000)]) {
      expect(shardOf(rule('bigint', HASH), text, 4)).toBeNull();
    }
    for (const text of [
      '',
      '{550e8400-e29b-41d4-a716-446655440000',
      ' 550e8400-e29b-41d4-a716-446655440000',
      '5-50e8400e29b41d4a716446655440000',
    ]) {
      expect(shardOf(rule('uuid', HASH), text, 4)).toBeNull();
    }
    expect(shardOf(rule('uuid', HASH), 7n, 4)).toBeNull();
  });
});

describe('the hasher "sha1"', () => {
  test('ids are where PgDog has put them', () => {
    const ids = SHA1_MODULO_12.map((_, id) => BigInt(id));
    expect(ids.map((id) => shardOf(rule('bigint', SHA1), id, 12))).toEqual(SHA1_MODULO_12);
  });

  test('a null key has no shard', () => {
    expect(shardOf(rule('bigint', SHA1), null, 4)).toBeNull();
  });
});

test('an integer at hand as a number goes where it goes as itself, by every mapping', () => {
  const listed: Mapping = {
    kind: 'values',
    lists: [{ values: [1n, 2_147_483_647n], shard: 3 }],
    ranges: [{ start: 100n, end: 200n, shard: 5 }],
    default: null,
  };
  const ranged: Mapping = {
    kind: 'values',
    lists: [{ values: [-7n, 250n, 9_007_199_254_740_993n], shard: 6 }],
    ranges: [
      { start: 200n, end: 260n, shard: 1 },
      { start: null, end: 3n, shard: 2 },
      { start: 260n, end: 261n, shard: 3 },
      { start: 290n, end: 9_007_199_254_740_993n, shard: 4 },
      { start: 3n, end: 100n, shard: 0 },
      { start: 9_007_199_254_740_993n, end: null, shard: 8 },
    ],
    default: 7,
  };
  const numbers = fc.oneof(fc.constantFrom(0, 1, 2_147_483_647), fc.nat(300), fc.nat(2_147_483_647));
  const property = fc.property(
    numbers,
    fc.integer({ min: 1, max: 1_024 }),
    fc.constantFrom(HASH, SHA1, listed, ranged),
    fc.constantFrom<KeyType>('bigint', 'varchar'),
    (number, shards, mapping, type) => {
      const of = rule(type, mapping);
      expect(shardOfNumber(of, number, shards)).toBe(shardOf(of, BigInt(number), shards));
    },
  );
  fc.assert(property, { numRuns: 3_000 });
});

test('among many ranges a key is found in the one that holds it, as by looking at each', () => {
  const bounds = fc.uniqueArray(fc.bigInt({ min: -300n, max: 300n }), { minLength: 2, maxLength: 40 });
  const property = fc.property(bounds, fc.bigInt({ min: -310n, max: 310n }), fc.nat(5), (some, key, skipped) => {
    const sorted = [...some].sort((a, b) => Number(a - b));
    const ranges = sorted.slice(1).map((end, at) => ({ start: sorted[at] ?? null, end, shard: at }));
    const kept = ranges.filter((_, at) => at % 6 !== skipped).reverse();
    const held = kept.find(({ start, end }) => start !== null && start <= key && key < end);
    const mapping: Mapping = { kind: 'values', lists: [], ranges: kept, default: null };
    expect(shardOf(rule('bigint', mapping), key, 64)).toBe(held?.shard ?? null);
  });
  fc.assert(property, { numRuns: 2_000 });
});
