/** One task: the arithmetic of how far a replica is behind: which limit of its time counts, and when nobody can tell. */
import { expect, test } from 'vitest';
import { lagBehind, type Position } from '../../src/postgres/position.js';

const said = (lsn: bigint, more: Partial<Position> = {}): Position => ({
  ...{ recovering: false, lsn, replayedMs: null, clockMs: 0, askedAtMs: 0 },
  ...more,
});
const replica = (lsn: bigint, more: Partial<Position> = {}): Position => said(lsn, { recovering: true, ...more });

test('a replica that has all of it is not behind, however long ago anything was written', () => {
  const primary = [said(100n, { clockMs: 9_000_000 })];
  expect(lagBehind(primary, replica(100n, { replayedMs: 0 }))).toStrictEqual({ bytes: 0, ms: 0 });
  expect(lagBehind(primary, replica(120n))).toStrictEqual({ bytes: 0, ms: 0 });
});

test('in the middle of a large transaction it is as late as the primary was there, not as old as the last commit', () => {
  const primary = [
    said(100n, { askedAtMs: 1_000 }),
    said(200n, { askedAtMs: 2_000 }),
    said(300n, { askedAtMs: 3_000, clockMs: 600_000 }),
  ];
  expect(lagBehind(primary, replica(250n, { askedAtMs: 3_010, replayedMs: 0 }))).toStrictEqual({
    bytes: 50,
    ms: 1_010,
  });
});

test('where commits come all the time the last one that was replayed tells', () => {
  const primary = [said(100n, { askedAtMs: 1_000 }), said(300n, { askedAtMs: 6_000, clockMs: 50_000 })];
  expect(lagBehind(primary, replica(250n, { askedAtMs: 6_001, replayedMs: 49_800 }))).toStrictEqual({
    bytes: 50,
    ms: 200,
  });
});

test('without either limit the time is unknown, and without a primary everything', () => {
  expect(lagBehind([said(300n)], replica(250n))).toStrictEqual({ bytes: 50, ms: null });
  expect(lagBehind([], replica(250n))).toBeNull();
});
