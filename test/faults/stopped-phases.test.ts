/** One task: STOP_TASK, abort, Cancel and Terminate before the pause: nothing is left, clients are unharmed, the next move works. */
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { PUBLICATION } from '../../src/dev/ledger/prepare.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { Moving } from '../moves/moving.js';
import { until } from '../support/wait.js';
import { THOROUGH } from '../support/thorough.js';

const PHASE_DEADLINE_MS = 45_000;
/** What a transaction may last before a cutover waits for its end. */
const DRAIN_MS = 1_000;

/** Of the ways to stop in one phase all, or the first half. */
function some<T extends string>(...ways: readonly T[]): readonly T[] {
  return THOROUGH ? ways : ways.slice(0, Math.ceil(ways.length / 2));
}

let moving: Moving;
let holder: Connection | null = null;
let moves = 0;

beforeAll(async () => {
  moving = await Moving.start({
    source: 17,
    destination: 18,
    general: `cutover_lease = 1000\ncutover_drain_timeout = ${DRAIN_MS.toString()}`,
  });
  await moving.load();
});

afterEach(async () => {
  await letGo();
});

afterAll(async () => {
  await moving.stop();
});

/** Holds what `statement` locks until `letGo`. */
async function hold(cluster: 'source' | 'destination', statement: string): Promise<void> {
  holder = await connect(moving.system[cluster].endpoint('app'));
  await holder.query(`BEGIN; ${statement}`);
}

async function letGo(): Promise<void> {
  await holder?.end();
  holder = null;
}

async function begin(): Promise<{ handle: WorkflowHandle; taskId: string }> {
  const workflowId = `phase-${(++moves).toString()}`;
  const args = [{ source: 'prod', destination: 'prod_new', publication: PUBLICATION, cutover: 'approved' }];
  const handle = await moving.temporal.workflow.start('reshard', { workflowId, taskQueue: 'cutover', args });
  const task = await moving.system.task('the move is a task', isMove, PHASE_DEADLINE_MS);
  return { handle, taskId: task.id ?? '' };
}

const isMove = (t: { type: string; status: string; id: string | null }): boolean =>
  t.type === 'copy_data prod -> prod_new' && t.status === 'running' && t.id !== null;

function rows(cluster: 'source' | 'destination', query: string): Promise<readonly unknown[]> {
  return moving.system[cluster].query('app', query);
}

/** The beginning of each phase, held open there. */
const phases = {
  schema: async (): Promise<void> => {
    const waits = `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'history'`;
    await until('the schema waits', async () => (await rows('destination', waits)).length > 0, PHASE_DEADLINE_MS);
  },
  copy: async (): Promise<void> => {
    const armed = `SELECT FROM pg_trigger WHERE tgname = 'cutover_fence_truncate' AND tgrelid = to_regclass('public.history')`;
    await until('the schema is there', async () => (await rows('destination', armed)).length > 0, PHASE_DEADLINE_MS);
    await hold('destination', 'LOCK TABLE public.history IN SHARE MODE');
    const copying = `SELECT FROM pg_subscription_rel WHERE srrelid = 'public.history'::regclass AND srsubstate <> 'r'`;
    await until('the copy waits', async () => (await rows('destination', copying)).length > 0, PHASE_DEADLINE_MS);
  },
  streams: async (): Promise<void> => {
    await moving.system.task('streams run', (t) => t.inner_status === 'replicating' && isMove(t), PHASE_DEADLINE_MS);
  },
} as const;

type Command = 'STOP_TASK' | 'abort' | 'Cancel' | 'Terminate';

async function give(command: Command, handle: WorkflowHandle, taskId: string): Promise<void> {
  switch (command) {
    case 'STOP_TASK':
      await moving.system.admin(`STOP_TASK ${taskId}`);
      return;
    case 'abort':
      await handle.executeUpdate('abort');
      return;
    case 'Cancel':
      await handle.cancel();
      return;
    case 'Terminate':
      await handle.terminate('the test');
  }
}

async function expectNothingLeft(): Promise<void> {
  for (const cluster of ['source', 'destination'] as const)
    for (const left of [
      'SELECT slot_name FROM pg_replication_slots',
      'SELECT subname FROM pg_subscription',
      `SELECT pubname FROM pg_publication WHERE pubname <> '${PUBLICATION}'`,
      `SELECT rolname FROM pg_roles WHERE rolname ~ 'cutover'`,
      'SELECT id FROM cutover.migration WHERE active',
      `SELECT tgname FROM pg_trigger WHERE tgname ~ 'cutover_fence'`,
      'SELECT evtname FROM pg_event_trigger',
    ])
      await until(
        `${cluster}: nothing left of ${left}`,
        async () => (await rows(cluster, left)).length === 0,
        PHASE_DEADLINE_MS,
      );
  const tables = `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')`;
  expect(await rows('destination', tables)).toEqual([]);
}

/** The streams outlive a move that was terminated, as a task of their own. */
async function stopStreams(): Promise<void> {
  const streams = await moving.system.task(
    'streams are a task',
    (t) => t.type.startsWith('replication ') && t.status === 'running' && t.id !== null,
    PHASE_DEADLINE_MS,
  );
  await moving.system.admin(`STOP_TASK ${streams.id ?? ''}`);
}

/** Ended in whatever way, with words that a person understands where it failed. */
async function ended(handle: WorkflowHandle, taskId: string): Promise<string> {
  await handle.result().catch(() => undefined);
  const task = await moving.system.task('the task has ended', (t) => t.id === taskId && t.status !== 'running');
  return task.status;
}

test.each(some('STOP_TASK', 'Terminate', 'abort', 'Cancel'))(
  '%s in the schema',
  { timeout: 90_000 },
  async (command) => {
    await hold('destination', 'CREATE TABLE public.history (id int)');
    const { handle, taskId } = await begin();
    await phases.schema();
    await give(command, handle, taskId);
    await letGo();
    expect(await ended(handle, taskId)).toMatch(/^cancelled/);
    // What a terminated move left, with nobody in charge of it, is for the next one to remove: the next test begins there.
    if (command === 'Terminate') return;
    await expectNothingLeft();
    await moving.writes(20);
  },
);

test.each(some('STOP_TASK', 'abort', 'Cancel'))('%s in the copy', { timeout: 90_000 }, async (command) => {
  const { handle, taskId } = await begin();
  await phases.copy();
  await give(command, handle, taskId);
  await letGo();
  expect(await ended(handle, taskId)).toMatch(/^cancelled/);
  await expectNothingLeft();
  await moving.writes(20);
});

test(
  'Terminate in the copy: the streams go on by themselves, and STOP_TASK of theirs ends them',
  { timeout: 90_000 },
  async () => {
    const { handle, taskId } = await begin();
    await phases.copy();
    await give('Terminate', handle, taskId);
    await letGo();
    expect(await ended(handle, taskId)).toMatch(/^cancelled/);
    await stopStreams();
    await expectNothingLeft();
    await moving.writes(20);
  },
);

/** The cutover waits for its moment: a transaction at the source is older than it may be. */
async function waitForTheMoment(taskId: string): Promise<void> {
  await phases.streams();
  await hold('source', 'SELECT 1');
  // A younger one would not be waited for: the traffic would move at once.
  const old = `SELECT FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = 'cutover'
    AND query ~ 'SELECT 1$' AND clock_timestamp() - xact_start > interval '${DRAIN_MS.toString()} ms'`;
  await until('the transaction is old enough', async () => (await rows('source', old)).length > 0, PHASE_DEADLINE_MS);
  await moving.system.admin(`CUTOVER ${taskId}`);
  await moving.waitsFor(/has run a transaction for/);
}

test.each(['STOP_TASK', 'Terminate'] as const)(
  '%s while it waits for the moment',
  { timeout: 90_000 },
  async (command) => {
    const { handle, taskId } = await begin();
    await waitForTheMoment(taskId);
    await give(command, handle, taskId);
    expect(await ended(handle, taskId)).toMatch(/^cancelled/);
    await letGo();
    if (command === 'Terminate') await stopStreams();
    await expectNothingLeft();
    expect(await moving.servingMajor()).toBe(17);
    await moving.writes(20);
  },
);

test(
  'Terminate while the streams run leaves the streams to their own task, which STOP_TASK ends',
  { timeout: 90_000 },
  async () => {
    const { handle, taskId } = await begin();
    await phases.streams();
    await give('Terminate', handle, taskId);
    expect(await ended(handle, taskId)).toMatch(/^cancelled/);
    await stopStreams();
    await expectNothingLeft();
    await moving.writes(20);
  },
);

test.each(some('abort', 'Cancel'))('%s while the streams run', { timeout: 90_000 }, async (command) => {
  const { handle, taskId } = await begin();
  await phases.streams();
  await give(command, handle, taskId);
  expect(await ended(handle, taskId)).toMatch(/^cancelled/);
  await expectNothingLeft();
  await moving.writes(20);
});

/** An index that takes an hour at the destination, and none at the source. */
const SLOW_INDEX = `
  CREATE FUNCTION public.slowly(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN PERFORM pg_catalog.pg_sleep(3600); END IF;
    RETURN id; END $$;
  CREATE TABLE public.slow (id int PRIMARY KEY); INSERT INTO public.slow VALUES (1);
  CREATE INDEX slow_index ON public.slow (public.slowly(id));`;
const SLOW_INDEX_GONE = 'DROP TABLE public.slow; DROP FUNCTION public.slowly';

test.each(some('Cancel', 'STOP_TASK', 'abort'))(
  '%s while an index is built does not wait for its end, and the server does not go on with it',
  { timeout: 90_000 },
  async (command) => {
    await moving.system.source.query('app', SLOW_INDEX);
    const { handle, taskId } = await begin();
    const builds = `SELECT FROM pg_stat_activity WHERE state = 'active' AND query ~ '^CREATE INDEX slow_index'`;
    await until(
      'the index is being built',
      async () => (await rows('destination', builds)).length > 0,
      PHASE_DEADLINE_MS,
    );
    await give(command, handle, taskId);
    expect(await ended(handle, taskId)).toMatch(/^cancelled/);
    expect(await rows('destination', builds)).toEqual([]);
    await expectNothingLeft();
    await moving.system.source.query('app', SLOW_INDEX_GONE);
    await moving.writes(20);
  },
);

test('after all of them a move works, and nothing was lost', { timeout: 90_000 }, async () => {
  await moving.reshard();
  expect(await moving.servingMajor()).toBe(18);
  await moving.expectNothingLost();
});
