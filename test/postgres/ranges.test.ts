/** One task: ranges have every page once, and what they bring is counted once. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RangeTally } from '../../activities/range-tally.js';
import { cut } from '../../src/postgres/ranges/cut.js';

test('every page is in one range, and what comes behind the last page in the last one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 4_294_967_294 }),
      fc.integer({ min: 0, max: 2 ** 45 }),
      fc.integer({ min: 0, max: 2 ** 40 }),
      (pages, bytes, rangeBytes) => {
        const ranges = cut(pages, bytes, rangeBytes);
        expect(ranges.length).toBeLessThanOrEqual(10_000);
        expect(ranges[0]?.firstPage).toBe(0);
        expect(ranges.at(-1)?.endPage).toBeNull();
        const wrong = ranges.findIndex(({ firstPage, endPage }, index) => {
          const end = ranges[index + 1]?.firstPage ?? null;
          return endPage !== end || (endPage !== null && endPage <= firstPage);
        });
        expect(wrong).toBe(-1);
      },
    ),
  );
});

test('as many ranges as the size asks for', () => {
  expect(cut(100, 1_000, 250)).toEqual([
    { firstPage: 0, endPage: 25 },
    { firstPage: 25, endPage: 50 },
    { firstPage: 50, endPage: 75 },
    { firstPage: 75, endPage: null },
  ]);
  expect(cut(100, 1_000, 1_000)).toEqual([{ firstPage: 0, endPage: null }]);
  expect(cut(100, 1_000, 0)).toEqual([{ firstPage: 0, endPage: null }]);
  expect(cut(0, 0, 250)).toEqual([{ firstPage: 0, endPage: null }]);
  // Most of it lies apart from the rows.
  expect(cut(2, 1_000, 10)).toEqual([
    { firstPage: 0, endPage: 1 },
    { firstPage: 1, endPage: null },
  ]);
});

test('a range that is begun anew is not counted twice, and progress never goes back', () => {
  const tally = new RangeTally();
  const first = tally.begin('a');
  first.add(10);
  const second = tally.begin('a');
  second.add(5);
  expect(tally.came('a')).toEqual({ rows: 0, bytes: 15 });
  first.failed();
  expect(tally.came('a')).toEqual({ rows: 0, bytes: 15 });
  const again = tally.begin('a');
  again.add(9);
  expect(tally.came('a')).toEqual({ rows: 0, bytes: 15 });
  again.add(3);
  again.done(4);
  second.done(2);
  expect(tally.came('a')).toEqual({ rows: 6, bytes: 17 });
  expect(tally.came('b')).toEqual({ rows: 0, bytes: 0 });
});
