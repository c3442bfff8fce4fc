/** One task: traffic needs no Temporal: without one, commands of a move give one clear error each and nothing is begun. */
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { invariant } from '../../src/errors/invariant.js';
import { Tasks } from '../../src/temporal/tasks.js';
import { System } from '../support/served.js';
import { until } from '../support/wait.js';

let system: System;

beforeAll(async () => {
  system = await System.start({
    source: 18,
    destination: 18,
    worker: false,
    schema: 'CREATE TABLE public.item (id bigint PRIMARY KEY); CREATE PUBLICATION all_tables FOR ALL TABLES;',
  });
});

afterAll(async () => {
  await system.stop();
});

async function written(id: number): Promise<void> {
  const application = await system.client();
  await application.query(`INSERT INTO public.item VALUES (${id.toString()})`);
  await application.end();
}

async function nothingBegun(): Promise<void> {
  for (const cluster of [system.source, system.destination]) {
    expect(await cluster.query('app', `SELECT 1 FROM pg_namespace WHERE nspname = 'cutover'`)).toEqual([]);
    expect(await cluster.query('app', 'SELECT 1 FROM pg_replication_slots')).toEqual([]);
  }
}

const COMMANDS = [
  ...['RESHARD prod prod_new all_tables', 'COPY_DATA prod prod_new all_tables'],
  ...['CUTOVER prod', 'CUTOVER prod DRY RUN', 'STOP_TASK 1'],
];

/** The tasks of a process that believes its client: its Temporal died after it was asked whether it is there. */
async function believing(): Promise<{ tasks: Tasks; close: () => Promise<void> }> {
  const { served } = system;
  invariant(served, 'the program serves');
  const connection = await Connection.connect({ address: system.temporal.address });
  const client = new Client({ connection });
  return { tasks: new Tasks({ ...served, client: () => Promise.resolve(client) }), close: () => connection.close() };
}

describe('a Temporal that dies while the program serves', () => {
  test('takes no traffic with it; every command is one error; tasks are listed from the record', async () => {
    await system.admin('SHOW TASKS');
    await system.temporal.kill();
    await written(1);
    for (const command of COMMANDS)
      await expect(system.admin(command), command).rejects.toMatchObject({
        code: '08001',
        message: expect.stringMatching(/^Temporal at 127\.0\.0\.1:\d+ cannot be reached: /) as unknown,
      });
    expect(await system.admin('SHOW TASKS')).toEqual([]);
    await nothingBegun();
    await written(2);
  });

  test('right after it was asked whether it is there: the same error, and no internal one', async () => {
    await system.temporal.start();
    const { tasks, close } = await until('a client is connected', () => believing().catch(() => null), 30_000);
    await system.temporal.kill();
    const move = { kind: 'reshard', source: 'prod', destination: 'prod_new', publication: 'all_tables' } as const;
    await expect(tasks.start(move)).rejects.toMatchObject({ code: 'temporal_unreachable' });
    await expect(tasks.stop(1)).rejects.toMatchObject({ code: 'temporal_unreachable' });
    await close();
    await nothingBegun();
  });

  test('is used again once it is back', async () => {
    await system.temporal.start();
    const started = await until(
      'a task starts again',
      async () => (await system.admin<{ task_id: string }>('RESHARD prod prod_new all_tables'))[0]?.task_id,
      30_000,
    );
    expect(started).toMatch(/^\d+$/);
  });
});

describe('a Temporal that was never there', () => {
  test('keeps nobody from serving, and RESHARD is one error', async () => {
    await system.temporal.kill();
    await system.stopServing();
    await system.serve();
    await written(3);
    await expect(system.admin('RESHARD prod prod_new all_tables')).rejects.toMatchObject({
      code: '08001',
      message: expect.stringContaining(`Temporal at ${system.temporal.address} cannot be reached`) as unknown,
    });
    await nothingBegun();
    await written(4);
  });
});
