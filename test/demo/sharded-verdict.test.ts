/** One task: the exit code of the demo with shards cannot be 0 for a run that proved nothing, or proved the opposite. */
import { expect, test } from 'vitest';
import { shardedFailuresOf, type ShardedFacts } from '../../src/cli/demo/sharded-verdict.js';

const GOOD: ShardedFacts = {
  comparison: { lost: [], doubled: [], unexpected: [], inPart: [], miscounted: [], notes: [], pricesOk: true },
  historyOk: true,
  repeatedIds: 0,
  differing: [],
  acknowledged: 300,
  acknowledgedAround: [5, 5, 5],
  switchesExpected: 3,
  refused: 0,
  unknown: 0,
  staleReads: 0,
};

test('a run with exactly the orders that are needed has no failure', () => {
  expect(shardedFailuresOf(GOOD)).toEqual([]);
});

const { comparison } = GOOD;
const bad: readonly (readonly [string, ShardedFacts, string])[] = [
  ['a lost order', { ...GOOD, comparison: { ...comparison, lost: ['a'] } }, '1 acknowledged write lost'],
  ['a doubled order', { ...GOOD, comparison: { ...comparison, doubled: ['a'] } }, '1 write applied twice'],
  ['an order nobody gave', { ...GOOD, comparison: { ...comparison, unexpected: ['a'] } }, '1 write there that'],
  ['half an order', { ...GOOD, comparison: { ...comparison, inPart: ['a'] } }, '1 order applied in part'],
  [
    'a wrong count',
    { ...GOOD, comparison: { ...comparison, miscounted: ['1', '2'] } },
    '2 tenants with another number',
  ],
  ['half a note', { ...GOOD, comparison: { ...comparison, notes: ['a'] } }, '1 write on several shards not there'],
  ['a forgotten raise', { ...GOOD, comparison: { ...comparison, pricesOk: false } }, 'prices were not raised as often'],
  ['changed rows', { ...GOOD, historyOk: false }, 'not what they were'],
  ['an id given twice', { ...GOOD, repeatedIds: 1 }, '1 id given to two orders'],
  ['sides that differ', { ...GOOD, differing: ['orders', 'items'] }, 'the two sides differ in orders, items'],
  ['a refused statement', { ...GOOD, refused: 1 }, '1 statement refused'],
  ['a report from the past', { ...GOOD, staleReads: 1 }, '1 read from the past'],
  ['too few orders', { ...GOOD, acknowledged: 299 }, 'only 299 writes acknowledged'],
  ['a quiet switch', { ...GOOD, acknowledgedAround: [5, 4, 5] }, 'only 4 writes acknowledged in the second'],
  ['a switch that never was', { ...GOOD, acknowledgedAround: [5, 5] }, 'only 2 of 3 switches took place'],
];

test.each(bad)('%s fails the run, and is named', (_, facts, sentence) => {
  expect(shardedFailuresOf(facts)).toEqual([expect.stringContaining(sentence)]);
});
