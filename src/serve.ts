/** One task: put a process together: proxy, node, admin database and, unless it runs apart, the worker. */
import { isDeepStrictEqual } from 'node:util';
import type { Client } from '@temporalio/client';
import type { EngineContext } from '../activities/context.js';
import { AdminDatabase } from './admin/handler.js';
import type { Config } from './config/config.js';
import { loadConfig, type ConfigFiles } from './config/load.js';
import { finishSwap } from './config/save.js';
import { CutoverError, messageOf } from './errors/errors.js';
import { Fleet } from './fleet/fleet.js';
import { LocalNode, type Siblings } from './fleet/local-node.js';
import { expectSameRow, ownRow } from './fleet/own-row.js';
import { SchemaGuardWatch } from './fleet/schema-guard-watch.js';
import { keepWorker } from './keep-worker.js';
import { Connections } from './postgres/connections.js';
import { LocalWatch, Monitoring } from './monitoring/monitoring.js';
import type { WatchedProxy } from './proxy/contract.js';
import type { Inherit } from './proxy/inherited.js';
import type { Logger } from './proxy/logger.js';
import { startProxy } from './proxy/proxy.js';
import { requireAnswer, temporalClient } from './temporal/connection.js';
import { Tasks } from './temporal/tasks.js';
import { isRunning, startWorker, type RunningWorker } from './temporal/worker.js';
import { VERSION } from './version.js';

export interface ServeOptions {
  readonly files: ConfigFiles;
  /** the worker runs in this process; false: `cutover worker` runs apart */
  readonly worker: boolean;
  /** which row of [[nodes]] this process is; found by its address when absent */
  readonly node?: string;
  /** set where several workers share the port */
  readonly siblings?: Siblings & { readonly name: string };
  /** where somebody listens already for this process */
  readonly inherit?: Inherit;
  /** resolves when the process that this one follows has ended: no cutover begins before */
  readonly predecessorGone?: Promise<void>;
  /** where an embedded Temporal listens; wins over file and environment */
  readonly temporalAddress?: string;
  readonly logger: Logger;
  /** called by SHUTDOWN on the admin database */
  readonly onShutdown?: () => void;
  readonly onStep?: EngineContext['onStep'];
  /** called with the configuration of the start and of each RELOAD */
  readonly onConfig?: (config: Config) => void;
  /** called with each that the proxy goes by from then on: after a switch, and where the files were read again (`reloaded`) */
  readonly onApplied?: (config: Config, reloaded: boolean) => void;
  /** lines of the log that were thrown away */
  readonly droppedLines?: () => number;
}

export interface Served {
  readonly proxy: WatchedProxy;
  readonly node: LocalNode;
  readonly fleet: Fleet;
  readonly address: { readonly host: string; readonly port: number };
  readonly watch: LocalWatch;
  /** null where several workers share the port: their supervisor answers for them */
  readonly monitoring: Monitoring | null;
  /** resolves once the worker runs; stays pending while Temporal cannot be reached */
  readonly workerReady: Promise<void>;
  reload(): Promise<void>;
  /** Another process serves beside this one: takes no new client and ends the engine; resolves when the clients have left or had `shutdown_timeout`. */
  retire(): Promise<void>;
  close(graceMs?: number): Promise<void>;
}

/** Starts serving. Traffic needs neither Temporal nor a record: both may come later. */
export async function serve(options: ServeOptions): Promise<Served> {
  const { files, logger } = options;
  await finishSwap(files);
  const load = (adminPassword?: string): Config =>
    withTemporal(loadConfig(files, adminPassword === undefined ? {} : { adminPassword }), options.temporalAddress);
  const config = load();
  options.onConfig?.(config);
  for (const warning of config.warnings) logger.warn({}, warning);
  const row = ownRow(config, options.node);
  /** under way */
  let reloads = 0;
  const temporal = new TemporalLink(config, options);
  // The admin database and the node are reached through the proxy, and reach it: the two references close the circle.
  const late: { node?: LocalNode; admin?: AdminDatabase; guards?: SchemaGuardWatch; monitoring?: Monitoring } = {};
  const proxy = await startProxy({
    ...{ config, logger },
    ...(options.inherit ? { inherit: options.inherit } : {}),
    hooks: {
      onFenceRefusal: async (database) => {
        await late.node?.onFenceRefusal(database);
      },
      schemaGuard: (database) => late.guards?.of(database) ?? null,
      onSchemaChange: (database, change) => void late.guards?.changed(database, change),
      onApplied: (applied) => options.onApplied?.(applied, reloads > 0),
    },
    admin: { execute: (statement) => must(late.admin).execute(statement) },
  });
  const { siblings } = options;
  const node = new LocalNode(siblings?.name ?? row ?? 'local', proxy, logger, siblings);
  late.node = node;
  if (options.predecessorGone) {
    node.service.share();
    void options.predecessorGone.then(() => {
      node.service.alone();
    });
  }
  const fleet = new Fleet({ config: () => proxy.config, own: node, row });
  const reload = async (): Promise<void> => {
    // A password that was generated lasts as long as the process.
    const loaded = load(config.admin.passwordConfigured ? undefined : config.admin.password);
    expectSameRow(loaded, options.node, row);
    if (!isDeepStrictEqual({ ...loaded.monitoring, namespace: '' }, { ...config.monitoring, namespace: '' }))
      logger.warn({}, 'where monitoring listens has changed in the files: that is read at the start only');
    reloads += 1;
    try {
      await node.reload(loaded);
    } finally {
      reloads -= 1;
    }
    options.onConfig?.(loaded);
  };
  const watch = new LocalWatch(proxy, node, { version: VERSION, droppedLines: options.droppedLines ?? (() => 0) });
  const tasks = new Tasks({ proxy, node, fleet, client: () => temporal.client() });
  late.admin = new AdminDatabase({
    proxy,
    node,
    tasks,
    version: VERSION,
    reload,
    tellSiblings: (statement) => fleet.tellSiblings(statement),
    shutdown: () => options.onShutdown?.(),
  });
  const close = async (graceMs: number): Promise<void> => {
    watch.phase = 'ending';
    late.guards?.close();
    await temporal.close();
    await proxy.close(graceMs);
    await fleet.close();
    await node.close();
    await late.monitoring?.close();
  };
  try {
    if (siblings === undefined)
      late.monitoring = await Monitoring.start(config.monitoring, watch, logger, options.inherit);
    await recoverFirst(node, proxy, logger);
  } catch (error) {
    await close(0);
    throw error;
  }
  const guards = new SchemaGuardWatch(proxy, node, logger);
  late.guards = guards;
  void guards.run();
  // Unless it was told to end meanwhile.
  if (watch.phase === 'starting') watch.phase = 'serving';
  if (options.worker) temporal.runWorker(engineContext(proxy, node, fleet, temporal, options.onStep));
  return {
    proxy,
    node,
    fleet,
    address: proxy.address,
    watch,
    monitoring: late.monitoring ?? null,
    workerReady: temporal.workerReady,
    reload,
    retire: async () => {
      watch.phase = 'ending';
      const others = [late.monitoring?.close(), temporal.close()];
      await Promise.all([proxy.retire(proxy.config.general.shutdownTimeoutMs), ...others]);
    },
    close: (graceMs = config.general.shutdownTimeoutMs) => close(graceMs),
  };
}

/**
 * Nobody is served before the record was asked: a file that was never saved may name the wrong side.
 *
 * @throws CutoverError `record_newer`: what a newer program decided must not be guessed at
 */
async function recoverFirst(node: LocalNode, proxy: WatchedProxy, logger: Logger): Promise<void> {
  const names = node.directory.names;
  for (const name of names) proxy.gate(name).close('recovery');
  try {
    await node.recover();
  } catch (error) {
    if (error instanceof CutoverError && error.code === 'record_newer') throw error;
    logger.warn({ problem: messageOf(error) }, 'the record could not be read at the start');
  }
  for (const name of names) if (!node.distrust.has(name)) proxy.gate(name).open('recovery');
}

function engineContext(
  proxy: WatchedProxy,
  node: LocalNode,
  fleet: Fleet,
  temporal: TemporalLink,
  onStep: EngineContext['onStep'] | undefined,
): EngineContext {
  return {
    config: () => proxy.config,
    directory: node.directory,
    connections: new Connections({ applicationName: 'cutover engine' }),
    fleet,
    isRunning: async (workflowId) => isRunning(await temporal.client(), workflowId),
    onStep: onStep ?? (() => undefined),
  };
}

/** The process's two connections to Temporal, made when they are first needed and again after a failure. */
class TemporalLink {
  readonly #config: Config;
  readonly #logger: Logger;
  readonly #ready: { resolve: () => void; promise: Promise<void> };
  #client: Promise<Client> | null = null;
  #worker: RunningWorker | null = null;
  #context: EngineContext | null = null;
  readonly #stopping = new AbortController();

  constructor(config: Config, options: ServeOptions) {
    this.#config = config;
    this.#logger = options.logger;
    let resolve: () => void = () => undefined;
    const promise = new Promise<void>((done) => {
      resolve = done;
    });
    this.#ready = { resolve, promise };
  }

  get workerReady(): Promise<void> {
    return this.#ready.promise;
  }

  /** @throws CutoverError `temporal_unreachable` */
  async client(): Promise<Client> {
    const connecting = (this.#client ??= temporalClient(this.#config.temporal));
    try {
      const client = await connecting;
      await requireAnswer(client, this.#config.temporal);
      return client;
    } catch (error) {
      // The next call connects anew, at once: an old connection would first rest longer and longer between its tries.
      if (this.#client === connecting) this.#client = null;
      await (await connecting.catch(() => null))?.connection.close();
      throw error;
    }
  }

  /** Tries until Temporal answers, and starts again when the worker fails: traffic goes on meanwhile. */
  runWorker(context: EngineContext): void {
    this.#context = context;
    const start = async (): Promise<RunningWorker> => {
      this.#worker = await startWorker(this.#config.temporal, context);
      this.#ready.resolve();
      return this.#worker;
    };
    void keepWorker(start, this.#logger, this.#stopping.signal);
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    await this.#worker?.stop();
    await this.#context?.connections.close();
    // The client's channel is left to the end of the process: a call that is being tried again would throw from its timer,
    // where nobody can catch it, once its channel is shut down.
  }
}

function withTemporal(config: Config, address: string | undefined): Config {
  return address === undefined ? config : { ...config, temporal: { ...config.temporal, address } };
}

function must<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the admin database is not ready yet');
  return value;
}
