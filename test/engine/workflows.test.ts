/** One task: the workflows on a real Temporal server: the whole move, its repetition, two at once, the way back. */
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MoveResult } from '../../src/cutover/contract.js';
import { startWorker, isRunning, type RunningWorker } from '../../src/temporal/worker.js';
import { Pair } from '../support/pair.js';
import { useTemporal } from '../support/temporal.js';
import { until } from '../support/wait.js';

const temporal = useTemporal();
let pair: Pair;
let client: Client;
let worker: RunningWorker;
const request = { source: 'prod', destination: 'prod_new' };

beforeAll(async () => {
  pair = await Pair.bare({ source: 17, destination: 18 });
  const connection = await Connection.connect({ address: temporal().address });
  client = new Client({ connection });
  worker = await startWorker(
    { address: temporal().address, taskQueue: 'cutover' },
    { ...pair.context, isRunning: (id) => isRunning(client, id) },
  );
});

afterAll(async () => {
  await worker.stop();
  await client.connection.close();
  await pair.stop();
});

const start = (type: string, id: string, input: object) =>
  client.workflow.start(type, { workflowId: id, taskQueue: 'cutover', args: [input] });

describe('a move by Temporal alone', () => {
  it('a cutover without streams fails naming COPY_DATA', async () => {
    const handle = await start('cutover', 'early', request);
    const failure = await handle.result().then(
      () => '',
      (error: unknown) => String((error as Error).cause),
    );
    expect(failure).toContain('COPY_DATA');
  });

  it('moves, says that it has moved, fails a second one naming the first, goes back, moves again', async () => {
    const application = await pair.client();
    const major = async (): Promise<number> => {
      const { rows } = await application.query<{ v: number }>(
        `SELECT current_setting('server_version_num')::int / 10000 AS v`,
      );
      return rows[0]?.v ?? 0;
    };
    const reshard = await start('reshard', 'first', request);
    await until('the destination serves', async () => (await major()) === 18, 60_000);
    await client.workflow.getHandle('first/cutover-1').result();
    const again = (await (await start('cutover', 'again', request)).result()) as MoveResult;
    expect(again).toMatchObject({ outcome: 'unchanged' });
    expect(again.sentence).toContain('serves since');
    const back = (await (await start('cutover', 'back', { ...request, rollback: true })).result()) as MoveResult;
    expect(back).toMatchObject({ outcome: 'moved', heading: 'reverse' });
    expect(await major()).toBe(17);
    const forth = (await (await start('cutover', 'forth', request)).result()) as MoveResult;
    expect(forth).toMatchObject({ outcome: 'moved', heading: 'forward' });
    expect(await major()).toBe(18);
    await application.end();
    await reshard.signal('stop');
    expect(await reshard.result()).toContain('finalized');
  });
});
