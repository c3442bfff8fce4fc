/** One task: put a worker process together: no proxy in it, the nodes are steered over their admin databases. */
import type { EngineContext } from '../activities/context.js';
import type { Config, TemporalConfig } from './config/config.js';
import { loadConfig, type ConfigFiles } from './config/load.js';
import { WatchedConfig } from './config/watched.js';
import { CutoverError } from './errors/errors.js';
import { Directory } from './fleet/directory.js';
import { Fleet, loopbackOf } from './fleet/fleet.js';
import { Connections } from './postgres/connections.js';
import type { Logger } from './proxy/logger.js';
import { temporalClient } from './temporal/connection.js';
import { isRunning, startWorker, type WorkerVersion } from './temporal/worker.js';

export interface WorkerOptions {
  readonly files: ConfigFiles;
  /** the name and port of the proxy where there are no rows of [[nodes]]; from the file when absent */
  readonly row?: string;
  readonly port?: number;
  readonly temporalAddress?: string;
  readonly logger: Logger;
  /** called with the configuration of the start and with each that the files have later */
  readonly onConfig?: (config: Config) => void;
  readonly onStep?: EngineContext['onStep'];
  /** this one when absent */
  readonly version?: WorkerVersion;
}

export interface ServedWorker {
  readonly ended: Promise<void>;
  /** may be called again */
  stop(): Promise<void>;
}

/**
 * Starts the worker.
 *
 * @throws CutoverError `admin_password_missing` when the proxy's admin password is not in the files: it would be another one
 *   in each process; `temporal_unreachable`
 */
export async function serveWorker(options: WorkerOptions): Promise<ServedWorker> {
  const { watched, directory } = watchedFiles(options);
  const config = (): Config => watched.current;
  const { host, port } = config().general;
  const fallback = { name: options.row ?? 'local', host: loopbackOf(host), port: options.port ?? port };
  const fleet = new Fleet({ config, own: null, row: null, fallback });
  const connections = new Connections({ applicationName: 'cutover engine' });
  const { temporal } = config();
  const release = async (): Promise<void> => {
    watched.close();
    await fleet.close();
    await connections.close();
  };
  try {
    return await startedWorker(options, { config, directory, connections, fleet }, temporal, release);
  } catch (error) {
    await release();
    throw error;
  }
}

/** What the files say now, and which servers that names. */
function watchedFiles(options: WorkerOptions): { readonly watched: WatchedConfig; readonly directory: Directory } {
  const { files, logger, temporalAddress } = options;
  const load = (): Config => {
    const loaded = loadConfig(files);
    if (!loaded.admin.passwordConfigured) throw new CutoverError('admin_password_missing', {});
    return temporalAddress === undefined
      ? loaded
      : { ...loaded, temporal: { ...loaded.temporal, address: temporalAddress } };
  };
  const watched = new WatchedConfig(load, {
    changed: () => {
      // Other servers may stand at the addresses.
      directory.forget();
      options.onConfig?.(watched.current);
      logger.info({}, 'the engine has read its configuration anew');
    },
    refused: (problem) => {
      logger.error({ problem }, 'the engine keeps its configuration: the files cannot be loaded');
    },
  });
  options.onConfig?.(watched.current);
  const directory = new Directory(() => watched.current);
  return { watched, directory };
}

async function startedWorker(
  options: WorkerOptions,
  parts: Pick<EngineContext, 'config' | 'directory' | 'connections' | 'fleet'>,
  temporal: TemporalConfig,
  release: () => Promise<void>,
): Promise<ServedWorker> {
  const client = await temporalClient(temporal);
  const context = {
    ...parts,
    isRunning: (workflowId: string) => isRunning(client, workflowId),
    onStep: options.onStep ?? (() => undefined),
  };
  try {
    const worker = await startWorker(temporal, context, options.version);
    return {
      ended: worker.ended,
      stop: async () => {
        await worker.stop();
        // Not the client's channel: see TemporalLink.close in serve.ts.
        await release();
      },
    };
  } catch (error) {
    // No call is under way yet, so the channel may go: whoever tries again makes a new one.
    await client.connection.close();
    throw error;
  }
}
