/** One task: an aborted pause below PostgreSQL 16, where the two directions exclude each other, leaves forward running. */
import { expect, it, onTestFinished } from 'vitest';
import { connect } from '../../src/postgres/connection.js';
import { until } from '../support/wait.js';
import { Moving } from './moving.js';

const GENERAL = `cutover_timeout = 1000
cutover_max_attempts = 10
cutover_drain_timeout = 20000
cutover_traffic_stop_threshold = 1000000000`;

it('15 → 18: after an abort the next attempt moves, and the way back works', { timeout: 240_000 }, async () => {
  const moving = await Moving.start({ source: 15, destination: 18, general: GENERAL });
  onTestFinished(() => moving.stop());
  await moving.copyData();
  await moving.load();

  // Somebody holds a table at the destination: the stream runs, its slot is active, and nothing arrives.
  const holder = await connect(moving.system.destination.endpoint('app'));
  onTestFinished(() => holder.end());
  await holder.query('BEGIN; LOCK TABLE public.accounts, public.entries IN EXCLUSIVE MODE');
  await moving.writes();
  const moved = moving.cutover();
  moved.catch(() => undefined);
  await until('an attempt is aborted', async () => (await moving.cutovers())[0]?.outcome === 'aborted', 90_000);
  const [aborted] = await moving.cutovers();
  expect(aborted?.reason).toMatch(/awaitParity: the destination did not reach parity within 1000 ms/);
  await moving.writes();
  await holder.query('ROLLBACK');

  expect(await moved).toMatchObject({ outcome: 'moved' });
  expect(await moving.servingMajor()).toBe(18);
  await moving.writes();
  expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
  expect(await moving.servingMajor()).toBe(15);
  await moving.writes();
  await moving.expectNothingLost();
});
