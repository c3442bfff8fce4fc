/** One task: a pause that cannot end in a commit gives the traffic back to the source, says why, and tries again. */
import { once } from 'node:events';
import pg from 'pg';
import { from } from 'pg-copy-streams';
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import type { MoveResult } from '../../src/cutover/contract.js';
import { connect } from '../../src/postgres/connection.js';
import { until } from '../support/wait.js';
import { holdBeforePause, Moving } from './moving.js';

/** Longer than the writers' own transactions take on a machine that is busy with other things. */
const DRAIN_MS = 3_000;

/** What the tests below do not change by themselves. */
const PATIENT = {
  cutover_lease: 1_000,
  cutover_drain_timeout: 20_000,
  cutover_drain_action: 'abort',
  cutover_timeout: 20_000,
  cutover_max_attempts: 1,
  cutover_traffic_stop_threshold: 1_000_000_000,
};

/** Only a ceiling: every wait below is for a condition. */
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

let moving: Moving;

beforeAll(async () => {
  moving = await Moving.start({ source: 17, destination: 18 });
  await moving.copyData();
  await moving.load();
});

afterAll(async () => {
  await moving.stop();
});

/** Starts a cutover whose failure is looked at later. */
function start(): Promise<MoveResult> {
  const moved = moving.cutover();
  moved.catch(() => undefined);
  return moved;
}

/** The cutover failed for `reason`, and every place an operator looks at says so; the source serves and is written. */
async function expectReturned(moved: Promise<MoveResult>, reason: RegExp): Promise<void> {
  const failure = await moved.then(
    (result) => result.sentence,
    (error: unknown) => ((error as Error).cause as Error).message,
  );
  expect(failure).toMatch(/not moved after 1 attempts; traffic stays where it was/);
  expect(failure).toMatch(reason);
  await moving.system.task('SHOW TASKS says why', ({ status }) => status.startsWith('failed') && reason.test(status));
  const [newest] = await moving.cutovers();
  expect(newest).toMatchObject({
    outcome: 'aborted',
    heading: 'forward',
    reason: expect.stringMatching(reason) as string,
  });
  const events = await moving.system.admin<{ event: string; data: string }>('SHOW EVENTS');
  const told = (type: string): boolean => events.some((e) => e.event === type && reason.test(reasonOf(e.data)));
  expect(['CutoverAborted', 'AttemptAborted', 'TaskFailed'].filter(told)).toHaveLength(3);
  await expectSourceServes();
}

async function client(): Promise<pg.Client> {
  const connected = new pg.Client(moving.system.endpoint());
  connected.on('error', () => undefined);
  onTestFinished(() => connected.end());
  await connected.connect();
  return connected;
}

function reasonOf(data: string): string {
  return (JSON.parse(data) as { reason?: string }).reason ?? '';
}

async function expectSourceServes(): Promise<void> {
  expect(await moving.servingMajor()).toBe(17);
  await moving.writes();
}

/** Nothing stands in the way any more: the same cutover moves, and the next test begins at the source again. */
async function expectMovesNow(): Promise<void> {
  await moving.configure(PATIENT);
  expect(await moving.cutover()).toMatchObject({ outcome: 'moved' });
  await moving.writes();
  expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
  await moving.writes();
}

it('a direct writer that outlasts the patience of the seal keeps its write and the traffic', async () => {
  await moving.configure(PATIENT);
  const direct = await connect(moving.system.source.endpoint('app'), { applicationName: 'batch job' });
  onTestFinished(() => direct.end());
  await direct.query(`BEGIN; INSERT INTO public.documents (body) VALUES ('by the batch job')`);
  await expectReturned(
    start(),
    /sealSource: the source could not be sealed within 500 ms.*pid \d+ \(postgres, "batch job"/,
  );
  await direct.query('COMMIT');
  await expectMovesNow();
  const rows = await moving.system.destination.query(
    'app',
    `SELECT FROM public.documents WHERE body = 'by the batch job'`,
  );
  expect(rows).toHaveLength(1);
});

it('a prepared transaction counts as a writer in flight, and is named', async () => {
  await moving.configure(PATIENT);
  const { source } = moving.system;
  await source.query(
    'app',
    `BEGIN; INSERT INTO public.documents (body) VALUES ('two phases'); PREPARE TRANSACTION 'left'`,
  );
  onTestFinished(async () => {
    await source.query('app', `ROLLBACK PREPARED 'left'`).catch(() => undefined);
  });
  await expectReturned(start(), /sealSource: .*prepared transaction holding public\.documents/);
  await source.query('app', `COMMIT PREPARED 'left'`);
  await expectMovesNow();
});

it('a client transaction that outlasts the drain is not cut off by the default action', async () => {
  await moving.configure({ ...PATIENT, cutover_drain_timeout: DRAIN_MS });
  const hold = await holdBeforePause(moving.system.source, 'app');
  onTestFinished(() => hold.letGo());
  const moved = start();
  await hold.reached();
  const client = await moving.system.client();
  onTestFinished(() => client.end());
  await client.query(`BEGIN; INSERT INTO public.documents (body) VALUES ('a long transaction')`);
  await hold.letGo();
  await expectReturned(moved, /pauseTraffic: transactions were still running after 3000 ms: client \d+ \(app/);
  await client.query('COMMIT');
  await expectMovesNow();
});

it('a COPY and a cursor that outlast the drain go on where they were, and end', async () => {
  await moving.configure({ ...PATIENT, cutover_drain_timeout: DRAIN_MS });
  const hold = await holdBeforePause(moving.system.source, 'app');
  onTestFinished(() => hold.letGo());
  const moved = start();
  await hold.reached();
  const [copies, reads] = await Promise.all([client(), client()]);
  const stream = copies.query(from('COPY public.documents (body) FROM STDIN'));
  const copied = once(stream, 'finish');
  stream.write('copied before\n');
  const runs = `SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY public.documents%'`;
  await until('the COPY has begun', async () => (await moving.system.source.query('app', runs)).length === 1);
  await reads.query('BEGIN; DECLARE here CURSOR FOR SELECT generate_series(1, 4) AS value');
  const fetched = async (): Promise<readonly unknown[]> =>
    (await reads.query<{ value: number }>('FETCH 2 FROM here')).rows;
  expect(await fetched()).toEqual([{ value: 1 }, { value: 2 }]);
  await hold.letGo();
  await expectReturned(moved, /pauseTraffic: transactions were still running after 3000 ms: .*client \d+ .*client \d+/);
  expect(await fetched()).toEqual([{ value: 3 }, { value: 4 }]);
  await reads.query('COMMIT');
  stream.end('copied behind\n');
  await copied;
  await expectMovesNow();
  const text = `SELECT body FROM public.documents WHERE body LIKE 'copied %' ORDER BY body`;
  const bodies = (await moving.system.destination.query('app', text)).map(({ body }) => body);
  expect(bodies).toEqual(['copied before', 'copied behind']);
});

it('with action cancel the statement that outlasts the drain is cancelled, and the traffic moves', async () => {
  await moving.configure({ ...PATIENT, cutover_drain_timeout: DRAIN_MS, cutover_drain_action: 'cancel' });
  const hold = await holdBeforePause(moving.system.source, 'app');
  onTestFinished(() => hold.letGo());
  const moved = start();
  await hold.reached();
  const client = await moving.system.client();
  onTestFinished(() => client.end());
  const slow = client.query('SELECT pg_sleep(600)').then(
    () => 'ended by itself',
    (error: unknown) => (error as { code?: string }).code,
  );
  await until(
    'the statement runs',
    async () => {
      const running = `SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' AND pid <> pg_backend_pid()`;
      return (await moving.system.source.query('app', running)).length > 0;
    },
    60_000,
  );
  await hold.letGo();
  expect(await slow).toBe('57014');
  expect(await moved).toMatchObject({ outcome: 'moved' });
  // The session it was cancelled in goes on, on the other side.
  const { rows } = await client.query<{ v: string }>(`SELECT current_setting('server_version') AS v`);
  expect(rows[0]?.v).toMatch(/^18/);
  expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
});

it('a destination that does not reach parity aborts, and the next attempt waits until the stream runs', async () => {
  await moving.configure({ ...PATIENT, cutover_timeout: 300, cutover_max_attempts: 2 });
  const { source, destination } = moving.system;
  const [subscription] = await destination.query<{ name: string }>(
    'app',
    'SELECT subname AS name FROM pg_subscription',
  );
  const name = subscription?.name ?? '';
  const hold = await holdBeforePause(source, 'app');
  onTestFinished(() => hold.letGo());
  const moved = start();
  await hold.reached();
  await destination.query('app', `ALTER SUBSCRIPTION "${name}" DISABLE`);
  onTestFinished(async () => {
    await destination.query('app', `ALTER SUBSCRIPTION "${name}" ENABLE`);
  });
  const active = `SELECT FROM pg_replication_slots WHERE slot_name = '${name}' AND active`;
  await until('the stream stands', async () => (await source.query('app', active)).length === 0);
  await hold.letGo();
  await until('the first attempt is aborted', async () => (await moving.cutovers())[0]?.outcome === 'aborted', 60_000);
  const [aborted] = await moving.cutovers();
  expect(aborted?.reason).toMatch(
    /awaitParity: the destination did not reach parity within 300 ms \(marker not applied/,
  );
  await expectSourceServes();
  await moving.configure(PATIENT);
  await destination.query('app', `ALTER SUBSCRIPTION "${name}" ENABLE`);
  expect(await moved).toMatchObject({ outcome: 'moved', attempts: 2 });
});

it('through all of it no client was refused and no write was lost', async () => {
  await moving.expectNothingLost();
});
