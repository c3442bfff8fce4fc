/** One task: a rehearsal shows what a cutover would take, moves nothing, and leaves nothing that the next cutover meets. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { REHEARSAL } from '../../src/cutover/contract.js';
import { STEPS } from '../../src/cutover/epoch.js';
import { acceptingSides } from '../support/faults.js';
import { Moving } from './moving.js';

interface RehearsalLine {
  readonly step: string;
  readonly ms: string | null;
  readonly detail: string;
}

/** Everything a rehearsal could leave on either side that was not there before. */
async function traces(moving: Moving): Promise<readonly unknown[]> {
  const of = async (cluster: Moving['system']['source']): Promise<unknown> => [
    await cluster.query('app', 'SELECT slot_name FROM pg_replication_slots ORDER BY 1'),
    await cluster.query('app', 'SELECT subname, subenabled FROM pg_subscription ORDER BY 1'),
    await cluster.query('app', 'SELECT pubname FROM pg_publication ORDER BY 1'),
    await cluster.query(
      'app',
      `SELECT tgname, count(*)::int FROM pg_trigger WHERE NOT tgisinternal GROUP BY 1 ORDER BY 1`,
    ),
    await cluster.query('app', `SELECT gid FROM pg_prepared_xacts`),
    await cluster.query('app', `SELECT count(*)::int FROM cutover.migration WHERE operation IS NOT NULL`),
  ];
  return [await of(moving.system.source), await of(moving.system.destination)];
}

function rehearse(moving: Moving, target = ''): Promise<RehearsalLine[]> {
  return moving.system.admin<RehearsalLine & Record<string, string | null>>(`CUTOVER ${target} REHEARSE`);
}

function expectShown(rows: readonly RehearsalLine[], shown: number): void {
  expect(rows.map((r) => r.step)).toEqual([...STEPS, 'clients held']);
  for (const row of rows.slice(0, shown)) expect(Number(row.ms), row.step).toBeGreaterThan(0);
  for (const row of rows.slice(shown, -1)) expect(row, row.step).toMatchObject({ ms: null });
  const [held] = rows.slice(-1);
  expect(held?.ms).not.toBeNull();
  expect(held?.detail).toContain('traffic stays where it was');
}

describe.each([
  { source: 17, destination: 18, shown: 5 },
  { source: 15, destination: 18, shown: 4 },
] as const)('a rehearsal $source → $destination', ({ shown, ...majors }) => {
  let moving: Moving;
  let task = '';

  beforeAll(async () => {
    moving = await Moving.start(majors);
    task = await moving.copyData();
  });

  afterAll(async () => {
    await moving.stop();
  });

  test('comes to its end with writers quiet', { timeout: 90_000 }, async () => {
    expectShown(await rehearse(moving, 'prod'), shown);
    expect(await acceptingSides(moving.system, 'accounts')).toEqual(['source']);
  });

  test('under load shows each step and the stall, and the traffic stays', { timeout: 90_000 }, async () => {
    await moving.load();
    const before = await traces(moving);
    const rows = await rehearse(moving, task);
    expectShown(rows, shown);
    await moving.writes();
    expect(await acceptingSides(moving.system, 'accounts')).toEqual(['source']);
    expect(await moving.servingMajor()).toBe(majors.source);
    expect(await traces(moving)).toEqual(before);
    const [attempt, ...earlier] = await moving.cutovers();
    // One pause: the quiet rehearsal before this one is all there was.
    expect(earlier).toHaveLength(1);
    expect(attempt).toMatchObject({ outcome: 'aborted', reason: REHEARSAL, heading: 'forward' });
    expect(Number(attempt?.paused_ms)).toBe(Number(rows.at(-1)?.ms));
    // The move it belongs to goes on as if nothing had been.
    await moving.system.task('the move waits', (t) => t.id === task && t.inner_status === 'replicating');
  });

  test('fails with the reason a cutover would have, and gives the traffic back', { timeout: 90_000 }, async () => {
    moving.system.onStep = (_, step) => {
      if (step === 'awaitParity') throw new Error('made to fail');
    };
    await expect(rehearse(moving, task)).rejects.toThrow(/did not come to its end.*awaitParity: made to fail/);
    moving.system.onStep = () => undefined;
    await moving.writes();
    expect(await acceptingSides(moving.system, 'accounts')).toEqual(['source']);
  });

  test('the cutover after it works, and the way back is rehearsed too', { timeout: 90_000 }, async () => {
    await moving.cutoverByOperator(task);
    expect(await moving.servingMajor()).toBe(majors.destination);
    await moving.writes();
    await expect(rehearse(moving)).rejects.toThrow(/has moved already/);
    const back = await moving.streamsTask('reverse');
    expectShown(await rehearse(moving, back), shown);
    expect(await acceptingSides(moving.system, 'accounts')).toEqual(['destination']);
    await moving.writes();
    await moving.cutoverByOperator(back);
    await moving.writes();
    const outcomes = await moving.cutovers();
    expect(outcomes.filter((c) => c.outcome === 'committed').map((c) => c.heading)).toEqual(['reverse', 'forward']);
    expect(outcomes.filter((c) => c.outcome === 'aborted')).toHaveLength(4);
    await moving.expectNothingLost();
  });
});
