/** One task: an operator compares both sides: what is told meanwhile, what survives a killed worker, what a cutover may require. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { verify } from '../../src/cli/verify.js';
import { connect, withConnection, type Connection } from '../../src/postgres/connection.js';
import { WorkerProcess } from '../support/faults-process.js';
import { until } from '../support/wait.js';
import { Moving } from './moving.js';

const PHASE_DEADLINE_MS = 60_000;
/** Its name makes it the first table of a comparison. */
const MANY_ROWS = `CREATE TABLE public.a_large (id bigint PRIMARY KEY, body text);
  INSERT INTO public.a_large SELECT i, repeat('x', 100) || i FROM generate_series(1, 200000) i;
  CREATE TABLE public.early (id bigint PRIMARY KEY, body text);
  INSERT INTO public.early SELECT i, 'early ' || i FROM generate_series(1, 100) i;`;

let moving: Moving;
let worker: WorkerProcess;
let task = '';

beforeAll(async () => {
  const general = 'cutover_verify = "require"\ncutover_verify_window = 600000';
  moving = await Moving.start({ source: 17, destination: 18, schema: MANY_ROWS, worker: false, general });
  worker = new WorkerProcess(moving.system);
  await Promise.all([worker.start(), moving.load()]);
  task = await moving.copyData();
});

afterAll(async () => {
  await worker.kill();
  await moving.stop();
});

interface EventLine {
  readonly event: string;
  readonly data: string;
}

async function startVerify(): Promise<string> {
  const [started] = await moving.system.admin<{ task_id: string }>('VERIFY prod prod_new');
  return started?.task_id ?? '';
}

function ended(id: string, status: RegExp): Promise<unknown> {
  return moving.system.task('the comparison ends', (t) => t.id === id && status.test(t.status), PHASE_DEADLINE_MS);
}

/** What only a stray writer would do: a change at the destination that no stream carries. */
async function plant(statement: string): Promise<void> {
  await withConnection(moving.system.destination.endpoint('app'), async (connection) => {
    const origin = `SELECT FROM pg_replication_origin WHERE roname = 'planted'`;
    if ((await connection.query(origin)).rows.length === 0)
      await connection.query(`SELECT pg_replication_origin_create('planted')`);
    await connection.query(`SELECT pg_replication_origin_session_setup('planted')`);
    await connection.query('ALTER TABLE public.a_large DISABLE TRIGGER cutover_fence_write');
    await connection.query(statement);
    await connection.query('ALTER TABLE public.a_large ENABLE ALWAYS TRIGGER cutover_fence_write');
  });
}

/**
 * The next comparison stands in the middle of its first table until the connection ends: the apply worker waits for a row, and the
 * comparison at the chunk whose change waits for the apply worker.
 */
async function holdInTheMiddle(): Promise<Connection> {
  const { source, destination } = moving.system;
  const holder = await connect(destination.endpoint('app'));
  await holder.query('BEGIN; SELECT FROM public.early WHERE id = 1 FOR UPDATE');
  await source.query('app', `UPDATE public.early SET body = body || '.' WHERE id = 1`);
  await source.query('app', `UPDATE public.a_large SET body = body || '.' WHERE id = 150000`);
  return holder;
}

async function commandLine(told?: (output: string) => void): Promise<{ exitCode: number; output: string }> {
  let output = '';
  const { files, temporal } = moving.system;
  const exitCode = await verify({
    ...{ files, source: 'prod', destination: 'prod_new', temporalAddress: temporal.address },
    write: (text) => {
      output += text;
      told?.(output);
    },
  });
  return { exitCode, output };
}

test('a cutover that requires a comparison is refused without one, by what to do', { timeout: 90_000 }, async () => {
  await expect(moving.cutover()).rejects.toMatchObject({
    cause: { message: expect.stringMatching(/never.*Run VERIFY prod prod_new/s) as string },
  });
  await moving.writes();
});

test('progress is told, and a worker that dies is followed by one that goes on', { timeout: 120_000 }, async () => {
  const holder = await holdInTheMiddle();
  const id = await startVerify();
  const told = await until(
    'the comparison tells how far it is',
    async () => {
      const { type, inner_status } = await line(id);
      expect(type).toBe('verify prod -> prod_new');
      const large = /comparing: 0 of \d+ tables, \d+ rows, 0 differences, now public\.a_large/;
      const rows = rowsTold(inner_status) ?? 0;
      return large.test(inner_status) && rows > 50_000 && rows;
    },
    PHASE_DEADLINE_MS,
  );
  await worker.kill();
  await moving.writes();
  await worker.start();
  await holder.end();
  let least = told;
  await until(
    'the comparison ends',
    async () => {
      const { status, inner_status } = await line(id);
      least = Math.min(least, rowsTold(inner_status) ?? least);
      return status !== 'running';
    },
    PHASE_DEADLINE_MS,
  );
  await ended(id, /^finished/);
  // It went on: nothing was begun anew.
  expect(least).toBe(told);
  const events = await moving.system.admin<EventLine & Record<string, string>>(`SHOW EVENTS ${id}`);
  const verified = events.find(({ event }) => event === 'TablesVerified');
  const data = JSON.parse(verified?.data ?? '{}') as { rows: number; busyMs: number; differences: number };
  expect(data).toMatchObject({ differences: 0, undecided: 0 });
  expect(data.rows).toBeGreaterThan(Math.max(told, 200_000));
  // Each row once: what was told before the end was not counted again.
  expect(data.rows).toBeLessThan(2 * 200_000);
});

test('it can be stopped, and changes nothing', { timeout: 90_000 }, async () => {
  const holder = await holdInTheMiddle();
  const id = await startVerify();
  await moving.system.task('it compares', (t) => t.id === id && t.inner_status.startsWith('comparing: '));
  expect(await moving.system.admin(`STOP_TASK ${id}`)).toEqual([{ stop_task: 'OK' }]);
  await ended(id, /^failed: stopped by an operator/);
  await holder.end();
  await moving.system.task('the move goes on', (t) => t.id === task && t.inner_status === 'replicating');
});

describe('the command line', () => {
  test('ends with 0 where both sides are equal', { timeout: 90_000 }, async () => {
    const progress = /of \d+ tables, \d+ rows, 0 differences, now/;
    const holder = await holdInTheMiddle();
    const { exitCode, output } = await commandLine((told) => {
      // It is over once its progress was told, however quick the machine.
      if (progress.test(told)) void holder.end();
    });
    expect(output).toMatch(progress);
    expect(output).toMatch(/the sides are equal: \d+ tables, \d+ rows, 0 differences\n$/);
    expect(exitCode).toBe(0);
  });

  test(
    'ends with 1 and names the row where they differ, and the cutover is refused',
    { timeout: 120_000 },
    async () => {
      await plant(`UPDATE public.a_large SET body = body || ' ' WHERE id = 150000`);
      const { exitCode, output } = await commandLine();
      expect(output).toMatch(/the sides differ .*1 differences\): public\.a_large \["150000"\] changed/);
      expect(exitCode).toBe(1);
      await moving.system.task('SHOW TASKS says so', (t) => t.status.startsWith('failed: the sides differ'));
      await expect(moving.cutover()).rejects.toMatchObject({
        cause: { message: expect.stringContaining('the last comparison found 1 differences') as string },
      });
      await plant(`UPDATE public.a_large SET body = rtrim(body) WHERE id = 150000`);
    },
  );
});

test(
  'a clean and fresh comparison lets the cutover pass, the rollback needs one of its own',
  { timeout: 180_000 },
  async () => {
    expect(await commandLine()).toMatchObject({ exitCode: 0 });
    // An attempt that moves nothing takes nothing from it.
    await moving.system.admin(`CUTOVER ${task} REHEARSE`);
    expect(await moving.cutover()).toMatchObject({ outcome: 'moved' });
    await moving.writes();
    await expect(moving.rollback()).rejects.toMatchObject({
      cause: { message: expect.stringContaining('not compared since the traffic moved last') as string },
    });
    expect(await commandLine()).toMatchObject({ exitCode: 0 });
    expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
    await moving.writes();
    // The comparison before the move says nothing about the traffic since.
    await expect(moving.cutover()).rejects.toMatchObject({
      cause: { message: expect.stringContaining('not compared since the traffic moved last') as string },
    });
    await moving.expectNothingLost();
  },
);

/** Null when the words tell of no rows. */
function rowsTold(words: string): number | null {
  const told = /, (\d+) rows/.exec(words)?.[1];
  return told === undefined ? null : Number(told);
}

function line(id: string): ReturnType<Moving['system']['task']> {
  return moving.system.task('the comparison is listed', (t) => t.id === id);
}
