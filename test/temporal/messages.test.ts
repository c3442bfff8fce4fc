/** One task: what operators may ask of a running move, in every phase, and the sentence that says why not. */
import { ApplicationFailure, WorkflowUpdateFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TaskEvent } from '../../src/cutover/contract.js';
import { evolveTask, initialTask, type TaskState } from '../../src/cutover/task.js';
import { useTemporal } from '../support/temporal.js';
import { until } from '../support/wait.js';
import { ScriptedEngine, REQUEST } from './scripted-engine.js';

type Handle = Awaited<ReturnType<ScriptedEngine['start']>>;

const temporal = useTemporal();
const APPROVED = { ...REQUEST, cutover: 'approved' } as const;
const OLD_SIDE = 'the configuration files still name the old side';
let engine: ScriptedEngine;
let finalizable = true;

beforeAll(async () => {
  engine = await ScriptedEngine.start(temporal().address, 'messages', {
    checkFinalizable: () =>
      finalizable
        ? Promise.resolve()
        : Promise.reject(ApplicationFailure.nonRetryable(OLD_SIDE, 'files_name_old_side')),
  });
  // The streams are watched for as long as the test runs; a cancel ends the watch.
  engine.hold('watchStreams');
});

afterAll(async () => {
  await engine.stop();
});

const update = (handle: { executeUpdate: Handle['executeUpdate'] }, name: string): Promise<unknown> =>
  handle.executeUpdate(name, { args: [] });

/** The sentence of a refusal; fails when the update was accepted. */
async function refusal(handle: { executeUpdate: Handle['executeUpdate'] }, name: string): Promise<string> {
  const answer = await update(handle, name).catch((error: unknown) => error);
  expect(answer, `"${name}" is refused`).toBeInstanceOf(WorkflowUpdateFailedError);
  return (answer as WorkflowUpdateFailedError).cause?.message ?? '';
}

const phase = (handle: Handle, wanted: string): Promise<unknown> =>
  until(`the phase is "${wanted}"`, async () => (await handle.query<TaskState>('state')).phase === wanted, 30_000);

describe('a move says why not', () => {
  test('in every phase, and does what it has accepted', async () => {
    const release = engine.hold('copyTables');
    const move = await engine.start('reshard', 'move', APPROVED);
    await phase(move, 'syncing data');
    expect(await refusal(move, 'approve')).toBe('the streams are not running yet (syncing data)');
    expect(await refusal(move, 'rollback')).toBe('the streams are not running yet (syncing data)');
    expect(await refusal(move, 'finalize')).toBe('the streams are not running yet (syncing data)');
    release();

    await phase(move, 'replicating');
    expect(await refusal(move, 'rollback')).toBe('the source serves: there is nothing to roll back');
    expect(await refusal(move, 'finalize')).toBe('the traffic has not moved: abort instead');

    const goOn = engine.hold('awaitMoment');
    expect(await update(move, 'approve')).toBe('approve: accepted');
    await phase(move, 'cutting over');
    const cutover = engine.client.workflow.getHandle('move/cutover-1');
    await until('the cutover waits for its moment', () => engine.calls.includes('awaitMoment'));
    // Nobody knows yet which side will serve: the answer waits for that.
    const second = refusal(move, 'approve');
    const letWrite = engine.hold('writeTimeline');
    goOn();
    await until('the traffic has moved', () => engine.calls.includes('writeTimeline'));
    expect(await refusal(cutover, 'abort')).toBe('the traffic has moved: go back with a rollback');
    letWrite();
    expect(await second).toBe('the destination serves already; going back is a rollback');

    await phase(move, 'soaking');
    expect(await refusal(move, 'approve')).toBe('the destination serves already; going back is a rollback');
    expect(await refusal(move, 'abort')).toBe('the traffic has moved: roll back, or finalize');
    expect(await refusal(engine.client.workflow.getHandle('move/streams'), 'abort')).toBe(
      'the traffic has moved: finalize, or roll back first',
    );
    expect(await update(move, 'rollback')).toBe('rollback: accepted');
    await phase(move, 'replicating');
    expect((await move.query<TaskState>('state')).reversed).toBe(false);
    expect(await refusal(engine.client.workflow.getHandle('move/streams'), 'finalize')).toBe(
      'the traffic has not moved: stop the task to remove the streams',
    );

    expect(await update(move, 'abort')).toBe('abort: accepted');
    expect(await move.result()).toBe('prod → prod_new: stopped, the source serves');
    expect(engine.calls).toContain('removeMigration');
    await queriesTellTheSame(move, 'cancelled');
  });

  test('a finalize that may not be leaves the soak as it was, with the reason in the state', async () => {
    engine.serving = 'source';
    finalizable = false;
    const move = await engine.start('reshard', 'early', REQUEST);
    await phase(move, 'soaking');
    await update(move, 'finalize');
    const reason = await until('the reason is told', async () => (await move.query<TaskState>('state')).reason, 30_000);
    expect(reason).toBe(OLD_SIDE);
    expect(engine.calls).not.toContain('finalizeMigration');
    finalizable = true;
    await phase(move, 'soaking');
    await update(move, 'finalize');
    expect(await move.result()).toBe('prod → prod_new: finalized, the destination serves');
    await queriesTellTheSame(move, 'finished');
  });

  test('an abort while the cutover waits for its moment stops the cutover too, and no client is ever held', async () => {
    engine.serving = 'source';
    const release = engine.hold('awaitMoment');
    const before = engine.calls.length;
    const move = await engine.start('reshard', 'regretted', REQUEST);
    await until('the cutover waits for its moment', () => engine.calls.slice(before).includes('awaitMoment'), 30_000);
    expect(await update(move, 'abort')).toBe('abort: accepted');
    expect(await move.result()).toBe('prod → prod_new: stopped, the source serves');
    release();
    expect(engine.calls.slice(before)).not.toContain('moveTraffic');
  });

  test('two moves told in the wrong order: the newer epoch stands, for the move and for its streams', async () => {
    engine.serving = 'source';
    const move = await engine.start('reshard', 'disordered', APPROVED);
    await phase(move, 'replicating');
    const streams = engine.client.workflow.getHandle('disordered/streams');
    for (const told of [move, streams]) {
      await told.signal('moved', { heading: 'forward', epoch: 1_002 });
      await told.signal('moved', { heading: 'reverse', epoch: 1_001 });
      const state = await until('the move is heard of', async () => {
        const { reversed } = await told.query<TaskState>('state');
        return reversed ? { reversed } : null;
      });
      expect(state.reversed).toBe(true);
      expect((await told.query<readonly TaskEvent[]>('events')).filter((e) => e.type === 'TrafficMoved')).toHaveLength(
        1,
      );
    }
    await update(move, 'finalize');
    expect(await move.result()).toBe('prod → prod_new: finalized, the destination serves');
  });

  test('an abort that the commit overtakes does not finalize the move', async () => {
    engine.serving = 'source';
    const letWrite = engine.hold('writeTimeline');
    const before = engine.calls.length;
    const move = await engine.start('reshard', 'overtaken', REQUEST);
    await until('the traffic has moved', () => engine.calls.slice(before).includes('writeTimeline'), 30_000);
    expect(await update(move, 'abort')).toBe('abort: accepted');
    letWrite();
    await phase(move, 'soaking');
    await until('the reason is told', async () => (await move.query<TaskState>('state')).reason?.includes('too late'));
    expect(engine.calls.slice(before)).not.toContain('finalizeMigration');
    await update(move, 'finalize');
    expect(await move.result()).toBe('prod → prod_new: finalized, the destination serves');
  });

  test('a cutover aborted while it waits ends with that sentence, and its traffic never moved', async () => {
    engine.serving = 'source';
    const move = await engine.start('reshard', 'waits', APPROVED);
    await phase(move, 'replicating');
    const release = engine.hold('awaitMoment');
    const before = engine.calls.length;
    const cutover = await engine.start('cutover', 'aborted', REQUEST);
    await until('the moment is awaited', () => engine.calls.slice(before).includes('awaitMoment'));
    expect(await update(cutover, 'abort')).toBe('aborted by an operator');
    await expect(cutover.result()).rejects.toMatchObject({ cause: { message: 'not moved: aborted by an operator' } });
    release();
    expect(engine.calls.slice(before)).not.toContain('moveTraffic');
    expect(engine.calls.slice(before)).toContain('releaseOperation');
    await update(move, 'abort');
    await move.result();
  });
});

/** After the end too: the state is a fold of the events, and the events have no gap. */
async function queriesTellTheSame(handle: Handle, status: string): Promise<void> {
  const events = await handle.query<readonly TaskEvent[]>('events');
  const state = await handle.query<TaskState>('state');
  expect(events.map((e) => e.sequence)).toEqual(events.map((_, index) => index));
  expect(events.every((e) => !Number.isNaN(Date.parse(e.data.at as string)))).toBe(true);
  expect(events.reduce(evolveTask, initialTask(state.kind, '', ''))).toEqual(state);
  expect(state).toMatchObject({ ...REQUEST, status });
}
