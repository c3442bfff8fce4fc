/** One task: what a workflow tells of itself is folded to what SHOW TASKS shows, whatever is missing from it. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TASK_EVENTS, type TaskEvent, type TaskEventType } from '../../src/cutover/contract.js';
import { evolveTask, initialTask, TASK_KINDS, type TaskState } from '../../src/cutover/task.js';

function fold(...events: readonly [TaskEventType, TaskEvent['data']?][]): TaskState {
  return events
    .map(([type, data], sequence): TaskEvent => ({ sequence, type, data: data ?? {} }))
    .reduce(evolveTask, initialTask('reshard', 'prod', 'prod_new'));
}

test('a move as it goes: started, its phases, moved, finished', () => {
  expect(fold()).toMatchObject({ status: 'started', phase: '', reversed: false, reason: null });
  const running = fold(
    ['TaskStarted', { kind: 'copy_data', source: 'a', destination: 'b' }],
    ['PhaseEntered', { phase: 'syncing data' }],
  );
  expect(running).toMatchObject({
    kind: 'copy_data',
    source: 'a',
    destination: 'b',
    status: 'running',
    phase: 'syncing data',
  });
  expect(fold(['TrafficMoved', { heading: 'forward' }], ['TaskFinished', { reason: 'finalized' }])).toMatchObject({
    status: 'finished',
    reversed: true,
    reason: 'finalized',
  });
});

test('a move that went back is not shown as reversed any more', () => {
  expect(fold(['TrafficMoved', { heading: 'forward' }], ['TrafficMoved', { heading: 'reverse' }]).reversed).toBe(false);
});

test('a move that ever went over is known as one, so that its streams keep their number after a rollback', () => {
  expect(fold(['TrafficMoved', { heading: 'forward' }], ['TrafficMoved', { heading: 'reverse' }]).everMoved).toBe(true);
  expect(fold(['PhaseEntered', { phase: 'cutting over' }]).everMoved).toBe(false);
});

test('the reason of an aborted attempt stays until the traffic has moved, and does not end the task', () => {
  const aborted = fold(['PhaseEntered', { phase: 'cutting over' }], ['AttemptAborted', { reason: 'sealSource: busy' }]);
  expect(aborted).toMatchObject({ status: 'running', reason: 'sealSource: busy' });
  expect(fold(['AttemptAborted', { reason: 'busy' }], ['TrafficMoved', { heading: 'forward' }]).reason).toBeNull();
});

test('an end keeps the phase it came in, so that a failure says where', () => {
  const failed = fold(['PhaseEntered', { phase: 'syncing data' }], ['TaskFailed', { reason: 'no' }]);
  expect(failed).toMatchObject({ status: 'failed', phase: 'syncing data', reason: 'no' });
  expect(fold(['TaskCancelled', {}])).toMatchObject({ status: 'cancelled', reason: null });
});

test('any events with any data are understood: an old record never breaks SHOW TASKS', () => {
  const event = fc.record({
    sequence: fc.nat(),
    type: fc.constantFrom(...TASK_EVENTS),
    data: fc.dictionary(fc.constantFrom('kind', 'source', 'destination', 'phase', 'reason', 'heading'), fc.jsonValue()),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 30 }), (events) => {
      const state = events.reduce(evolveTask, initialTask('cutover', 'prod', 'prod_new'));
      expect(TASK_KINDS).toContain(state.kind);
      expect(state.source).not.toBe('');
      expect(typeof state.phase).toBe('string');
      expect(state.reason === null || typeof state.reason === 'string').toBe(true);
    }),
  );
});
