/** One task: cutover_timeout_action = "cutover" swaps without parity only where the request accepts loss, and never silently. */
import { expect, it, onTestFinished } from 'vitest';
import type { MoveResult } from '../../src/cutover/contract.js';
import { until } from '../support/wait.js';
import { holdBeforePause, Moving } from './moving.js';

const WAIVED = /parity was waived \(acceptLoss\): after 300 ms the destination was not level \(marker not applied/;

const GENERAL = `cutover_timeout_action = "cutover"
cutover_timeout = 300
cutover_max_attempts = 1`;

/** Starts a cutover and stops the stream to the destination between its moment and its pause. */
async function moveWithoutStream(moving: Moving, input: { acceptLoss?: boolean }, late: string): Promise<MoveResult> {
  const { source, destination } = moving.system;
  const hold = await holdBeforePause(source, 'app');
  onTestFinished(() => hold.letGo());
  const moved = moving.cutover(input);
  moved.catch(() => undefined);
  await hold.reached();
  await switchForward(moving, 'DISABLE');
  const active = `SELECT FROM pg_replication_slots WHERE slot_name ~ '_forward$' AND active`;
  await until('the stream stands', async () => (await source.query('app', active)).length === 0);
  await source.query('app', `INSERT INTO public.documents (body) VALUES ('${late}')`);
  await hold.letGo();
  const arrived = await destination.query('app', `SELECT FROM public.documents WHERE body = '${late}'`);
  expect(arrived).toHaveLength(0);
  return moved;
}

async function switchForward(moving: Moving, how: 'ENABLE' | 'DISABLE'): Promise<void> {
  await moving.system.destination.query(
    'app',
    `DO $$ DECLARE name text; BEGIN
       SELECT subname INTO STRICT name FROM pg_subscription WHERE subname ~ '_forward$';
       EXECUTE format('ALTER SUBSCRIPTION %I ${how}', name); END $$`,
  );
}

it('parity is waived only by the request, and the audit trail says so in words', { timeout: 240_000 }, async () => {
  const moving = await Moving.start({ source: 17, destination: 18, general: GENERAL });
  onTestFinished(() => moving.stop());
  await moving.copyData();

  await expect(moveWithoutStream(moving, {}, 'during the abort')).rejects.toMatchObject({
    cause: {
      message: expect.stringMatching(
        /not moved.*awaitParity: the destination did not reach parity within 300 ms/,
      ) as string,
    },
  });
  expect(await moving.servingMajor()).toBe(17);
  await switchForward(moving, 'ENABLE');

  const result = await moveWithoutStream(moving, { acceptLoss: true }, 'waived away');
  expect(result).toMatchObject({ outcome: 'moved', sentence: expect.stringMatching(WAIVED) as string });
  expect(await moving.servingMajor()).toBe(18);
  const [newest, refused] = await moving.cutovers();
  expect(newest).toMatchObject({ outcome: 'committed', reason: expect.stringMatching(WAIVED) as string });
  expect(refused).toMatchObject({
    outcome: 'aborted',
    reason: expect.stringContaining('did not reach parity') as string,
  });
  const events = await moving.system.admin<{ event: string; data: string }>('SHOW EVENTS');
  const parity = events.filter(({ event }) => event === 'ParityReached').map(({ data }) => JSON.parse(data) as unknown);
  expect(parity).toEqual([
    expect.objectContaining({ parity: 'waived', reason: expect.stringMatching(WAIVED) as string }),
  ]);
  // Both records tell it, whichever side is lost later.
  for (const cluster of [moving.system.source, moving.system.destination]) {
    const rows = await cluster.query('app', `SELECT FROM cutover.event WHERE data ->> 'parity' = 'waived'`);
    expect(rows).toHaveLength(1);
  }
});
