/**
 * One task: see that what became of a move is told, and stays told: refused by the destination, by preflight, finished, or lost by
 * Temporal.
 */
import { Client, Connection } from '@temporalio/client';
import { describe, expect, it } from 'vitest';
import { useSystem, type TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';

const system = useSystem({
  source: 17,
  destination: 18,
  // Preflight measures the nodes: a machine that is busy with other tests answers late.
  general: 'cutover_lease = 20000',
  schema: `CREATE TABLE public.item (id bigint PRIMARY KEY, name text);
    CREATE TABLE public.other (id bigint PRIMARY KEY);
    CREATE PUBLICATION all_tables FOR ALL TABLES;`,
});

describe('a schema the destination refuses', () => {
  it('fails the task with the reason, also in the record, and leaves nothing on either side', async () => {
    const { source, destination } = system();
    await destination.query('app', 'CREATE VIEW public.item AS SELECT 1 AS id');
    await system().admin('RESHARD prod prod_new all_tables');
    const failed = await system().task(
      'the move has failed',
      (t) => t.type === 'reshard prod -> prod_new' && t.status.startsWith('failed'),
    );
    expect(failed.status).toContain('item');
    const events = await source.query(
      'app',
      `SELECT data ->> 'reason' AS reason FROM cutover.event WHERE type = 'TaskFailed'`,
    );
    expect(events).toHaveLength(1);
    const tables = await destination.query('app', `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`);
    expect(tables).toEqual([]);
    for (const cluster of [source, destination]) {
      expect(await cluster.query('app', `SELECT tgname FROM pg_trigger WHERE tgname ~ '^cutover_'`)).toEqual([]);
      expect(await cluster.query('app', 'SELECT subname FROM pg_subscription')).toEqual([]);
      expect(await cluster.query('app', 'SELECT slot_name FROM pg_replication_slots')).toEqual([]);
    }
    await destination.query('app', 'DROP VIEW public.item');
  });
});

/** The dev server keeps everything in memory: what starts again on its port knows of nothing. */
async function emptyTemporal(): Promise<void> {
  const { temporal } = system();
  await temporal.kill();
  await temporal.start();
  const connection = await Connection.connect({ address: temporal.address });
  const { count } = await new Client({ connection }).workflow.count();
  await connection.close();
  expect(count).toBe(0);
  // Answered without Temporal it would be an error.
  await until(
    'the program has found it',
    () =>
      system()
        .admin('STOP_TASK 1')
        .catch(() => false),
    30_000,
  );
}

async function told(): Promise<readonly Partial<TaskLine>[]> {
  const tasks = await system().admin<TaskLine>('SHOW TASKS');
  return tasks.map(({ id, scope, type, status, inner_status }) => ({ id, scope, type, status, inner_status }));
}

/** Only a ceiling: every wait is for a condition. */
const DEADLINE_MS = 120_000;

describe('a Temporal that lost its database', { timeout: 3 * DEADLINE_MS }, () => {
  it('a move that had not ended is lost, not running for ever, and the next one begins anew and moves', async () => {
    await system().source.query('app', `INSERT INTO public.item VALUES (1, 'one')`);
    const [task] = await system().admin<{ task_id: string }>('COPY_DATA prod prod_new all_tables');
    await system().task(
      'the streams run',
      (t) => t.id === task?.task_id && t.inner_status === 'replicating',
      DEADLINE_MS,
    );
    await emptyTemporal();
    const lost = 'lost: it had not ended when Temporal forgot it';
    expect((await told()).slice(0, 2)).toMatchObject([
      { id: task?.task_id, scope: 'root', type: 'copy_data prod -> prod_new', status: lost },
      { id: null, scope: 'subtask', type: 'replication prod -> prod_new', status: lost },
    ]);
    await system().admin('RESHARD prod prod_new all_tables');
    await system().task('the next one moves', (t) => t.type.includes('(reverse)'), DEADLINE_MS);
  });

  it('what finished and what failed, also before it held anything, is told as before', async () => {
    const moved = (await told()).find((t) => t.type?.startsWith('reshard') === true && t.status === 'running');
    await system().admin(`STOP_TASK ${moved?.id ?? ''} SAVE`);
    await system().task('the move has finished', (t) => t.id === moved?.id && t.status === 'finished', DEADLINE_MS);
    await system().destination.query('app', 'CREATE PUBLICATION all_tables FOR ALL TABLES');
    const ended = async (command: string): Promise<string | undefined> => {
      const [task] = await system().admin<{ task_id: string }>(`${command} prod prod_new all_tables`);
      const done = (t: TaskLine): boolean => t.id === task?.task_id && /^(?:finished|failed)/.test(t.status);
      return (await system().task(`${command} has ended`, done, DEADLINE_MS)).status;
    };
    expect(await ended('RESHARD')).toMatch(/^failed: .*has rows already/);
    expect(await ended('SCHEMA_SYNC CUTOVER')).toBe('finished');
    const before = await told();
    await emptyTemporal();
    expect(await told()).toEqual(before);
    expect(before.map((t) => t.status).join('\n')).toMatch(/failed: .*item[^]*finished/);
  });
});
