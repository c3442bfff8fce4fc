/** One task: a clock of the machine that jumps, in the process that runs node and engine, ends no lease and moves no decision. */
import { expect, test, vi, onTestFinished } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { acceptingSides, planFor, settle, Writers } from '../support/faults.js';
import { usePair } from '../support/pair.js';
import { until } from '../support/wait.js';

const pair = usePair({ source: 17, destination: 18, general: 'cutover_lease = 2000' });

const HOUR_MS = 3_600_000;
const JUMPS_MS = [-HOUR_MS, 24 * HOUR_MS, -HOUR_MS * 24 * 365, HOUR_MS];

/** `Date` alone is replaced: timers and performance.now() are the monotonic clock, which does not jump. */
function jumpingClock(): () => void {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  let jumps = 0;
  return () => {
    vi.setSystemTime(Date.now() + (JUMPS_MS[jumps++ % JUMPS_MS.length] ?? 0));
  };
}

test('a clock that jumps before every step: the move commits at its first try, and back', async () => {
  const writers = await Writers.start(() => pair().client());
  const jump = jumpingClock();
  pair().onStep = jump;
  for (const [heading, serving] of [
    ['forward', 'destination'],
    ['reverse', 'source'],
  ] as const) {
    const plan = await planFor(pair(), heading);
    const result = await new CriticalSection(pair().context).moveTraffic(plan);
    expect(result, JSON.stringify(result)).toMatchObject({ ok: true });
    await settle(pair(), plan, result);
    expect(await acceptingSides(pair())).toEqual([serving]);
    await writers.flow();
  }
  await writers.settle(pair());
});

test('a clock that jumps ahead by a day does not end a lease, and one that jumps back does not keep it', async () => {
  const jump = jumpingClock();
  const plan = await planFor(pair(), 'forward');
  const section = new CriticalSection(pair().context);
  pair().onStep = jump;
  const start = performance.now();
  expect(await section.closeSource(plan)).toMatchObject({ ok: true });
  jump();
  expect(pair().proxy.gate('prod').reasons).toContain('cutover');
  jump();
  await until('the lease ends', () => !pair().proxy.gate('prod').reasons.includes('cutover'));
  expect(performance.now() - start).toBeGreaterThan(1_900);
  expect(await acceptingSides(pair())).toEqual(['source']);
});
