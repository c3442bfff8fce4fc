/** One task: a comparison is told in words that a person can act on: which table, which row, and between which shards. */
import { expect, test } from 'vitest';
import {
  NOTHING_COUNTED,
  progressSentence,
  resultSentence,
  type RowDifference,
  type VerifyResult,
} from '../../src/cutover/verification.js';

const ROW = { table: 'public.orders', key: '["7"]', problem: 'missing' } as const;

function told(...samples: readonly RowDifference[]): string {
  const times = { startedAt: '2026-01-01T00:00:00Z', finishedAt: '2026-01-01T00:00:01Z' };
  const result: VerifyResult = {
    ...NOTHING_COUNTED,
    ...times,
    heading: 'forward',
    epoch: 0,
    tables: 2,
    samples,
    rows: 9,
  };
  return resultSentence({ ...result, differences: samples.length });
}

test('with one shard on both sides no shard is named', () => {
  expect(progressSentence(NOTHING_COUNTED, 1, 2, { table: 'public.orders' })).toBe(
    '1 of 2 tables, 0 rows, 0 differences, now public.orders',
  );
  expect(told(ROW)).toBe('the sides differ (2 tables, 9 rows, 1 differences): public.orders ["7"] missing');
  expect(told()).toBe('the sides are equal: 2 tables, 9 rows, 0 differences');
});

test('with several both shards are named, and whether both serve', () => {
  const between = { from: 0, to: 1 };
  expect(progressSentence(NOTHING_COUNTED, 1, 2, { table: 'public.orders', between })).toBe(
    '1 of 2 tables, 0 rows, 0 differences, now public.orders, shard 0 to 1',
  );
  expect(told({ ...ROW, between }, { ...ROW, between: { ...between, within: true } })).toBe(
    'the sides differ (2 tables, 9 rows, 2 differences): public.orders ["7"] missing, shard 0 to 1; ' +
      'public.orders ["7"] missing, shards 0 and 1 of the side that serves',
  );
});
