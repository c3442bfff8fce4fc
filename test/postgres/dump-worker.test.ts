/** One task: the thread of pg_dump waits for its answer, whoever wakes it before. */
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { openRawConnection } from '../../src/postgres/dump/raw-connection.js';
import type { DumpJob, FromWorker } from '../../src/postgres/dump/worker.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ one: { major: 18 } });
const ANSWER_BYTES_MAX = 1_048_576;
const WAKE_UP_CALLS = 5;
const BETWEEN_MS = 2;

test('a wake-up call without an answer, as one that is late for the answer before, does no harm', async () => {
  const database = await freshDatabase(clusters.one);
  await clusters.one.query(database, 'CREATE TABLE app (id bigint PRIMARY KEY)');
  const connection = await openRawConnection(clusters.one.endpoint(database));
  const shared = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  const signal = new Int32Array(shared);
  const job: DumpJob = { args: ['--schema-only'], greeting: connection.greeting, signal: shared, deadlineMs: 30_000 };
  const worker = new Worker(new URL('../../dist/src/postgres/dump/worker.js', import.meta.url), { workerData: job });
  const answer = async (messages: Uint8Array): Promise<void> => {
    for (let call = 0; call < WAKE_UP_CALLS; call += 1) {
      await new Promise((resolve) => setTimeout(resolve, BETWEEN_MS));
      Atomics.notify(signal, 0);
    }
    worker.postMessage({ answer: await connection.ask(messages, ANSWER_BYTES_MAX) });
    Atomics.store(signal, 0, 1);
    Atomics.notify(signal, 0);
  };
  try {
    const said = await new Promise<FromWorker>((resolve, reject) => {
      worker.once('error', reject);
      worker.on('message', (message: FromWorker) => {
        if (message.kind === 'ask') answer(message.messages).catch(reject);
        else resolve(message);
      });
    });
    expect(said).toMatchObject({ kind: 'done', dump: expect.stringContaining('CREATE TABLE public.app') as string });
  } finally {
    await worker.terminate();
    await connection.end();
  }
});
