/** One task: an attempt that fails names the step it failed in, also where steps run side by side. */
import { afterEach, expect, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { awaitMoment } from '../../activities/moment.js';
import { usePair } from '../support/pair.js';

const pair = usePair({ source: 17, destination: 18 });

afterEach(() => {
  pair().onStep = () => undefined;
});

test.each(['awaitParity', 'advanceSequences', 'createReverseReplication'] as const)('%s', async (failing) => {
  const section = new CriticalSection(pair().context);
  const request = { migration: pair().migration, heading: 'forward', attempt: failing, acceptLoss: false } as const;
  const plan = await awaitMoment(pair().context, request, () => Promise.resolve());
  pair().onStep = (_, step) => {
    if (step === failing) throw new Error('this step fails');
  };
  const closed = await section.closeSource(plan);
  expect(closed).toMatchObject({ ok: true });
  const proven = await section.proveDestination(plan, closed.events, closed.ok ? closed.sealLsn : null);
  expect(proven).toMatchObject({ ok: false, step: failing, reason: 'this step fails' });
  expect(await section.returnToSource(plan, 'the test')).toMatchObject({ outcome: 'aborted' });
});
