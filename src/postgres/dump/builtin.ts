/** One task: run the built-in pg_dump (WebAssembly, in a thread of its own) against a real server. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { messageOf } from '../../errors/errors.js';
import { unreachable } from '../../errors/invariant.js';
import type { Endpoint } from '../endpoint.js';
import { openRawConnection, type RawConnection } from './raw-connection.js';
import type { DumpJob, FromWorker, ToWorker } from './worker.js';

export interface DumpLimits {
  /** of the whole dump, from connecting to the last line */
  readonly deadlineMs: number;
  /** of the dump, and of each single answer of the server */
  readonly sizeBytesMax: number;
}

/**
 * Runs pg_dump 18 with `args` and returns what it wrote. Reads only; may be called again.
 *
 * @throws Error with pg_dump's own words, or why the connection or the time ran out
 */
export async function runBuiltinDump(endpoint: Endpoint, args: readonly string[], limits: DumpLimits): Promise<string> {
  const connection = await openRawConnection(endpoint);
  const signal = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  const job: DumpJob = { args, greeting: connection.greeting, signal, deadlineMs: limits.deadlineMs };
  const worker = startWorker(job);
  try {
    return await conversation(worker, connection, new Int32Array(signal), limits);
  } finally {
    await worker.terminate();
    await connection.end();
  }
}

function conversation(
  worker: Worker,
  connection: RawConnection,
  signal: Int32Array,
  limits: DumpLimits,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`pg_dump did not end within ${limits.deadlineMs.toString()} ms`));
    }, limits.deadlineMs);
    const settled =
      <T>(how: (value: T) => void) =>
      (value: T): void => {
        clearTimeout(timer);
        how(value);
      };
    const fail = settled(reject);
    const answer = async (messages: Uint8Array): Promise<void> => {
      const reply: ToWorker = { answer: await connection.ask(messages, limits.sizeBytesMax) };
      worker.postMessage(reply);
      Atomics.store(signal, 0, 1);
      Atomics.notify(signal, 0);
    };
    worker.on('message', (message: FromWorker) => {
      switch (message.kind) {
        case 'ask':
          answer(message.messages).catch(fail);
          return;
        case 'done':
          settled(resolve)(message.dump);
          return;
        case 'failed':
          fail(new Error(message.problem));
          return;
        default:
          unreachable(message);
      }
    });
    worker.once('error', (error) => {
      fail(new Error(messageOf(error)));
    });
    worker.once('exit', () => {
      fail(new Error('the thread of pg_dump ended early'));
    });
  });
}

/** The compiler puts the thread's program beside this file; where the sources run, it is what was built of them. */
function startWorker(job: DumpJob): Worker {
  const beside = fileURLToPath(new URL('./worker.js', import.meta.url));
  const built = fileURLToPath(new URL('../../../dist/src/postgres/dump/worker.js', import.meta.url));
  return new Worker(existsSync(beside) ? beside : built, { workerData: job });
}
