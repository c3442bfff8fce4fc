/** One task: hold the eight steps to their promise: once, twice, twice at once, late; clients see one pause. */
import { beforeEach, describe, expect, it } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { awaitMoment } from '../../activities/moment.js';
import { writeTimeline } from '../../activities/story.js';
import type { EpochPlan, Heading } from '../../src/cutover/contract.js';
import { STEPS, EVENT_OF } from '../../src/cutover/epoch.js';
import type { Connection } from '../../src/postgres/connection.js';
import { usePair, type Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

let attempts = 0;

function plan(pair: Pair, heading: Heading): Promise<EpochPlan> {
  attempts++;
  const request = { migration: pair.migration, heading, attempt: `test/${attempts.toString()}`, acceptLoss: false };
  return awaitMoment(pair.context, request, () => Promise.resolve());
}

async function servedMajor(client: Connection): Promise<number> {
  const { rows } = await client.query<{ v: number }>(`SELECT current_setting('server_version_num')::int / 10000 AS v`);
  return rows[0]?.v ?? 0;
}

describe.each([
  { source: 17, destination: 18 },
  { source: 15, destination: 18 },
] as const)('a cutover $source → $destination', (majors) => {
  const pair = usePair(majors);
  let section: CriticalSection;
  beforeEach(() => {
    section = new CriticalSection(pair().context);
  });

  it('moves the traffic and back with a client connected all along', async () => {
    const [client, listener] = [await pair().client(), await pair().client()];
    const heard: (string | undefined)[] = [];
    listener.on('notification', ({ payload }) => heard.push(payload));
    await listener.query('LISTEN moved');
    expect(await servedMajor(client)).toBe(majors.source);
    for (const heading of ['forward', 'reverse', 'forward', 'reverse'] as const) {
      await client.query(`INSERT INTO public.item (name) VALUES ($1)`, [heading]);
      const epoch = await plan(pair(), heading);
      const result = await section.moveTraffic(epoch);
      expect(result, JSON.stringify(result)).toMatchObject({ ok: true });
      expect(result.events.map((e) => e.type)).toEqual(STEPS.map((s) => EVENT_OF[s]));
      // The first statement behind the resume: whoever listens is there already.
      const serving = heading === 'forward' ? pair().destination : pair().source;
      await serving.query('app', `SELECT pg_notify('moved', '${heading}')`);
      await writeTimeline(pair().context, epoch, {
        epoch: epoch.epoch,
        outcome: 'committed',
        reason: null,
        events: result.events,
        pausedMs: 1,
      });
      expect(await servedMajor(client)).toBe(heading === 'forward' ? majors.destination : majors.source);
    }
    const { rows } = await client.query(`SELECT count(*)::int AS n FROM public.item`);
    expect(rows[0]).toEqual({ n: 104 });
    await until('it has heard all', () => heard.length >= 4);
    expect(heard).toEqual(['forward', 'reverse', 'forward', 'reverse']);
    for (const each of [client, listener]) await each.end();
    await until('both sides are equal', async () => {
      const counts = await Promise.all(
        [pair().source, pair().destination].map((c) => c.query('app', 'SELECT count(*)::int AS n FROM public.item')),
      );
      return counts.every((rows) => rows[0]?.n === 104);
    });
  });
});
