/** One task: a table that came after the streams were made is not left behind by a cutover. */
import { expect, it } from 'vitest';
import { awaitMoment } from '../../activities/moment.js';
import type { EpochPlan, Heading } from '../../src/cutover/contract.js';
import { usePair } from '../support/pair.js';

const pair = usePair({ source: 17, destination: 18 });
const NOT_YET = 'not yet';
let attempts = 0;

/** The reason the moment is waited for, or the plan when it has come at once. */
async function look(heading: Heading): Promise<string | EpochPlan> {
  attempts++;
  const request = { migration: pair().migration, heading, attempt: `test/${attempts.toString()}`, acceptLoss: false };
  let reason = '';
  try {
    return await awaitMoment(pair().context, request, (waitingFor) => {
      reason = waitingFor;
      return waitingFor === '' ? Promise.resolve() : Promise.reject(new Error(NOT_YET));
    });
  } catch (error) {
    if (error instanceof Error && error.message === NOT_YET) return reason;
    throw error;
  }
}

it.each([
  ['a new table', 'CREATE TABLE public.late (id int PRIMARY KEY)', 'public.late'],
  [
    'a new partition of a table that moves',
    'CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (1000) TO (2000)',
    'public.parted_2',
  ],
])('%s is waited for, by its name, instead of losing its rows', async (_, statement, table) => {
  const { source } = pair();
  await source.query('app', statement);
  expect(await look('forward')).toBe(`table ${table} came after the streams were made and is not replicated`);
  await source.query('app', `DROP TABLE ${table}`);
  expect(await look('forward')).toMatchObject({ heading: 'forward' });
});
