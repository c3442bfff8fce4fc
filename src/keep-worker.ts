/** One task: keep an engine's worker running: tried until Temporal answers, started again when it fails; traffic goes on meanwhile. */
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from './errors/errors.js';
import type { Logger } from './proxy/logger.js';

export interface KeptWorker {
  readonly ended: Promise<void>;
  /** may be called again */
  stop(): Promise<void>;
}

const RETRY_MS = 2_000;

/** Resolves once `stopping` is aborted and the worker has been stopped; never rejects. */
export async function keepWorker(
  start: () => Promise<KeptWorker>,
  logger: Logger,
  stopping: AbortSignal,
): Promise<void> {
  const aborted = new Promise<void>((resolve) => {
    stopping.addEventListener('abort', () => {
      resolve();
    });
  });
  while (!stopping.aborted) {
    try {
      const worker = await unlessAborted(start(), aborted);
      if (worker === null) return;
      logger.info({}, 'the worker runs');
      await Promise.race([worker.ended, aborted]).finally(() => worker.stop());
    } catch (error) {
      logger.warn({ problem: messageOf(error) }, 'no worker: moves wait, traffic goes on');
    }
    // Cut short at the end: an ending process must not wait for its next try.
    await delay(RETRY_MS, undefined, { signal: stopping }).catch(() => undefined);
  }
}

/** A try may last for as long as Temporal is silent; who is to end does not wait for it. */
async function unlessAborted(starting: Promise<KeptWorker>, aborted: Promise<void>): Promise<KeptWorker | null> {
  const first = await Promise.race([starting, aborted.then(() => null)]);
  if (first === null)
    starting.then(
      (late) => late.stop(),
      () => undefined,
    );
  return first;
}
