/** One task: an aborted pause below PostgreSQL 16, where the two directions exclude each other, leaves forward running. */
import { expect, it, onTestFinished } from 'vitest';
import { until } from '../support/wait.js';
import { Moving } from './moving.js';

/** Until when the password of the streams back into the source is valid. */
async function loginBack(moving: Moving, validUntil: string): Promise<void> {
  await moving.system.destination.query(
    'app',
    `DO $$ DECLARE role text; BEGIN
       SELECT rolname INTO STRICT role FROM pg_roles WHERE rolname ~ '^cutover_.*_replication$';
       EXECUTE format('ALTER ROLE %I VALID UNTIL ''${validUntil}''', role); END $$`,
  );
}

it('15 → 18: after an abort the next attempt moves, and the way back works', { timeout: 240_000 }, async () => {
  const moving = await Moving.start({ source: 15, destination: 18, general: 'cutover_timeout = 2000' });
  onTestFinished(() => moving.stop());
  await moving.copyData();
  await moving.load();

  // The way back is made inside the pause, after forward was disabled: here it cannot log in.
  await loginBack(moving, '2000-01-01');
  const moved = moving.cutover();
  moved.catch(() => undefined);
  await until('an attempt is aborted', async () => (await moving.cutovers())[0]?.outcome === 'aborted', 90_000);
  const [aborted] = await moving.cutovers();
  expect(aborted?.reason).toMatch(/createReverseReplication: /);
  expect(await moving.servingMajor()).toBe(15);
  await moving.writes();
  await loginBack(moving, 'infinity');

  expect(await moved).toMatchObject({ outcome: 'moved' });
  expect(await moving.servingMajor()).toBe(18);
  await moving.writes();
  expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
  expect(await moving.servingMajor()).toBe(15);
  await moving.writes();
  await moving.expectNothingLost();
});
