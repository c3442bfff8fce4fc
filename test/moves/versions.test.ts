/** One task: the move between majors under load: there, back, and there again, without a client noticing. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { isPackaged, type Major } from '../../src/dev/embedded-postgres.js';
import { THOROUGH } from '../support/thorough.js';
import { Moving } from './moving.js';

const PAIRS: readonly { source: Major; destination: Major }[] = [
  { source: 14, destination: 18 },
  { source: 18, destination: 18 },
  // Other tests move from these.
  ...(THOROUGH
    ? ([
        { source: 15, destination: 18 },
        { source: 17, destination: 18 },
      ] as const)
    : []),
];

describe.each(PAIRS)('$source → $destination under load', (pair) => {
  it('loses, doubles and refuses nothing: RESHARD, back, there again', { timeout: 240_000 }, async (context) => {
    const { source } = pair;
    context.skip(!isPackaged(source), `PostgreSQL ${source.toString()} is not packaged for this platform`);
    const moving = await Moving.start(pair);
    onTestFinished(() => moving.stop());
    await moving.load();
    const reshard = await moving.reshard();
    expect(await moving.servingMajor()).toBe(pair.destination);
    await moving.writes();
    await moving.cutoverByOperator(await moving.streamsTask());
    expect(await moving.servingMajor()).toBe(pair.source);
    await moving.writes();
    await moving.cutoverByOperator(reshard);
    expect(await moving.servingMajor()).toBe(pair.destination);
    await moving.writes();
    await moving.expectNothingLost();
    await moving.expectSequencesAhead('destination');
    const cutovers = await moving.cutovers();
    expect(cutovers.map((c) => [c.heading, c.outcome])).toEqual([
      ['forward', 'committed'],
      ['reverse', 'committed'],
      ['forward', 'committed'],
    ]);
  });
});
