/** One task: run `serve` and `worker` as processes: logging, signals, a clean end. */
import pino, { type Logger } from 'pino';
import { loadConfig, type ConfigFiles } from './config/load.js';
import { CutoverError, messageOf } from './errors/errors.js';
import { ownRow } from './fleet/own-row.js';
import { keepWorker } from './keep-worker.js';
import { serve, type Served } from './serve.js';
import { serveWorker, type ServedWorker } from './serve-worker.js';
import { Sibling, WORKER_NUMBER, WORKER_TEMPORAL } from './sibling.js';
import { Supervisor } from './supervisor.js';

export interface ProcessOptions {
  readonly files: ConfigFiles;
  readonly worker: boolean;
  readonly temporalAddress?: string;
  readonly logLevel: string;
  /** which row of [[nodes]] this process is */
  readonly node?: string;
}

/** Logs to standard error as one JSON object a line. */
export function makeLogger(level: string): Logger {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination(2));
}

/** Serves until SIGTERM, SIGINT or SHUTDOWN; SIGHUP reloads. Resolves when everything is closed. */
export async function runServe(options: ProcessOptions): Promise<void> {
  const number = Number(process.env[WORKER_NUMBER] ?? 0);
  if (number > 0) return runSibling(options, number);
  const logger = makeLogger(options.logLevel);
  const end = endOfProcess();
  const served = await serve({ ...options, logger, onShutdown: end.now });
  logger.info(served.address, 'listening');
  const reload = reloading(served, logger);
  process.on('SIGHUP', reload);
  await end.asked;
  process.off('SIGHUP', reload);
  logger.info({}, 'stopping');
  await stopWithin(served, logger);
}

/**
 * Serves with several workers that share the port, and runs the engine beside them.
 *
 * @throws CutoverError `admin_password_missing` without a configured one: each worker would make up its own
 */
export async function runWorkers(options: ProcessOptions, workers: number): Promise<void> {
  const logger = makeLogger(options.logLevel);
  const config = loadConfig(options.files);
  if (!config.admin.passwordConfigured) throw new CutoverError('admin_password_missing', {});
  const row = ownRow(config, options.node) ?? 'local';
  const end = endOfProcess();
  const { temporalAddress } = options;
  const supervisor = new Supervisor({
    ...{ workers, row, logger },
    ...(temporalAddress === undefined ? {} : { temporalAddress }),
  });
  const reload = (): void => {
    supervisor.reload();
  };
  process.on('SIGHUP', reload);
  await Promise.race([supervisor.listening, supervisor.ended, end.asked]);
  logger.info({ host: config.general.host, port: supervisor.sharedPort, workers }, 'listening');
  const stopping = new AbortController();
  const start = (): Promise<ServedWorker> => serveWorker({ ...options, logger, row, port: supervisor.sharedPort });
  const engine = options.worker ? keepWorker(start, logger, stopping.signal) : null;
  try {
    await Promise.race([end.asked, supervisor.ended]);
  } finally {
    process.off('SIGHUP', reload);
    stopping.abort();
    await engine;
    await supervisor.end();
  }
}

/** One of the workers of `runWorkers`, in a process of its own. */
async function runSibling(options: ProcessOptions, number: number): Promise<void> {
  const logger = makeLogger(options.logLevel).child({ worker: number });
  const end = endOfProcess();
  // Without its supervisor nobody would tell it of the others, or start it again.
  process.on('disconnect', end.now);
  const sibling = new Sibling(ownRow(loadConfig(options.files), options.node) ?? 'local', number);
  const onShutdown = (): void => {
    sibling.shutdown();
  };
  const temporalAddress = process.env[WORKER_TEMPORAL];
  const served = await serve({
    ...{ ...options, worker: false, logger, siblings: sibling, onShutdown },
    ...(temporalAddress === undefined ? {} : { temporalAddress }),
  });
  sibling.listening(await served.proxy.listenAlone(), served.address.port);
  const reload = reloading(served, logger);
  process.on('SIGHUP', reload);
  await end.asked;
  process.off('SIGHUP', reload);
  await served.close();
}

/** Runs the worker alone, against a proxy in another process. */
export async function runWorker(options: Omit<ProcessOptions, 'worker'>): Promise<void> {
  const logger = makeLogger(options.logLevel);
  const end = endOfProcess();
  const worker = await serveWorker({ ...options, logger });
  logger.info({}, 'the worker runs');
  await Promise.race([end.asked, worker.ended]);
  await worker.stop();
}

function reloading(served: Served, logger: Logger): () => void {
  return () => {
    served.reload().then(
      () => {
        logger.info({}, 'configuration reloaded');
      },
      (error: unknown) => {
        logger.error({ problem: messageOf(error) }, 'the configuration was not reloaded');
      },
    );
  };
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
