/** One task: what SHOW TASKS tells an operator who wonders what a task does, or why it ended. */
import { readFileSync, writeFileSync } from 'node:fs';
import { Client, Connection } from '@temporalio/client';
import { describe, expect, onTestFinished, test } from 'vitest';
import { connect } from '../../src/postgres/connection.js';
import { useSystem } from '../support/served.js';
import { until } from '../support/wait.js';

const system = useSystem({
  source: 17,
  destination: 18,
  general: 'cutover_drain_timeout = 300',
  schema: `CREATE TABLE public.item (id bigint PRIMARY KEY, name text);
    CREATE PUBLICATION all_tables FOR ALL TABLES;`,
});

async function temporal(): Promise<Client> {
  const connection = await Connection.connect({ address: system().temporal.address });
  onTestFinished(() => connection.close());
  return new Client({ connection });
}

test.each(['POST', 'CUTOVER'])('SCHEMA_SYNC %s is named by its part', async (part) => {
  await system().admin(`SCHEMA_SYNC ${part} prod prod_new all_tables`);
  const type = `schema_sync(${part.toLowerCase()}) prod -> prod_new`;
  await system().task('the part is named', (t) => t.type === type && t.status === 'finished');
});

describe('a cutover that waits', () => {
  test('says for what, itself and for its move, and no longer once it goes on', async () => {
    const [started] = await system().admin<{ task_id: string }>('COPY_DATA prod prod_new all_tables');
    const task = started?.task_id ?? '';
    await system().task('the streams run', (t) => t.id === task && t.inner_status === 'replicating');
    const old = await connect(system().source.endpoint('app'), { applicationName: 'nightly' });
    onTestFinished(() => old.end());
    await old.query('BEGIN');
    await old.query('SELECT txid_current()');
    await until('the transaction is old', async () => {
      const { rows } = await old.query<{ old: boolean }>(`SELECT clock_timestamp() - now() > interval '1 s' AS old`);
      return rows[0]?.old;
    });
    await system().admin(`CUTOVER ${task}`);
    const waits = /^waiting for the moment: pid \d+ \(\w+, "nightly"\) has run a transaction for \d+ s$/;
    const cutover = await system().task(
      'the cutover says what it waits for',
      (t) => t.type === 'cutover prod -> prod_new' && waits.test(t.inner_status),
    );
    expect(cutover.scope).toBe('subtask');
    await system().task('so does its move', (t) => t.id === task && waits.test(t.inner_status));
    await old.query('COMMIT');
    await system().task('the move goes on', (t) => t.id === task && t.inner_status === 'soaking');
    const tasks = await system().admin<{ inner_status: string }>('SHOW TASKS');
    expect(tasks.filter((t) => t.inner_status.includes('waiting'))).toEqual([]);
  });
});

test('limits lowered in the soak are told at the streams and at their move, and never take the way back away', async () => {
  const { config } = system().files;
  const { destination } = system();
  const before = readFileSync(config, 'utf8');
  // A slot always keeps some WAL: one byte is too much of it.
  const limits = 'cutover_retained_wal_limit = 1\ncutover_slot_limit_action = "abort"\n';
  writeFileSync(config, before.replace('[general]\n', `[general]\n${limits}`));
  await system().admin('RELOAD');
  const alarm = /^(soaking|replicating); alarm: slot cutover_\w+ keeps [\d.]+ [KMG]?B of WAL, limit 1\.00 B/;
  const told = await system().admin<{ type: string; inner_status: string }>('SHOW TASKS');
  const telling = told.filter((t) => alarm.test(t.inner_status)).map((t) => t.type);
  expect(telling).toEqual(['replication prod -> prod_new (reverse)', 'copy_data prod -> prod_new']);
  const sentences = `SELECT data ->> 'sentence' AS sentence FROM cutover.event WHERE type = 'LimitExceeded'
    AND data ->> 'slot' ~ '_reverse$'`;
  const alarmed = await until('the watch has told of the way back', async () => {
    const rows = await destination.query<{ sentence: string }>('app', sentences);
    return rows.length > 0 ? rows : null;
  });
  expect(alarmed[0]?.sentence).toMatch(/: retained WAL \d+ bytes, limit 1; nothing is removed: it is the way back/);
  writeFileSync(config, before);
  await system().admin('RELOAD');
  // Told by whoever watches: what the limit could have ended goes on.
  const over = `SELECT FROM cutover.event WHERE type = 'LimitKept' AND data ->> 'slot' ~ '_reverse$'`;
  await until('the alarm is over', async () => (await destination.query('app', over)).length > 0);
  const way = `SELECT FROM pg_replication_slots WHERE slot_name ~ '_reverse$' AND active`;
  expect(await destination.query('app', way)).toHaveLength(1);
  const after = await system().admin<{ status: string; inner_status: string }>('SHOW TASKS');
  const running = after.filter(({ status }) => status === 'running').map((t) => t.inner_status);
  expect(running.toSorted()).toEqual(['replicating', 'soaking']);
});

test('ACCEPT LOSS is refused in one sentence where the configuration does not allow it', async () => {
  for (const command of ['CUTOVER ACCEPT LOSS', 'CUTOVER prod ACCEPT LOSS'])
    await expect(system().admin(command)).rejects.toMatchObject({
      code: '55000',
      message: 'ACCEPT LOSS needs cutover_timeout_action = "cutover"',
    });
});

describe('a task that ended', () => {
  test('says why: refused before it could tell anything, or terminated by somebody', async () => {
    const { workflow } = await temporal();
    const input = { source: 'prod', destination: 'prod_new', unheardOf: true };
    await workflow.start('reshard', { workflowId: 'refused', taskQueue: 'cutover', args: [input] });
    await system().task('the refused one', (t) => t.status.startsWith('failed: unknown field "unheardOf"'));
    const running = `WorkflowType = 'reshard' AND ExecutionStatus = 'Running'`;
    for await (const { workflowId } of workflow.list({ query: running }))
      await workflow.getHandle(workflowId).terminate('wrong database');
    await system().task('the terminated one', (t) => t.status === 'cancelled: wrong database');
  });
});
