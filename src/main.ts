/** One task: run `serve` and `worker` as processes: logging, signals, a clean end. */
import pino, { type Logger } from 'pino';
import type { ConfigFiles } from './config/load.js';
import { messageOf } from './errors/errors.js';
import { serve, type Served } from './serve.js';
import { serveWorker } from './serve-worker.js';

export interface ProcessOptions {
  readonly files: ConfigFiles;
  readonly worker: boolean;
  readonly temporalAddress?: string;
  readonly logLevel: string;
}

/** Logs to standard error as one JSON object a line. */
export function makeLogger(level: string): Logger {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination(2));
}

/** Serves until SIGTERM, SIGINT or SHUTDOWN; SIGHUP reloads. Resolves when everything is closed. */
export async function runServe(options: ProcessOptions): Promise<void> {
  const logger = makeLogger(options.logLevel);
  const end = endOfProcess();
  const served = await serve({ ...options, logger, onShutdown: end.now });
  logger.info(served.address, 'listening');
  const reload = (): void => {
    served.reload().then(
      () => {
        logger.info({}, 'configuration reloaded');
      },
      (error: unknown) => {
        logger.error({ problem: messageOf(error) }, 'the configuration was not reloaded');
      },
    );
  };
  process.on('SIGHUP', reload);
  await end.asked;
  process.off('SIGHUP', reload);
  logger.info({}, 'stopping');
  await stopWithin(served, logger);
}

/** Runs the worker alone, against a proxy in another process. */
export async function runWorker(options: Omit<ProcessOptions, 'worker'>): Promise<void> {
  const logger = makeLogger(options.logLevel);
  const end = endOfProcess();
  const worker = await serveWorker({ ...options, logger });
  logger.info({}, 'the worker runs');
  await Promise.race([end.asked, worker.ended]);
  await worker.close();
}

async function stopWithin(served: Served, logger: Logger): Promise<void> {
  await served.close();
  logger.info({}, 'stopped');
}

/** The first signal asks for a graceful end, the second ends at once. */
function endOfProcess(): { readonly asked: Promise<void>; readonly now: () => void } {
  let resolve: () => void = () => undefined;
  const asked = new Promise<void>((done) => {
    resolve = done;
  });
  let signals = 0;
  const onSignal = (): void => {
    if (++signals > 1) process.exit(130);
    resolve();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  return { asked, now: resolve };
}
