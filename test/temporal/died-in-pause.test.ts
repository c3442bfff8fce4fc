/** One task: a move whose engine died after its commit is told as moved, and nothing claims to know how long its pause was. */
import { ApplicationFailure } from '@temporalio/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { MoveResult, TaskEvent } from '../../src/cutover/contract.js';
import { useTemporal } from '../support/temporal.js';
import { until } from '../support/wait.js';
import { ScriptedEngine, REQUEST } from './scripted-engine.js';

const temporal = useTemporal();
let engine: ScriptedEngine;

beforeAll(async () => {
  engine = await ScriptedEngine.start(temporal().address, 'died-in-pause', {
    moveTraffic: () => Promise.reject(ApplicationFailure.nonRetryable('the engine is gone')),
    returnToSource: () => Promise.reject(ApplicationFailure.nonRetryable('the engine is gone')),
    // The nodes have gone forward by themselves.
    resolvePause: ({ epoch }) =>
      Promise.resolve({ epoch, outcome: 'committed', reason: 'the engine is gone', events: [], pausedMs: null }),
  });
  engine.hold('watchStreams');
});

afterAll(async () => {
  await engine.stop();
});

test('its story and its sentence have no milliseconds that nobody measured', async () => {
  const streams = await engine.start('replicate', 'streams', REQUEST);
  await until('the streams run', () => engine.calls.includes('watchStreams'), 30_000);
  const move = await engine.start('cutover', 'unmeasured', REQUEST);
  const { outcome, pausedMs, sentence } = (await move.result()) as MoveResult;
  expect({ outcome, pausedMs }).toEqual({ outcome: 'moved', pausedMs: null });
  expect(sentence).toBe('traffic moved (prod → prod_new), epoch 1, how long clients were held is not known');
  const moved = (await move.query<readonly TaskEvent[]>('events')).find(({ type }) => type === 'TrafficMoved');
  expect(moved?.data).toEqual({ heading: 'forward', epoch: 1, at: moved?.data.at });
  await streams.terminate();
});
