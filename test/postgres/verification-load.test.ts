/** One task: a comparison is at work on the side that serves for at most half of the time. */
import { expect, test } from 'vitest';
import { Load } from '../../src/postgres/verification/load.js';

let nowMs = 0;
const rests: number[] = [];
const clock = {
  now: () => nowMs,
  rest: (ms: number) => {
    rests.push(ms);
    nowMs += ms;
    return Promise.resolve();
  },
};

/** A statement that takes this long on the side that serves. */
const takes = (ms: number) => (): Promise<void> => {
  nowMs += ms;
  return Promise.resolve();
};

test('it rests as long as it worked, for each statement once, and no longer than a bound', async () => {
  const load = new Load(clock);
  await load.measured(takes(30));
  await load.measured(takes(70));
  // What it does at the other side meanwhile is no load.
  nowMs += 1_000;
  await load.rest();
  expect(rests).toEqual([100]);
  await load.rest();
  expect(rests).toEqual([100, 0]);
  await load.measured(takes(60_000));
  await load.rest();
  expect(rests).toEqual([100, 0, 5_000]);
  expect(load.busyMs).toBe(60_100);
});

test('a statement that failed was work as well', async () => {
  const load = new Load(clock);
  rests.length = 0;
  const fails = async (): Promise<never> => {
    await takes(40)();
    throw new Error('canceled');
  };
  await expect(load.measured(fails)).rejects.toThrow('canceled');
  await load.rest();
  expect(rests).toEqual([40]);
});
