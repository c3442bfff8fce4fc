/** One task: the protocol holds in every state within small bounds, and does not once a rule or a cell of the table is changed. */
import { describe, expect, test } from 'vitest';
import { TRANSITIONS, type Command, type Outcome, type Phase } from '../../src/cutover/epoch.js';
import { RECORD_DDL } from '../../src/postgres/record-schema.js';
import { check } from './check.js';
import { GUARDS } from './guards.js';
import type { Invariant } from './invariants.js';
import { SCENARIOS } from './scenarios.js';
import type { Bounds } from './state.js';
import { VARIANTS } from './variants.js';
import type { Transitions } from './world.js';

const TWO_NODES: Bounds = {
  nodes: 2,
  shards: 1,
  attempts: 1,
  writes: 1,
  next: 'either',
  nodeCrashes: true,
  failover: false,
  finalize: false,
  remove: false,
  openTransactions: false,
};

describe('every interleaving keeps I1 to I5', () => {
  test.each(SCENARIOS.filter((s) => s.small))('$name', ({ bounds, without }) => {
    const result = check(bounds, { without: without ?? [] });
    expect(result.violation).toBeNull();
    expect(result.states).toBeGreaterThan(1_000);
  });
});

describe('a rule taken out is caught by the invariant it breaks', () => {
  test.each(VARIANTS)('$name: $breaks', ({ bounds, without, breaks }) => {
    const { violation } = check(bounds, { without, watched: [breaks] });
    expect(violation?.invariant).toBe(breaks);
    expect(violation?.trace.length).toBeGreaterThan(2);
  });

  test('no guard stands without a variant that needs it', () => {
    const needed = new Set(VARIANTS.flatMap((variant) => variant.without));
    expect(GUARDS.filter((guard) => !needed.has(guard))).toEqual([]);
  });

  test('the two halves of "lower before compare-and-set with an unchecked commit" are harmless alone', () => {
    expect(check(TWO_NODES, { without: ['lowerComesAfterTheAbort'] }).violation).toBeNull();
    expect(check(TWO_NODES, { without: ['commitChecksTheSeal'] }).violation).toBeNull();
  });
});

describe('the steps are taken by the product’s transition table', () => {
  const changed = (phase: Phase, command: Command, outcome: Outcome): Transitions => ({
    ...TRANSITIONS,
    [phase]: { ...TRANSITIONS[phase], [command]: outcome },
  });

  test.each<[Phase, Command, Invariant]>([
    ['preparing', 'sealSource', 'I4'],
    ['sealed', 'createReverseReplication', 'I2'],
    ['sealed', 'commitCutover', 'I4'],
    ['numbered', 'commitCutover', 'I4'],
    ['preparing', 'resumeTraffic', 'I3'],
    ['ready', 'resumeTraffic', 'I3'],
    ['committed', 'resumeTraffic', 'I4'],
  ])('%s: %s done too early breaks %s', (phase, command, breaks) => {
    expect(check(TWO_NODES, { transitions: changed(phase, command, 'do') }).violation?.invariant).toBe(breaks);
  });

  test.each<[Phase, Command]>([
    ['preparing', 'pauseTraffic'],
    ['paused', 'sealSource'],
    ['ready', 'commitCutover'],
    ['committed', 'swapConfiguration'],
    ['preparing', 'abort'],
    ['aborted', 'returnTraffic'],
  ])('%s: %s refused is safe, and far fewer states are reached', (phase, command) => {
    const whole = check(TWO_NODES);
    const less = check(TWO_NODES, { transitions: changed(phase, command, 'refuse') });
    expect(less.violation).toBeNull();
    expect(less.states).toBeLessThan(whole.states);
  });
});

test('every function of the record that the model mirrors is a function of the product', () => {
  for (const name of ['begin', 'seal', 'commit', 'abort', 'release', 'lower', 'ready', 'open', 'refuse'])
    expect(RECORD_DDL).toContain(`FUNCTION cutover.${name}(`);
});

test('the same bounds visit the same states', () => {
  expect(check(TWO_NODES)).toEqual(check(TWO_NODES));
});
