/** One task: put a worker process together: no proxy in it, the nodes are steered over their admin databases. */
import type { EngineContext } from '../activities/context.js';
import type { TemporalConfig } from './config/config.js';
import type { Configured } from './configured.js';
import { Fleet, loopbackOf } from './fleet/fleet.js';
import { Connections } from './postgres/connections.js';
import { temporalClient } from './temporal/connection.js';
import { isRunning, startWorker, type WorkerVersion } from './temporal/worker.js';

export interface WorkerOptions {
  /** is closed when the worker has been stopped */
  readonly configured: Configured;
  /** the name of the proxy, and where it listens, where there are no rows of [[nodes]]; from the configuration when absent */
  readonly row?: string;
  readonly host?: string;
  readonly port?: number;
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
 * @throws CutoverError `temporal_unreachable`
 */
export async function serveWorker(options: WorkerOptions): Promise<ServedWorker> {
  const { configured } = options;
  const { config, directory } = configured;
  const { host, port } = config().general;
  const fallback = {
    name: options.row ?? 'local',
    host: loopbackOf(options.host ?? host),
    port: options.port ?? port,
  };
  const fleet = new Fleet({ config, own: null, row: null, fallback });
  const connections = new Connections({ applicationName: 'cutover engine' });
  const { temporal } = config();
  const release = async (): Promise<void> => {
    configured.close();
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
