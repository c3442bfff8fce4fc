/**
 * One task: the switch seen from outside. Clients append to lists and read them while their database moves there, back and
 * there again, and while the worker dies in the pause; what they were told must have an order, and nothing may be missing.
 */
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Step } from '../../src/cutover/epoch.js';
import { withConnection } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { expectSameContents } from '../moves/contents.js';
import { Moving } from '../moves/moving.js';
import { WorkerProcess } from '../support/faults-process.js';
import { until } from '../support/wait.js';
import { startAppendLoad, type AppendLoad } from './append-load.js';
import { check } from './checker.js';
import { describeFindings } from './findings.js';
import { countsOf, type History } from './history.js';
import { emptyLists, LISTS_SCHEMA, readLists, tableOf } from './lists.js';

const SEED = 4;
const LEASE_MS = 1_000;
/** Transactions between two events, so that each switch has something to lose. */
const BETWEEN = 500;
/** Under SERIALIZABLE every application has to expect it (PostgreSQL documentation, 13.2.3); nothing else may be read. */
const SERIALIZATION_FAILURE = '40001';

/** Only a ceiling: every wait below is for a condition, and says which when it does not come. */
vi.setConfig({ testTimeout: 180_000 });

let moving: Moving;
let worker: WorkerProcess;

beforeAll(async () => {
  const general = `cutover_lease = ${LEASE_MS.toString()}`;
  moving = await Moving.start({ source: 17, destination: 18, general, worker: false, schema: LISTS_SCHEMA });
  worker = new WorkerProcess(moving.system);
  await worker.start();
});

afterAll(async () => {
  await worker.kill();
  await moving.stop();
});

async function acknowledges(load: AppendLoad, count = BETWEEN): Promise<void> {
  const enough = load.acknowledged + count;
  await until('transactions are acknowledged', () => load.acknowledged >= enough, 60_000);
}

async function start(endpoints: readonly Endpoint[] = [moving.system.endpoint()]): Promise<AppendLoad> {
  await emptyLists(moving.system.endpoint());
  const load = await startAppendLoad({ endpoints, seed: SEED });
  onTestFinished(async () => {
    await load.stop();
  });
  await acknowledges(load);
  return load;
}

/** The load beside `events`; what it was told must be right, and no client may have noticed anything. */
async function underLoad(events: (load: AppendLoad) => Promise<void>): Promise<History> {
  const load = await start();
  await events(load);
  const history = await load.stop();
  expect(describeFindings(check(history, await readLists(moving.system.endpoint())))).toBe('');
  expectNobodyNoticed(history);
  return history;
}

function expectNobodyNoticed(history: History): void {
  expect(history.refusedLogins).toEqual([]);
  const { ok, unknown, appends, reads, overSeveralKeys, errors } = countsOf(history);
  expect(unknown).toBe(0);
  expect(Object.keys(errors).filter((error) => error !== SERIALIZATION_FAILURE)).toEqual([]);
  // Else it would have proved little.
  expect(ok).toBeGreaterThan(3 * BETWEEN);
  for (const count of [appends, reads, overSeveralKeys]) expect(count).toBeGreaterThan(BETWEEN);
}

async function expectServing(major: number): Promise<void> {
  expect(await moving.servingMajor()).toBe(major);
  await expectSameContents(moving.system.source, moving.system.destination);
}

describe('what clients of lists are told has an order in time, and nothing of it is lost', () => {
  it('without a move: the control', async () => {
    await underLoad((load) => acknowledges(load, 4 * BETWEEN));
  });

  it('across a move, a rollback and a move again', async () => {
    await underLoad(async (load) => {
      await moving.reshard();
      await acknowledges(load);
      expect(await moving.rollback()).toMatchObject({ outcome: 'moved', heading: 'reverse' });
      await acknowledges(load);
      expect(await moving.cutover()).toMatchObject({ outcome: 'moved', heading: 'forward' });
      await acknowledges(load);
    });
    await expectServing(18);
  });

  // Undecided: the node takes the traffic back. Decided: it carries the move to its end. Both without a worker.
  it.each<{ step: Step; rollback: boolean; serves: number }>([
    { step: 'commitCutover', rollback: true, serves: 17 },
    { step: 'swapConfiguration', rollback: false, serves: 18 },
  ])('across a move whose worker is killed before $step', async ({ step, rollback, serves }) => {
    await underLoad(async (load) => {
      worker.dieAt(step);
      const moved = moving.cutover({ rollback });
      moved.catch(() => undefined);
      await worker.died();
      await acknowledges(load);
      await worker.start();
      expect(await moved).toMatchObject({ outcome: 'moved' });
      await acknowledges(load);
    });
    await expectServing(serves);
  });
});

describe('what would be wrong is found', () => {
  it('an element that is taken out of its list by hand', async () => {
    const load = await start();
    await acknowledges(load);
    const history = await load.stop();
    const endpoint = moving.system.endpoint();
    const [[key, items] = [0, []]] = [...(await readLists(endpoint))].sort(([, a], [, b]) => b.length - a.length);
    const victim = items[Math.floor(items.length / 2)] ?? 0;
    await withConnection(endpoint, (client) =>
      client.query(`UPDATE ${tableOf(key)} SET items = array_remove(items, $2) WHERE key = $1`, [key, victim]),
    );
    const lost = check(history, await readLists(endpoint)).filter((f) => f.anomaly === 'lost append');
    expect(lost.map((f) => f.message)).toEqual([
      expect.stringContaining(`element ${victim.toString()} of key ${key.toString()} was acknowledged`),
    ]);
  });

  it('clients that still read the side that was left', async () => {
    const { system } = moving;
    const proxy = system.endpoint();
    await emptyLists(proxy);
    await expectServing(18);
    const load = await start([proxy, proxy, proxy, system.source.endpoint('app')]);
    // The stream back stands, as if it were very late.
    const [stream] = await system.source.query<{ name: string }>('app', 'SELECT subname AS name FROM pg_subscription');
    await system.source.query('app', `ALTER SUBSCRIPTION "${stream?.name ?? ''}" DISABLE`);
    await acknowledges(load, 2 * BETWEEN);
    const history = await load.stop();
    const anomalies = check(history, await readLists(proxy)).map((f) => f.anomaly);
    expect(anomalies).toEqual(expect.arrayContaining(['stale read', 'real-time cycle']));
    // The fence kept them from worse.
    expect(anomalies).not.toContain('lost append');
    expect(countsOf(history).errors).toHaveProperty('CUT01');
  });
});
