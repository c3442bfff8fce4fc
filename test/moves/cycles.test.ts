/** One task: ten moves there and back in a row: what one switch leaves behind must not break the next. */
import { expect, it, onTestFinished } from 'vitest';
import { Moving } from './moving.js';

const CYCLES = 10;

it('ten cycles in a row under load leave nothing behind that breaks the next', { timeout: 300_000 }, async () => {
  const moving = await Moving.start({ source: 17, destination: 18 });
  onTestFinished(() => moving.stop());
  await moving.load();
  await moving.reshard();
  for (let cycle = 1; cycle <= CYCLES; cycle++) {
    await moving.writes();
    expect(await moving.rollback()).toMatchObject({ outcome: 'moved', heading: 'reverse', attempts: 1 });
    expect(await moving.servingMajor()).toBe(17);
    await moving.writes();
    expect(await moving.cutover()).toMatchObject({ outcome: 'moved', heading: 'forward', attempts: 1 });
    expect(await moving.servingMajor()).toBe(18);
  }
  await moving.expectNothingLost();
  await moving.expectSequencesAhead('destination');
  const cutovers = await moving.cutovers();
  expect(cutovers.filter((c) => c.outcome === 'committed')).toHaveLength(1 + 2 * CYCLES);
});
