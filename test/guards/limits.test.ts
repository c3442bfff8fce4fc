/** One task: a slot that keeps too much is told of once, on every side that answers, and ends a migration only before its commit. */
import { expect, it } from 'vitest';
import { alarmStream, SlotLimits } from '../../activities/limits.js';
import type { EngineContext } from '../../activities/context.js';
import type { CutoverConfig } from '../../src/config/config.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { usePair } from '../support/pair.js';
import { until } from '../support/wait.js';

const pair = usePair({ source: 17, destination: 18 });

function limited(keys: Partial<CutoverConfig>): EngineContext {
  const { context } = pair();
  const config = context.config();
  return { ...context, config: () => ({ ...config, cutover: { ...config.cutover, ...keys } }) };
}

async function alarms(cluster: Cluster): Promise<readonly string[]> {
  const rows = await cluster.query<{ line: string }>(
    'app',
    `SELECT type || ' ' || (data ->> 'slot') || ': ' || (data ->> 'measure') AS line FROM cutover.event WHERE stream = $1 ORDER BY sequence`,
    [alarmStream(pair().migration.id)],
  );
  return rows.map((row) => row.line);
}

/** A slot always keeps some WAL; one byte is too much of it. */
const RETAINED = { retainedWalLimitBytes: 1, slotLagLimitBytes: 0 } as const;

it('tells once, on both sides, and when it is over', async () => {
  const { migration } = pair();
  const told: string[] = [];
  const alarm = (sentence: string): void => void told.push(sentence);
  await new SlotLimits(limited(RETAINED), migration, alarm).check(false);
  // Another watch, another worker: it goes on where the first one ended.
  await new SlotLimits(limited(RETAINED), migration, alarm).check(false);
  expect(told).toHaveLength(2);
  expect(told[0]).toMatch(/^slot cutover_\S+_forward: retained WAL \d+ bytes, limit 1$/);
  await new SlotLimits(limited({ retainedWalLimitBytes: 0, slotLagLimitBytes: 0 }), migration, alarm).check(false);
  expect(told).toHaveLength(4);
  const expected = [`LimitExceeded`, `LimitExceeded`, `LimitKept`, `LimitKept`];
  for (const cluster of [pair().source, pair().destination])
    expect((await alarms(cluster)).map((line) => line.split(' ')[0])).toEqual(expected);
});

it('ends the migration before a commit, however often it is asked', async () => {
  const context = limited({ ...RETAINED, slotLimitAction: 'abort' });
  for (const attempt of ['the first', 'again'])
    await expect(
      new SlotLimits(context, pair().migration, () => undefined).check(false),
      attempt,
    ).rejects.toMatchObject({
      code: 'slot_limit_exceeded',
      message: expect.stringMatching(/limit 1; the migration is removed$/) as string,
    });
});

it('after a commit only tells: the slot is the way back', async () => {
  const told: string[] = [];
  const context = limited({ ...RETAINED, slotLimitAction: 'abort' });
  await pair().source.query('app', `DELETE FROM cutover.event`);
  await pair().destination.query('app', `DELETE FROM cutover.event`);
  await new SlotLimits(context, pair().migration, (sentence) => void told.push(sentence)).check(true);
  expect(told.join()).toMatch(/nothing is removed: it is the way back, which ending the task would free and lose/);
});

it('measures the slot whose subscriber is gone', async () => {
  const { source, destination, migration } = pair();
  const told: string[] = [];
  const context = limited({ retainedWalLimitBytes: 0, slotLagLimitBytes: 100_000 });
  await destination.stop('immediate');
  await source.query('app', `SELECT pg_logical_emit_message(false, 'test', repeat('x', 200000))`);
  await until('the lag is told of', async () => {
    await new SlotLimits(context, migration, (sentence) => void told.push(sentence)).check(false);
    return told.some((sentence) => /_forward: lag \d+ bytes, limit 100000$/.test(sentence));
  });
  expect((await alarms(source)).at(-1)).toMatch(/^LimitExceeded \S+_forward: lag$/);
  await destination.start();
});
