/** One task: kill the worker without a word in every phase and before every step; another one carries the move to its end. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { MoveResult } from '../../src/cutover/contract.js';
import { STEPS, type Step } from '../../src/cutover/epoch.js';
import { PUBLICATION } from '../../src/dev/ledger/prepare.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { Moving } from '../moves/moving.js';
import { acceptingSides } from '../support/faults.js';
import { WorkerProcess } from '../support/faults-process.js';
import { until } from '../support/wait.js';

const LEASE_MS = 1_000;
const PHASE_DEADLINE_MS = 60_000;

let moving: Moving;
let worker: WorkerProcess;
let task = '';
let heading: 'forward' | 'reverse' = 'forward';
let moves = 0;

const serving = (): 'source' | 'destination' => (heading === 'forward' ? 'source' : 'destination');

beforeAll(async () => {
  moving = await Moving.start({
    source: 17,
    destination: 18,
    general: `cutover_lease = ${LEASE_MS.toString()}`,
    worker: false,
  });
  worker = new WorkerProcess(moving.system);
  await Promise.all([worker.start(), moving.load()]);
});

afterAll(async () => {
  await worker.kill();
  await moving.stop();
});

/** Holds what `statement` locks at the destination until `end` is called. */
async function holdAtDestination(statement: string): Promise<Connection> {
  const holder = await connect(moving.system.destination.endpoint('app'));
  await holder.query(`BEGIN; ${statement}`);
  return holder;
}

function blockedAt(cluster: Cluster, query: string): Promise<true> {
  const waits = `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '${query}'`;
  return until(`${query} waits`, async () => (await cluster.query('app', waits)).length > 0, PHASE_DEADLINE_MS);
}

async function reached(phase: string): Promise<void> {
  await moving.system.task(`the task reaches "${phase}"`, (t) => t.inner_status === phase, PHASE_DEADLINE_MS);
}

describe('a worker is killed', () => {
  test('in the schema', { timeout: 90_000 }, async () => {
    const holder = await holdAtDestination('CREATE TABLE public.history (id int)');
    const [started] = await moving.system.admin<{ task_id: string }>(`COPY_DATA prod prod_new ${PUBLICATION}`);
    task = started?.task_id ?? '';
    await blockedAt(moving.system.destination, 'history');
    await worker.kill();
    await moving.writes();
    await holder.end();
    await worker.start();
    // The last table of the schema is armed: the copy is next.
    const armed = `SELECT FROM pg_trigger WHERE tgname = 'cutover_fence_truncate' AND tgrelid = to_regclass('public.history')`;
    const { destination } = moving.system;
    await until('the schema is there', async () => (await destination.query('app', armed)).length > 0, 60_000);
  });

  test('in the copy', { timeout: 90_000 }, async () => {
    const { destination } = moving.system;
    const holder = await holdAtDestination('LOCK TABLE public.history IN SHARE MODE');
    const copying = `SELECT FROM pg_subscription_rel WHERE srrelid = 'public.history'::regclass AND srsubstate <> 'r'`;
    await until('the copy waits', async () => (await destination.query('app', copying)).length > 0, 60_000);
    await worker.kill();
    await moving.writes();
    await holder.end();
    await worker.start();
    await reached('replicating');
    await moving.writes();
  });

  test('while the streams run', async () => {
    await worker.kill();
    await moving.writes();
    await worker.start();
    await moving.writes();
    expect(await acceptingSides(moving.system, 'accounts')).toEqual(['source']);
  });

  /** Attempts the move needs: an epoch the nodes have aborted is over, one they never heard of or have committed is not. */
  const attempts = (step: Step): number =>
    step === 'pauseTraffic' || STEPS.indexOf(step) > STEPS.indexOf('commitCutover') ? 1 : 2;

  test.each(STEPS)('before %s', { timeout: 90_000 }, async (step) => {
    const from = serving();
    worker.dieAt(step);
    const workflowId = `killed-${(++moves).toString()}`;
    const args = [{ source: 'prod', destination: 'prod_new', rollback: heading === 'reverse' }];
    const handle = await moving.temporal.workflow.start('cutover', { workflowId, taskQueue: 'cutover', args });
    await worker.died();
    // Nobody but the node is left to decide.
    await moving.writes();
    const [side, ...others] = await acceptingSides(moving.system, 'accounts');
    expect(others).toEqual([]);
    expect(side === from).toBe(STEPS.indexOf(step) <= STEPS.indexOf('commitCutover'));
    await worker.start();
    const result = (await handle.result()) as MoveResult;
    expect(result).toMatchObject({ outcome: 'moved', heading, attempts: attempts(step) });
    heading = heading === 'forward' ? 'reverse' : 'forward';
    expect(await acceptingSides(moving.system, 'accounts')).toEqual([serving()]);
    await moving.writes();
  });

  test('in soak, and the move is finalized by the next one', { timeout: 90_000 }, async () => {
    expect(await moving.cutover()).toMatchObject({ outcome: 'moved' });
    await moving.streamsTask('reverse');
    await worker.kill();
    await moving.writes();
    await worker.start();
    expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
    expect(await moving.cutover()).toMatchObject({ outcome: 'moved' });
    await moving.writes();
    await moving.expectNothingLost();
    await moving.system.served?.node.save('prod');
    await moving.system.admin(`STOP_TASK ${task}`);
    await moving.system.task('the move is finished', (t) => t.id === task && t.status === 'finished');
    for (const cluster of [moving.system.source, moving.system.destination]) await expectNothingLeft(cluster);
  });
});

async function expectNothingLeft(cluster: Cluster): Promise<void> {
  for (const left of [
    'SELECT slot_name FROM pg_replication_slots',
    'SELECT subname FROM pg_subscription',
    `SELECT pubname FROM pg_publication WHERE pubname <> '${PUBLICATION}'`,
    `SELECT rolname FROM pg_roles WHERE rolname ~ 'cutover'`,
    'SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND EXISTS (SELECT FROM cutover.fence WHERE state = $$open$$)',
  ])
    expect(await cluster.query('app', left), left).toEqual([]);
}
