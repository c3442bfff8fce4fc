/** One task: defects that others paid for, in and around the pause; one test each, named after the defect (docs/evidence/defects.md). */
import { afterEach, describe, expect, it } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { STEPS, type Step } from '../../src/cutover/epoch.js';
import { sideOf } from '../../src/cutover/side.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect } from '../../src/postgres/connection.js';
import { acceptingSides, move, planFor } from '../support/faults.js';
import { configFor, usePair } from '../support/pair.js';
import { until } from '../support/wait.js';

const INSERT = 'INSERT INTO public.item (name) VALUES ($1)';
const STORM = 150;

const pair = usePair({ source: 17, destination: 18, general: 'cutover_drain_timeout = 300\ndefault_pool_size = 5' });

afterEach(() => {
  pair().onStep = () => undefined;
});

/** Runs `work` once, when the step begins; the step waits for it. */
function at(step: Step, work: () => Promise<unknown>): void {
  pair().onStep = async (_, begun) => {
    if (begun !== step) return;
    pair().onStep = () => undefined;
    await work();
  };
}

async function count(cluster: Cluster, name: string): Promise<number> {
  return (await cluster.query('app', 'SELECT FROM public.item WHERE name = $1', [name])).length;
}

async function onceOnBothSides(name: string): Promise<void> {
  for (const cluster of [pair().source, pair().destination])
    await until(`"${name}" is there once`, async () => (await count(cluster, name)) === 1);
}

async function thereAndBack(): Promise<void> {
  await move(pair(), 'forward');
  await move(pair(), 'reverse');
}

/** A client of the proxy that ends with its work. */
async function asClient<T>(
  work: (query: (sql: string, values?: unknown[]) => Promise<unknown>) => Promise<T>,
): Promise<T> {
  const client = await pair().client();
  try {
    return await work((sql, values) => client.query(sql, values));
  } finally {
    await client.end();
  }
}

it('position captured before the fence: a write between the pause and the seal is moved', async () => {
  at('sealSource', () => pair().source.query('app', INSERT, ['before the seal']));
  await thereAndBack();
  await onceOnBothSides('before the seal');
});

it('open transaction across the switch: the seal waits for it, and it is moved', async () => {
  const direct = await connect(pair().source.endpoint('app'));
  let committed: Promise<unknown> = Promise.resolve();
  at('sealSource', async () => {
    await direct.query('BEGIN');
    await direct.query(INSERT, ['open across the switch']);
    const sealWaits = `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'cutover.seal'`;
    committed = until('the seal waits', async () => (await pair().source.query('app', sealWaits)).length > 0).then(() =>
      direct.query('COMMIT'),
    );
  });
  await move(pair(), 'forward');
  await committed;
  await direct.end();
  expect(await count(pair().destination, 'open across the switch')).toBe(1);
  await move(pair(), 'reverse');
});

it('reverse position captured after the first write on the new side: the very first one flows back', async () => {
  let first: Promise<unknown> = Promise.resolve();
  at('awaitParity', () => {
    // Held at the gate: nothing can reach the new side before it.
    first = asClient((query) => query(INSERT, ['the first write']));
    return until('it waits', () => pair().proxy.gate('prod').waitingCount > 0);
  });
  await move(pair(), 'forward');
  await first;
  await onceOnBothSides('the first write');
  await move(pair(), 'reverse');
});

describe('PAUSE and RESUME racing', () => {
  it('a resume of an earlier epoch that comes late opens nothing of a later pause', async () => {
    const { node, proxy, migration } = pair();
    const earlier = await planFor(pair(), 'forward');
    const section = new CriticalSection(pair().context);
    await section.closeSource(earlier);
    await section.returnToSource(earlier, 'the test');
    const later = await planFor(pair(), 'forward');
    await section.closeSource(later);
    await node.resume('prod', earlier.epoch, sideOf(migration.source));
    expect(proxy.gate('prod').reasons).toEqual(['cutover']);
    await section.returnToSource(later, 'the test');
    expect(proxy.gate('prod').closed).toBe(false);
  });

  it('a resume that came before its pause is not undone by it', async () => {
    const { node, proxy, migration } = pair();
    const plan = await planFor(pair(), 'forward');
    const section = new CriticalSection(pair().context);
    await section.returnToSource(plan, 'the test');
    await node.resume('prod', plan.epoch, sideOf(migration.source));
    expect(await section.closeSource(plan)).toMatchObject({ ok: false });
    await section.returnToSource(plan, 'the test');
    expect(proxy.gate('prod').closed).toBe(false);
  });

  it('a cutover opens its own gate and nobody else’s', async () => {
    const gate = pair().proxy.gate('prod');
    gate.close('pause');
    await thereAndBack();
    expect(gate.reasons).toEqual(['pause']);
    gate.open('pause');
  });
});

it('a reload while clients wait in the pause: they wait on, and are served by the side that was decided', async () => {
  let held: Promise<unknown> = Promise.resolve();
  at('awaitParity', async () => {
    held = asClient((query) => query(INSERT, ['held through a reload']));
    await until('it waits', () => pair().proxy.gate('prod').waitingCount > 0);
    const { source, destination, node } = pair();
    await node.reload(configFor(source, destination, 'cutover_drain_timeout = 300\ndefault_pool_size = 4'));
    expect(pair().proxy.gate('prod').waitingCount).toBe(1);
  });
  await move(pair(), 'forward');
  await held;
  await onceOnBothSides('held through a reload');
  await move(pair(), 'reverse');
});

it('a second pause that never drains: aborted within its time, named, and everybody else goes on', async () => {
  await thereAndBack();
  const stuck = await pair().client();
  const plan = await planFor(pair(), 'forward');
  await stuck.query('BEGIN');
  await stuck.query(INSERT, ['in the way']);
  const section = new CriticalSection(pair().context);
  const closed = await section.closeSource(plan);
  expect(closed).toMatchObject({ ok: false, step: 'pauseTraffic' });
  expect(closed).toMatchObject({ reason: expect.stringMatching(/still running after 300 ms: client \d+/) as string });
  await section.returnToSource(plan, 'the test');
  await asClient((query) => query(INSERT, ['goes on']));
  await stuck.query('COMMIT');
  await stuck.end();
  await thereAndBack();
  await onceOnBothSides('in the way');
});

it('abort with the engine’s connections dead: the source serves again, and the next run works', async () => {
  const die = (cluster: Cluster): Promise<unknown> =>
    cluster.query(
      'app',
      `SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = 'cutover engine'`,
    );
  at('commitCutover', async () => {
    await Promise.all([die(pair().source), die(pair().destination)]);
    throw new Error('it gives up with nothing in hand');
  });
  const plan = await planFor(pair(), 'forward');
  const section = new CriticalSection(pair().context);
  expect(await section.moveTraffic(plan)).toMatchObject({ ok: false });
  expect(await section.returnToSource(plan, 'its connections died')).toMatchObject({ outcome: 'aborted' });
  expect(await acceptingSides(pair())).toEqual(['source']);
  await asClient((query) => query(INSERT, ['after dead connections']));
  await thereAndBack();
});

it('equal ids issued on both sides: what was drawn behind the seal is not drawn again', async () => {
  const draw = async (cluster: Cluster, values: number): Promise<readonly number[]> => {
    const rows = await cluster.query<{ id: number }>(
      'app',
      `SELECT nextval('public.item_id_seq')::int AS id FROM generate_series(1, ${values.toString()})`,
    );
    return rows.map(({ id }) => id);
  };
  const behindTheSeal: number[] = [];
  // No trigger sees nextval, and the values for the destination have been read by then.
  at('commitCutover', async () => behindTheSeal.push(...(await draw(pair().source, 500))));
  await move(pair(), 'forward');
  const after = await draw(pair().destination, 500);
  at('commitCutover', async () => behindTheSeal.push(...(await draw(pair().destination, 500))));
  await move(pair(), 'reverse');
  const all = [...behindTheSeal, ...after, ...(await draw(pair().source, 500))];
  expect(new Set(all).size).toBe(2_000);
});

describe('leftovers of a run aborted at a step break the next run', () => {
  it.each(STEPS)('not those of %s', async (step) => {
    at(step, () => Promise.reject(new Error('it died here')));
    const plan = await planFor(pair(), 'forward');
    const section = new CriticalSection(pair().context);
    const result = await section.moveTraffic(plan);
    expect(result).toMatchObject({ ok: false, step });
    const { outcome } = await section.returnToSource(plan, 'it died');
    // After step 6 it is decided: what was begun is carried to its end.
    const decided = STEPS.indexOf(step) > STEPS.indexOf('commitCutover');
    expect(outcome).toBe(decided ? 'committed' : 'aborted');
    expect(await acceptingSides(pair())).toEqual([decided ? 'destination' : 'source']);
    await asClient((query) => query(INSERT, [`after ${step}`]));
    if (!decided) await move(pair(), 'forward');
    await onceOnBothSides(`after ${step}`);
    await move(pair(), 'reverse');
  });
});

it('a connect storm at the pause: all are let in, held, and served once, by as many servers as the pool has', async () => {
  let storm: Promise<unknown> = Promise.resolve();
  at('awaitParity', async () => {
    storm = Promise.all(
      Array.from({ length: STORM }, (_, client) => asClient((query) => query(INSERT, [`storm ${client.toString()}`]))),
    );
    await until('all wait', () => pair().proxy.gate('prod').waitingCount === STORM);
  });
  await move(pair(), 'forward');
  await storm;
  const rows = await pair().destination.query(
    'app',
    `SELECT name FROM public.item WHERE name LIKE 'storm %' GROUP BY name HAVING count(*) = 1`,
  );
  expect(rows).toHaveLength(STORM);
  expect(
    pair()
      .proxy.servers()
      .filter(({ database }) => database === 'prod').length,
  ).toBeLessThanOrEqual(5);
  await move(pair(), 'reverse');
});
