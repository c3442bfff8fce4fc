/** One task: hold the eight steps to their promise: twice in a row, twice at once, late, and after a decision. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import type { EpochPlan, Heading } from '../../src/cutover/contract.js';
import {
  acceptingSides,
  anotherEngine,
  countPauses,
  decisionAt,
  move,
  planFor,
  settle,
  Writers,
} from '../support/faults.js';
import { usePair, type Pair } from '../support/pair.js';

/** How long the launcher of a server before 16 rests between two apply workers: 5 s would be most of the test. */
const BRISK = { wal_retrieve_retry_interval: '200ms' };

const served = (heading: Heading): 'source' | 'destination' => (heading === 'forward' ? 'destination' : 'source');
const opposite = (heading: Heading): Heading => (heading === 'forward' ? 'reverse' : 'forward');

/** Every part of a plan again, in the order of the steps, as a worker would that woke up late. */
async function everythingAgain(section: CriticalSection, plan: EpochPlan, sealLsn: string | null): Promise<void> {
  await section.closeSource(plan);
  await section.proveDestination(plan, [], sealLsn);
  await section.openDestination(plan, [], false);
  await section.openDestination(plan, [], true);
}

describe.each([
  { source: 17, destination: 18 },
  { source: 15, destination: 18 },
] as const)('$source → $destination', (majors) => {
  const pairOf = usePair({ ...majors, general: 'cutover_timeout = 1500', settings: BRISK });
  let pair: Pair;
  let section: CriticalSection;
  let writers: Writers;
  let heading: Heading = 'forward';

  beforeEach(async () => {
    pair = pairOf();
    section = new CriticalSection(pair.context);
    writers = await Writers.start(() => pair.client());
  });

  /** Whatever was done twice: clients run on, on one side, nothing lost or doubled, one pause an epoch. */
  afterEach(async () => {
    await writers.flow();
    await writers.settle(pair);
  });

  test('a part that runs twice in a row pauses once and answers the same', async () => {
    const pauses = countPauses(pair.proxy.gate('prod'));
    const plan = await planFor(pair, heading);
    const closed = await section.closeSource(plan);
    const closedAgain = await section.closeSource(plan);
    expect(closedAgain).toMatchObject({ ok: true, sealLsn: closed.ok ? closed.sealLsn : '' });
    const sealLsn = closed.ok ? closed.sealLsn : null;
    const proven = await section.proveDestination(plan, closed.events, sealLsn);
    expect(await section.proveDestination(plan, closed.events, sealLsn)).toMatchObject({ ok: true });
    const events = [...closed.events, ...proven.events];
    const opened = await section.openDestination(plan, events, false);
    expect(opened).toMatchObject({ ok: true });
    expect(await section.openDestination(plan, events, false)).toMatchObject({ ok: true });
    await settle(pair, plan, opened);
    expect(pauses()).toBe(1);
    expect(await acceptingSides(pair)).toEqual([served(heading)]);
    heading = opposite(heading);
  });

  test('two engines that run the same epoch at once come to one decision', async () => {
    const pauses = countPauses(pair.proxy.gate('prod'));
    const plan = await planFor(pair, heading);
    const other = anotherEngine(pair);
    const [first, second] = await Promise.all([section.moveTraffic(plan), other.section.moveTraffic(plan)]);
    await other.close();
    expect([first, second], JSON.stringify([first, second])).toMatchObject([{ ok: true }, { ok: true }]);
    await settle(pair, plan, first);
    expect(pauses()).toBe(1);
    expect(await acceptingSides(pair)).toEqual([served(heading)]);
    heading = opposite(heading);
  });

  test('the steps from 1 again after 8 change nothing and answer the same', async () => {
    const pauses = countPauses(pair.proxy.gate('prod'));
    const plan = await planFor(pair, heading);
    const first = await section.moveTraffic(plan);
    expect(first, JSON.stringify(first)).toMatchObject({ ok: true });
    expect(await section.moveTraffic(plan)).toMatchObject({ ok: true });
    await settle(pair, plan, first);
    expect(await section.moveTraffic(plan)).toMatchObject({ ok: true });
    expect(pauses()).toBe(1);
    expect(await acceptingSides(pair)).toEqual([served(heading)]);
    heading = opposite(heading);
  });

  test('an aborted epoch stays aborted, whatever step of it comes late, and the next move works', async () => {
    const pauses = countPauses(pair.proxy.gate('prod'));
    const plan = await planFor(pair, heading);
    const closed = await section.closeSource(plan);
    const proven = await section.proveDestination(plan, closed.events, closed.ok ? closed.sealLsn : null);
    expect(proven).toMatchObject({ ok: true });
    const aborted = await section.returnToSource(plan, 'the test gave up');
    expect(aborted).toEqual({ outcome: 'aborted', reason: 'the test gave up' });
    await everythingAgain(section, plan, closed.ok ? closed.sealLsn : null);
    const late = await section.openDestination(plan, [...closed.events, ...proven.events], false);
    expect(late).toMatchObject({ ok: false, step: 'commitCutover', events: [] });
    expect(await section.returnToSource(plan, 'again')).toEqual(aborted);
    const recordSide = heading === 'forward' ? pair.source : pair.destination;
    expect(await decisionAt(recordSide, plan.epoch)).toMatchObject({ state: 'aborted', reason: 'the test gave up' });
    expect(await acceptingSides(pair)).toEqual([served(opposite(heading))]);
    expect(pauses()).toBe(1);
    await move(pair, heading);
    expect(await acceptingSides(pair)).toEqual([served(heading)]);
    heading = opposite(heading);
  });

  test('a step of an epoch that comes after the next one was committed does nothing', async () => {
    const pauses = countPauses(pair.proxy.gate('prod'));
    const early = await planFor(pair, heading);
    await section.closeSource(early);
    await section.returnToSource(early, 'the test gave up');
    const plan = await move(pair, heading);
    await everythingAgain(section, early, null);
    await section.returnToSource(early, 'late');
    expect(await acceptingSides(pair)).toEqual([served(heading)]);
    const back = await move(pair, opposite(heading));
    await everythingAgain(section, plan, null);
    await section.returnToSource(plan, 'late');
    await section.returnToSource(early, 'late');
    expect(await acceptingSides(pair)).toEqual([served(opposite(heading))]);
    const record = await decisionAt(heading === 'forward' ? pair.source : pair.destination, plan.epoch);
    expect(record).toMatchObject({ state: 'committed' });
    expect(back.epoch).toBe(plan.epoch + 1);
    expect(pauses()).toBe(3);
  });
});
