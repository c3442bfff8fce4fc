/** One task: run `serve` and `worker` as processes: logging, signals, a clean end. */
import { activated } from './activation.js';
import type { Config } from './config/config.js';
import { loadConfig, type ConfigFiles } from './config/load.js';
import { byFiles } from './configured.js';
import { EngineProcess } from './engine-process.js';
import { CutoverError, messageOf } from './errors/errors.js';
import { ownRow } from './fleet/own-row.js';
import { Predecessor } from './hand-over.js';
import { HandingOver } from './handing-over.js';
import { keepWorker } from './keep-worker.js';
import { STANDARD_ERROR } from './line-writer.js';
import { ProgramLog } from './log.js';
import { Monitoring } from './monitoring/monitoring.js';
import type { Logger } from './proxy/logger.js';
import { serve, type Served } from './serve.js';
import { serveWorker, type ServedWorker } from './serve-worker.js';
import { Sibling, WORKER_NUMBER, WORKER_TEMPORAL } from './sibling.js';
import { Supervisor } from './supervisor.js';
import { WorkersWatch } from './workers-watch.js';

/** Where the engine runs: in a process of its own that ends with this one, in this process, or wherever `cutover worker` is started. */
export type WorkerPlace = 'beside' | 'inside' | 'elsewhere';

export interface ProcessOptions {
  readonly files: ConfigFiles;
  readonly worker: WorkerPlace;
  readonly temporalAddress?: string;
  /** given on the command line: wins over the files */
  readonly logLevel?: string;
  /** which row of [[nodes]] this process is */
  readonly node?: string;
}

const WITH_DEV = 'the embedded Temporal of --dev ends with this process';
const WITH_WORKERS = 'the workers share a port of their supervisor; each may be ended by SIGTERM and is started again';

/** Serves until SIGTERM, SIGINT or SHUTDOWN; SIGHUP reloads, SIGUSR2 hands over. Resolves when everything is closed. */
export async function runServe(options: ProcessOptions): Promise<void> {
  const number = Number(process.env[WORKER_NUMBER] ?? 0);
  if (number > 0) return runSibling(options, number);
  const log = new ProgramLog({ level: options.logLevel });
  const { logger } = log;
  const end = endOfProcess();
  const predecessor = Predecessor.take();
  const inherit = predecessor?.inherit ?? activated();
  let engine: EngineProcess | null = null;
  const served = await serve({
    ...{ ...options, ...logged(log), worker: options.worker === 'inside', onShutdown: end.now },
    onApplied: (config, reloaded) => engine?.configured(config, reloaded),
    ...(inherit ? { inherit } : {}),
    ...(predecessor ? { predecessorGone: predecessor.gone } : {}),
  });
  logger.info(served.address, 'listening');
  sayWhere(served.monitoring, logger);
  if (options.worker === 'beside') engine = engineOf(served, logger, options.logLevel);
  const retire = async (): Promise<void> => {
    await Promise.all([engine?.stop(), served.retire()]);
  };
  const withDev = options.temporalAddress === undefined ? null : WITH_DEV;
  const handingOver = new HandingOver({ ...served, retire }, logger, withDev);
  process.on('SIGUSR2', () => void handingOver.asked());
  predecessor?.ready();
  const reload = reloading(served, logger);
  process.on('SIGHUP', reload);
  await Promise.race([end.asked, handingOver.done]);
  process.off('SIGHUP', reload);
  logger.info({}, 'stopping');
  served.watch.phase = 'ending';
  // What the engine does in a pause needs a proxy that answers.
  await engine?.stop();
  await served.close();
  logger.info({}, 'stopped');
}

function engineOf({ proxy, node, address }: Served, logger: Logger, logLevel: string | undefined): EngineProcess {
  return new EngineProcess({ config: () => proxy.config, row: node.name, ...address, logLevel, logger });
}

/**
 * Serves with several workers that share the port, and runs the engine beside them.
 *
 * @throws CutoverError `admin_password_missing` without a configured one: each worker would make up its own
 */
export async function runWorkers(options: ProcessOptions, workers: number): Promise<void> {
  const log = new ProgramLog({ level: options.logLevel });
  const { logger } = log;
  const config = loadConfig(options.files);
  log.apply(config.logging);
  if (!config.admin.passwordConfigured) throw new CutoverError('admin_password_missing', {});
  const row = ownRow(config, options.node) ?? 'local';
  const end = endOfProcess();
  const { temporalAddress } = options;
  let { namespace } = config.monitoring;
  const supervisor = new Supervisor({
    ...{ workers, row, logger },
    ...(temporalAddress === undefined ? {} : { temporalAddress }),
    onConfigured: (configured) => {
      log.apply(configured.logging);
      namespace = configured.namespace;
    },
  });
  const monitoring = await watching(supervisor, config, () => namespace, logger);
  void end.asked.then(() => {
    supervisor.willEnd();
  });
  const reload = (): void => {
    supervisor.reload();
  };
  process.on('SIGHUP', reload);
  process.on('SIGUSR2', () => {
    logger.error({ problem: WITH_WORKERS }, 'not handed over');
  });
  await Promise.race([supervisor.listening, supervisor.ended, end.asked]);
  logger.info({ host: config.general.host, port: supervisor.sharedPort, workers }, 'listening');
  sayWhere(monitoring, logger);
  const stopping = new AbortController();
  const start = (): Promise<ServedWorker> =>
    serveWorker({ configured: byFiles({ ...options, logger }), row, port: supervisor.sharedPort });
  const engine = options.worker === 'elsewhere' ? null : keepWorker(start, logger, stopping.signal);
  try {
    await Promise.race([end.asked, supervisor.ended]);
  } finally {
    process.off('SIGHUP', reload);
    stopping.abort();
    await engine;
    await supervisor.end();
    await monitoring.close();
  }
}

/** Only the supervisor listens: its workers would fight over the ports, and each would tell of itself alone. */
async function watching(
  supervisor: Supervisor,
  config: Config,
  namespace: () => string,
  logger: Logger,
): Promise<Monitoring> {
  try {
    return await Monitoring.start(config.monitoring, new WorkersWatch(supervisor, namespace), logger);
  } catch (error) {
    await supervisor.end();
    throw error;
  }
}

/** One of the workers of `runWorkers`, in a process of its own. */
async function runSibling(options: ProcessOptions, number: number): Promise<void> {
  const log = new ProgramLog({ level: options.logLevel, worker: number });
  const { logger } = log;
  const end = endOfProcess();
  // Without its supervisor nobody would tell it of the others, or start it again.
  process.on('disconnect', end.now);
  const sibling = new Sibling(ownRow(loadConfig(options.files), options.node) ?? 'local', number);
  const onShutdown = (): void => {
    sibling.shutdown();
  };
  const temporalAddress = process.env[WORKER_TEMPORAL];
  const { onConfig, ...rest } = logged(log);
  const served = await serve({
    ...{ ...options, ...rest, worker: false, siblings: sibling, onShutdown },
    ...(temporalAddress === undefined ? {} : { temporalAddress }),
    onConfig: (config) => {
      onConfig(config);
      sibling.configured(config.logging, config.monitoring.namespace);
    },
  });
  sibling.watch = served.watch;
  sibling.listening(await served.proxy.listenAlone(), served.address.port);
  const reload = reloading(served, logger);
  process.on('SIGHUP', reload);
  await end.asked;
  process.off('SIGHUP', reload);
  await served.close();
}

/** Runs the worker alone, against a proxy in another process. */
export async function runWorker(options: Omit<ProcessOptions, 'worker'>): Promise<void> {
  const log = new ProgramLog({ level: options.logLevel });
  const { onConfig, logger } = logged(log);
  const end = endOfProcess();
  const worker = await serveWorker({ configured: byFiles({ ...options, logger, onConfig }) });
  logger.info({}, 'the worker runs');
  await Promise.race([end.asked, worker.ended]);
  await worker.stop();
}

/** The log as the parts of the program use it: each configuration may change it. */
function logged(log: ProgramLog): {
  readonly logger: ProgramLog['logger'];
  readonly droppedLines: () => number;
  readonly onConfig: (config: Config) => void;
} {
  return {
    logger: log.logger,
    droppedLines: () => STANDARD_ERROR.dropped,
    onConfig: ({ logging }) => {
      log.apply(logging);
    },
  };
}

function sayWhere(monitoring: Monitoring | null, logger: Logger): void {
  const { healthcheckPort = null, openmetricsPort = null } = monitoring ?? {};
  if (healthcheckPort !== null || openmetricsPort !== null)
    logger.info({ healthcheckPort, openmetricsPort }, 'monitoring listens');
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
