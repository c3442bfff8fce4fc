/** One task: run the worker that serves the workflows and their activities, with the prebuilt workflow bundle. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DefaultLogger, Runtime, Worker, type WorkflowBundleOption } from '@temporalio/worker';
import { WorkflowNotFoundError, type Client } from '@temporalio/client';
import { createActivities } from '../../activities/index.js';
import type { EngineContext } from '../../activities/context.js';
import type { TemporalConfig } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import { temporalWorkerConnection } from './connection.js';

export interface RunningWorker {
  /** resolves when the worker has ended by itself or by stop(); rejects when it failed */
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

/** What a worker runs: a worker of another version brings its own workflows, and the activities they know. */
export interface WorkerVersion {
  readonly workflowBundle: WorkflowBundleOption;
  readonly activities: (context: EngineContext) => object;
}

/** How long a stopping worker waits for its activities; the pause ends in less, copies resume elsewhere. */
const SHUTDOWN_GRACE = '3s';

const STICKY_TIMEOUT = '2s';

/**
 * Starts a worker on the task queue of the configuration.
 *
 * The bundle is built ahead (`npm run build`): making one from source would stall the event loop, and with it the relay.
 *
 * @param version this one unless named
 * @throws CutoverError `temporal_unreachable` | `bundle_missing`
 */
export async function startWorker(
  config: TemporalConfig,
  context: EngineContext,
  version: WorkerVersion = { workflowBundle: { codePath: bundlePath() }, activities: createActivities },
): Promise<RunningWorker> {
  quietRuntime();
  const { connection, namespace } = await temporalWorkerConnection(config);
  const worker = await Worker.create({
    connection,
    namespace,
    taskQueue: config.taskQueue,
    workflowBundle: version.workflowBundle,
    activities: version.activities(context),
    shutdownGraceTime: SHUTDOWN_GRACE,
    maxHeartbeatThrottleInterval: '1s',
    // A dead worker keeps its workflows to itself for this long; the default of 10 s is a move that stands still.
    stickyQueueScheduleToStartTimeout: STICKY_TIMEOUT,
    maxConcurrentWorkflowTaskPolls: 4,
  });
  const ended = worker.run().finally(() => connection.close());
  // A failure is for whoever awaits `ended`; it must not end the process before they do.
  ended.catch(() => undefined);
  return {
    ended,
    stop: async () => {
      if (worker.getState() === 'RUNNING') worker.shutdown();
      await ended.catch(() => undefined);
    },
  };
}

let installed = false;

/** The SDK tells what failed; what happened is told by the events. The runtime is one for the process and set up once. */
function quietRuntime(): void {
  if (installed) return;
  installed = true;
  Runtime.install({
    logger: new DefaultLogger('WARN'),
    shutdownSignals: [],
    telemetryOptions: { logging: { forward: {}, filter: 'temporalio_sdk_core=WARN' } },
  });
}

function bundlePath(): string {
  const candidates = ['../../workflow-bundle.js', '../../dist/workflow-bundle.js'];
  for (const candidate of candidates) {
    const path = fileURLToPath(new URL(candidate, import.meta.url));
    if (existsSync(path)) return path;
  }
  throw new CutoverError('bundle_missing', {});
}

/**
 * Whether a workflow with this id runs now; an id that Temporal does not know does not run.
 *
 * @throws whatever else Temporal answers: that there is no such namespace says nothing of the workflow
 */
export async function isRunning(client: Client, workflowId: string): Promise<boolean> {
  try {
    return (await client.workflow.getHandle(workflowId).describe()).status.name === 'RUNNING';
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return false;
    throw error;
  }
}
