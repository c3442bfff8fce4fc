/** One task: what the story of a pause says of its length when the clock of the machine is set meanwhile. */
import { expect, onTestFinished, test, vi } from 'vitest';
import { Story } from '../../activities/pause-story.js';
import { pausedMsOf, STEPS } from '../../src/cutover/epoch.js';

const HOUR_MS = 3_600_000;

test.each([-HOUR_MS, HOUR_MS])('a clock set by %i ms within the pause: paused_ms is what passed', async (jumpMs) => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  const story = new Story(1);
  const start = performance.now();
  for (const step of STEPS)
    await story.step(
      step,
      () => Promise.resolve(vi.setSystemTime(Date.now() + jumpMs)),
      () => ({ at: new Date().toISOString() }),
    );
  const passedMs = performance.now() - start;
  const pausedMs = pausedMsOf(story.events) ?? NaN;
  expect(pausedMs).toBeGreaterThanOrEqual(0);
  // Both ends are whole milliseconds.
  expect(pausedMs).toBeLessThanOrEqual(Math.ceil(passedMs) + 1);
});
