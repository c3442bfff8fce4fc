/** One task: hold the engine to the limits of its renewals: clients must not be held for as long as something hangs. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { LeaseKeeper } from '../../activities/lease-keeper.js';
import type { EpochPlan } from '../../src/cutover/contract.js';
import type { FleetNode } from '../../src/fleet/node.js';
import { migrationOf } from '../temporal/scripted-engine.js';

const side = { systemIdentifier: '7000000000000000001', databaseOid: 1, timeline: 1 };
const PLAN: EpochPlan = {
  ...{ migration: migrationOf('somebody'), heading: 'forward', epoch: 1, nonce: 'n', attempt: 'a', nodes: [] },
  ...{ source: side, destination: { ...side, systemIdentifier: '7000000000000000002' } },
  ...{ leaseMs: 600, drainMs: 150, drainAction: 'abort', timeoutMs: 250, timeoutAction: 'abort' },
  ...{ acceptLoss: false, saveConfig: false, maxAttempts: 1 },
};

const NOTHING_WAITS = (): number => 0;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

test('a part that hangs on a silent server is given up after all its waits together, and renews no more', async () => {
  const renew = vi.fn(() => Promise.resolve(true));
  const keeper = new LeaseKeeper(
    [{ name: 'node1', renew } as Partial<FleetNode> as FleetNode],
    PLAN,
    [],
    NOTHING_WAITS,
  );
  const lost = vi.fn();
  keeper.lost.catch(lost);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(lost).not.toHaveBeenCalled();
  expect(renew).toHaveBeenCalledTimes(5);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(lost).toHaveBeenCalledWith(expect.objectContaining({ code: 'record_unreachable' }));
  expect(renew).toHaveBeenCalledTimes(5);
});

test('a node that does not answer two renewals is silent, and named; one that misses a single one is not', async () => {
  let answers = true;
  const renew = vi.fn(() => (answers ? Promise.resolve(true) : Promise.reject(new Error('no route to host'))));
  const keeper = new LeaseKeeper(
    [{ name: 'node1', renew } as Partial<FleetNode> as FleetNode],
    PLAN,
    [],
    NOTHING_WAITS,
  );
  const lost = vi.fn();
  keeper.lost.catch(lost);
  await vi.advanceTimersByTimeAsync(200);
  answers = false;
  await vi.advanceTimersByTimeAsync(400);
  expect(lost).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(200);
  expect(lost).toHaveBeenCalledWith(expect.objectContaining({ code: 'node_unreachable' }));
  expect(String(lost.mock.calls[0]?.[0])).toMatch(/node1 .*silent for 600 ms: no route to host/);
  keeper.end();
});

test('while a server does not answer nothing is renewed, and no node is blamed; once it answers, leases go on', async () => {
  const renew = vi.fn(() => Promise.resolve(true));
  const silent: (() => void)[] = [];
  let silence = false;
  const ask = (): Promise<void> => (silence ? new Promise((resolve) => silent.push(resolve)) : Promise.resolve());
  const nodes = [{ name: 'node1', renew } as Partial<FleetNode> as FleetNode];
  const keeper = new LeaseKeeper(nodes, { ...PLAN, timeoutMs: 60_000 }, [() => Promise.resolve(), ask], NOTHING_WAITS);
  const lost = vi.fn();
  keeper.lost.catch(lost);
  await vi.advanceTimersByTimeAsync(400);
  expect(renew).toHaveBeenCalledTimes(2);
  silence = true;
  // The question of the second renewal was answered: one more renewal, none after that.
  await vi.advanceTimersByTimeAsync(2_000);
  expect(renew).toHaveBeenCalledTimes(3);
  expect(silent).toHaveLength(1);
  silence = false;
  silent.forEach((answer) => {
    answer();
  });
  await vi.advanceTimersByTimeAsync(400);
  expect(renew).toHaveBeenCalledTimes(5);
  expect(lost).not.toHaveBeenCalled();
  keeper.end();
});

test('while a step waits too long for one session nothing is renewed, though its server answers', async () => {
  const renew = vi.fn(() => Promise.resolve(true));
  const nodes = [{ name: 'node1', renew } as Partial<FleetNode> as FleetNode];
  let waitsMs = 360;
  const keeper = new LeaseKeeper(nodes, { ...PLAN, timeoutMs: 60_000 }, [() => Promise.resolve()], () => waitsMs);
  await vi.advanceTimersByTimeAsync(400);
  expect(renew).toHaveBeenCalledTimes(2);
  waitsMs = 361;
  await vi.advanceTimersByTimeAsync(1_000);
  expect(renew).toHaveBeenCalledTimes(2);
  waitsMs = 0;
  await vi.advanceTimersByTimeAsync(200);
  expect(renew).toHaveBeenCalledTimes(3);
  keeper.end();
});

test('a server that refuses is asked again with each renewal', async () => {
  const renew = vi.fn(() => Promise.resolve(true));
  const ask = vi.fn(() => Promise.reject(new Error('connection refused')));
  const nodes = [{ name: 'node1', renew } as Partial<FleetNode> as FleetNode];
  const keeper = new LeaseKeeper(nodes, PLAN, [ask], NOTHING_WAITS);
  await vi.advanceTimersByTimeAsync(800);
  expect(ask).toHaveBeenCalledTimes(4);
  expect(renew).toHaveBeenCalledTimes(1);
  keeper.end();
});

test('a node that is silent is named even where a server answers only every other time', async () => {
  const renew = vi.fn(() => Promise.reject(new Error('no route to host')));
  let turn = 0;
  const ask = (): Promise<void> => (turn++ % 2 === 0 ? Promise.resolve() : Promise.reject(new Error('timeout')));
  const nodes = [{ name: 'node1', renew } as Partial<FleetNode> as FleetNode];
  const keeper = new LeaseKeeper(nodes, { ...PLAN, timeoutMs: 60_000 }, [ask], NOTHING_WAITS);
  const lost = vi.fn();
  keeper.lost.catch(lost);
  await vi.advanceTimersByTimeAsync(700);
  expect(lost).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(200);
  expect(lost).toHaveBeenCalledWith(expect.objectContaining({ code: 'node_unreachable' }));
  keeper.end();
});
