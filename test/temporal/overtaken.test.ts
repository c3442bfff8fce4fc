/** One task: workflows that are overtaken by a move somebody else made go on from what the record says. */
import { ApplicationFailure } from '@temporalio/client';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { TaskEvent } from '../../src/cutover/contract.js';
import type { TaskState } from '../../src/cutover/task.js';
import { useTemporal } from '../support/temporal.js';
import { until } from '../support/wait.js';
import { ScriptedEngine, REQUEST, migrationOf } from './scripted-engine.js';

type Handle = Awaited<ReturnType<ScriptedEngine['start']>>;

const temporal = useTemporal();
const SERVED = 'database "prod" is served by the destination: its migration cannot be removed';
let engine: ScriptedEngine;
let destinationServes = false;
const lossAccepted: boolean[] = [];

beforeAll(async () => {
  engine = await ScriptedEngine.start(temporal().address, 'overtaken', {
    removeMigration: () =>
      destinationServes
        ? Promise.reject(ApplicationFailure.create({ message: SERVED, type: 'destination_serves' }))
        : Promise.resolve(),
    claimOperation: () => Promise.resolve(),
    awaitMoment: (request) => {
      lossAccepted.push(request.acceptLoss);
      return Promise.reject(ApplicationFailure.nonRetryable('no moment in this test', 'stream_lost'));
    },
    assessSituation: () =>
      Promise.resolve({ migration: migration(), serving: 'source', epoch: 0, since: null, streams: true }),
  });
  engine.hold('watchStreams');
});

let owner: string | null = null;
const migration = (): ReturnType<typeof migrationOf> | null => (owner === null ? null : migrationOf(owner));

beforeEach(() => {
  owner = null;
  destinationServes = false;
});

afterAll(async () => {
  await engine.stop();
});

const state = (handle: Handle): Promise<TaskState> => handle.query<TaskState>('state');
const phase = (handle: Handle, wanted: string): Promise<unknown> =>
  until(`the phase is "${wanted}"`, async () => (await state(handle)).phase === wanted, 30_000);

async function streaming(workflowId: string): Promise<Handle> {
  const move = await engine.start('reshard', workflowId, { ...REQUEST, cutover: 'approved' });
  await phase(move, 'replicating');
  owner = `${workflowId}/streams`;
  return move;
}

describe('a move that somebody else made', () => {
  test('turns the phase: soaking, and replicating after the way back, each told once', async () => {
    const move = await streaming('turned');
    await move.signal('moved', { heading: 'forward', epoch: 1 });
    await phase(move, 'soaking');
    await move.signal('moved', { heading: 'reverse', epoch: 2 });
    await phase(move, 'replicating');
    const events = await move.query<readonly TaskEvent[]>('events');
    const phases = events.filter((e) => e.type === 'PhaseEntered').map((e) => e.data.phase);
    expect(phases.slice(-3)).toEqual(['replicating', 'soaking', 'replicating']);
    expect(phases.filter((p) => p === 'replicating')).toHaveLength(2);
    await move.executeUpdate('abort', { args: [] });
    expect(await move.result()).toBe('prod → prod_new: stopped, the source serves');
  });
});

describe('what an operator says of one cutover', () => {
  test('holds for that one and no other', async () => {
    const move = await streaming('lossy');
    for (const options of [{ acceptLoss: true }, undefined]) {
      const before = lossAccepted.length;
      await move.executeUpdate('approve', { args: [options] });
      await until('the moment was asked for', () => lossAccepted.length > before, 30_000);
      await phase(move, 'replicating');
    }
    expect(lossAccepted).toEqual([true, false]);
    await move.executeUpdate('abort', { args: [] });
    await move.result();
  });
});

describe('streams that should be removed while the destination serves', () => {
  test('are finalized, and their move ends with the side that serves', async () => {
    const move = await streaming('unheard');
    destinationServes = true;
    const streams = engine.client.workflow.getHandle('unheard/streams');
    await move.executeUpdate('abort', { args: [] });
    expect(await streams.result()).toBe('finalize');
    expect(await move.result()).toBe('prod → prod_new: finalized, the destination serves');
    expect(engine.calls).toContain('finalizeMigration');
    expect((await streams.query<readonly TaskEvent[]>('events')).map((e) => e.data.reason)).toContain(SERVED);
  });
});
