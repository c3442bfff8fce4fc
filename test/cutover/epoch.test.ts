/** One task: whatever order commands and events come in, an epoch has one decision and its story one meaning. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  begun,
  COMMANDS,
  decide,
  epochStream,
  EVENT_OF,
  evolve,
  pausedMsOf,
  PHASE_AFTER,
  PHASES,
  SEQUENCE_OF,
  StepRefused,
  STEPS,
  TRANSITIONS,
  type Command,
  type EpochEvent,
  type EpochEventType,
  type EpochState,
  type Phase,
} from '../../src/cutover/epoch.js';
import { InvariantViolation } from '../../src/errors/invariant.js';

const TYPES = Object.keys(PHASE_AFTER) as EpochEventType[];
const anything = fc.array(fc.constantFrom(...COMMANDS), { maxLength: 2 });

/** The steps in their order with anything in between, ending anywhere: chance alone would hardly ever come to a commit. */
const commands = fc
  .tuple(fc.array(anything, { minLength: STEPS.length, maxLength: STEPS.length }), anything, fc.nat({ max: 30 }))
  .map(([between, last, length]) =>
    [...STEPS.flatMap((step, place): Command[] => [...(between[place] ?? []), step]), ...last].slice(0, length),
  );
const data = fc.dictionary(fc.constantFrom('ms', 'reason', 'at', 'lsn'), fc.jsonValue());
const event = fc.record({ type: fc.constantFrom(...TYPES), data });

/** What really comes about: commands in any order, those refused left out. */
function run(sequence: readonly Command[]): { state: EpochState; events: EpochEvent[] } {
  let state = begun(7);
  const events: EpochEvent[] = [];
  for (const command of sequence) {
    try {
      for (const next of decide(state, command, { ms: events.length })) {
        events.push(next);
        state = evolve(state, next);
      }
    } catch (error) {
      if (!(error instanceof StepRefused)) throw error;
    }
  }
  return { state, events };
}

function inPhase(phase: Phase): EpochState {
  return { epoch: 7, phase, stepMs: {}, reason: null };
}

const outcome = (command: Command): EpochEventType => EVENT_OF[command];

describe('decide', () => {
  test('no sequence of commands decides an epoch twice', () => {
    fc.assert(
      fc.property(commands, (sequence) => {
        const decisions = run(sequence).events.filter((e) =>
          [outcome('commitCutover'), outcome('abort')].includes(e.type),
        );
        expect(decisions.length).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('a commit comes only after every proof, in the order of the steps', () => {
    fc.assert(
      fc.property(commands, (sequence) => {
        const { events } = run([...sequence, ...STEPS]);
        const forward = events.filter((e) => SEQUENCE_OF[e.type] <= SEQUENCE_OF.TrafficResumed);
        expect(forward.map((e) => e.type)).toEqual(STEPS.slice(0, forward.length).map(outcome));
      }),
    );
  });

  test('traffic resumes on the side that was decided, never on the other', () => {
    fc.assert(
      fc.property(commands, (sequence) => {
        const { phase } = run(sequence).state;
        const types = run(sequence).events.map((e) => e.type);
        if (phase === 'resumed') expect(types).toContain('CutoverCommitted');
        if (phase === 'returned') expect(types).toContain('CutoverAborted');
        expect(types.includes('TrafficResumed') && types.includes('TrafficReturned')).toBe(false);
      }),
    );
  });

  test('a step that runs again after any later one changes nothing', () => {
    fc.assert(
      fc.property(commands, fc.nat(), (sequence, index) => {
        const { state, events } = run(sequence);
        const done = COMMANDS.filter((command) => events.some((e) => e.type === outcome(command)));
        const again = done[index % Math.max(1, done.length)];
        fc.pre(again !== undefined);
        const caused = TRANSITIONS[state.phase][again] === 'refuse' ? [] : decide(state, again);
        expect(caused).toEqual([]);
      }),
    );
  });

  test('running the steps of a committed epoch from the first on is one repeat after the other', () => {
    const { state } = run(STEPS);
    expect(STEPS.flatMap((step) => decide(state, step))).toEqual([]);
  });

  test('what the table refuses throws, names command and phase, and nothing else throws', () => {
    for (const phase of PHASES)
      for (const command of COMMANDS) {
        const attempt = (): unknown => decide(inPhase(phase), command);
        if (TRANSITIONS[phase][command] === 'refuse') expect(attempt).toThrow(new StepRefused(command, phase));
        else expect(attempt).not.toThrow();
      }
  });

  test('every phase but the last ones has a way on, so that no epoch is stuck', () => {
    const stuck = PHASES.filter((phase) => !COMMANDS.some((command) => TRANSITIONS[phase][command] === 'do'));
    expect(stuck).toEqual(['resumed', 'returned']);
  });
});

describe('evolve', () => {
  const committed: readonly Phase[] = ['committed', 'swapped', 'resumed'];
  const aborted: readonly Phase[] = ['aborted', 'returned'];

  function contradicts(state: EpochState, type: EpochEventType): boolean {
    return (
      (committed.includes(state.phase) && type === 'CutoverAborted') ||
      (aborted.includes(state.phase) && type === 'CutoverCommitted')
    );
  }

  test('a story that holds both decisions is a contradiction, in either order', () => {
    for (const phase of PHASES)
      for (const type of TYPES) {
        const attempt = (): unknown => evolve(inPhase(phase), { type, data: {} });
        if (contradicts(inPhase(phase), type)) expect(attempt, `${phase} ${type}`).toThrow(InvariantViolation);
        else expect(attempt, `${phase} ${type}`).not.toThrow();
      }
  });

  test('any event with any data is understood, and the phase never goes back', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (story) => {
        let state = begun(7);
        for (const next of story) {
          if (contradicts(state, next.type)) continue;
          const after = evolve(state, next);
          expect(PHASES).toContain(after.phase);
          expect(PHASES.indexOf(after.phase)).toBeGreaterThanOrEqual(PHASES.indexOf(state.phase));
          expect(after.epoch).toBe(7);
          state = after;
        }
      }),
    );
  });

  test('an event read twice, now or later, is read once', () => {
    fc.assert(
      fc.property(commands, fc.nat(), (sequence, index) => {
        const { state, events } = run(sequence);
        const again = events[index % Math.max(1, events.length)];
        if (again) expect(evolve(state, again)).toEqual(state);
        expect(events.reduce(evolve, begun(7))).toEqual(state);
      }),
    );
  });

  test('the milliseconds of every step are kept, and the reason of an abort', () => {
    const story = STEPS.map((step, ms): EpochEvent => ({ type: EVENT_OF[step], data: { ms } }));
    expect(story.reduce(evolve, begun(7)).stepMs).toEqual(Object.fromEntries(STEPS.map((step, ms) => [step, ms])));
    const returned: EpochEvent[] = [
      { type: 'CutoverAborted', data: { reason: 'awaitParity: too late' } },
      { type: 'TrafficReturned', data: {} },
    ];
    expect(returned.reduce(evolve, begun(7))).toMatchObject({ phase: 'returned', reason: 'awaitParity: too late' });
  });
});

describe('the places of events in their stream', () => {
  test('two events never share one, so that the first writer of a place is the only one', () => {
    expect(new Set(Object.values(SEQUENCE_OF)).size).toBe(TYPES.length);
  });

  test('a stream of an epoch is told from a stream of a task by its @', () => {
    expect(epochStream('ab12_1', 3)).toBe('ab12_1@3');
  });
});

describe('how long clients were held', () => {
  const at = (type: EpochEventType, time: string): EpochEvent => ({ type, data: { at: time } });
  const paused = at('TrafficPaused', '2026-11-24T20:00:00.000Z');

  test('is counted to the end that came, here or there', () => {
    expect(pausedMsOf([paused, at('TrafficResumed', '2026-11-24T20:00:00.031Z')])).toBe(31);
    expect(pausedMsOf([paused, at('TrafficReturned', '2026-11-24T20:00:01.000Z')])).toBe(1_000);
  });

  test('is unknown, not zero, without a beginning or an end', () => {
    expect(pausedMsOf([paused])).toBeNull();
    expect(pausedMsOf([at('TrafficResumed', '2026-11-24T20:00:00.031Z')])).toBeNull();
    expect(pausedMsOf([paused, { type: 'TrafficResumed', data: { at: 5 } }])).toBeNull();
  });
});
