/** One task: the demo's exit code cannot be 0 for a run that proved nothing, or proved the opposite. */
import { expect, test } from 'vitest';
import { failuresOf, type RunFacts } from '../../src/cli/demo/verdict.js';

const GOOD: RunFacts = {
  comparison: { lost: [], doubled: [], unexpected: [], balanceOk: true, historyOk: true, unknownFound: 0 },
  acknowledged: 2_000,
  acknowledgedAround: [50, 50, 50],
  switchesExpected: 3,
  refused: 0,
  unknown: 0,
  staleReads: 0,
};

test('a run with exactly the writes that are needed has no failure', () => {
  expect(failuresOf(GOOD)).toEqual([]);
});

const { comparison } = GOOD;
const bad: readonly (readonly [string, RunFacts, string])[] = [
  ['a lost write', { ...GOOD, comparison: { ...comparison, lost: ['a'] } }, '1 acknowledged write lost'],
  ['a doubled write', { ...GOOD, comparison: { ...comparison, doubled: ['a', 'b'] } }, '2 writes applied twice'],
  ['a write nobody made', { ...GOOD, comparison: { ...comparison, unexpected: ['a'] } }, '1 write there that'],
  ['half a transaction', { ...GOOD, comparison: { ...comparison, balanceOk: false } }, 'accounts do not add up'],
  ['changed rows', { ...GOOD, comparison: { ...comparison, historyOk: false } }, 'not what they were'],
  ['a refused statement', { ...GOOD, refused: 1 }, '1 statement refused'],
  ['a commit without an answer', { ...GOOD, unknown: 1 }, '1 commit without an answer'],
  ['a read from the past', { ...GOOD, staleReads: 1 }, '1 read from the past'],
  ['too few writes', { ...GOOD, acknowledged: 1_999 }, 'only 1,999 writes acknowledged'],
  ['a quiet switch', { ...GOOD, acknowledgedAround: [50, 49, 50] }, 'only 49 writes acknowledged in the second'],
  ['a switch that never was', { ...GOOD, acknowledgedAround: [50, 50] }, 'only 2 of 3 switches took place'],
];

test.each(bad)('%s fails the run, and is named', (_, facts, sentence) => {
  expect(failuresOf(facts)).toEqual([expect.stringContaining(sentence)]);
});
