/**
 * One task: a worker whose activities are scripted, so that a test can hold a workflow in any phase for as long as it likes.
 *
 * What the activities really do is tested elsewhere on real servers; here only what the workflows make of them.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Context } from '@temporalio/activity';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import type { Activities, PauseActivities } from '../../src/cutover/activities.js';
import type { EpochPlan, Migration, PartResult, Situation } from '../../src/cutover/contract.js';
import { EVENT_OF, STEPS, type EpochEvent, type Step } from '../../src/cutover/epoch.js';

export type Name = keyof Activities | keyof PauseActivities;
type Script = Partial<Activities & PauseActivities>;

export const BUNDLE_PATH = fileURLToPath(new URL('../../dist/workflow-bundle.js', import.meta.url));
export const REQUEST = { source: 'prod', destination: 'prod_new' } as const;

/** One worker on one task queue, with what its activities answer and which of them are held. */
export class ScriptedEngine {
  /** activities in the order in which they began */
  readonly calls: Name[] = [];
  /** the side that the scripted record says serves */
  serving: Situation['serving'] = 'source';
  readonly client: Client;
  readonly #taskQueue: string;
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  readonly #connection: NativeConnection;
  readonly #held = new Map<Name, { promise: Promise<void>; release: () => void }>();

  private constructor(client: Client, connection: NativeConnection, worker: Worker, taskQueue: string) {
    this.client = client;
    this.#connection = connection;
    this.#worker = worker;
    this.#taskQueue = taskQueue;
    this.#ended = worker.run();
  }

  /** Starts a worker; `script` replaces single activities. */
  static async start(address: string, taskQueue: string, script: Script = {}): Promise<ScriptedEngine> {
    quietRuntime();
    const connection = await NativeConnection.connect({ address });
    const holder: { engine?: ScriptedEngine } = {};
    const worker = await Worker.create({
      connection,
      taskQueue,
      workflowBundle: { code: readFileSync(BUNDLE_PATH, 'utf8') },
      activities: watched({ ...defaults(holder), ...script }, holder),
      shutdownGraceTime: '1s',
      maxHeartbeatThrottleInterval: '100ms',
    });
    const client = new Client({ connection: await Connection.connect({ address }) });
    const engine = new ScriptedEngine(client, connection, worker, taskQueue);
    holder.engine = engine;
    return engine;
  }

  start(type: string, workflowId: string, input: object): ReturnType<Client['workflow']['start']> {
    return this.client.workflow.start(type, { workflowId, taskQueue: this.#taskQueue, args: [input] });
  }

  /** The activity begins and does not return before the function this answers is called. */
  hold(name: Name): () => void {
    let release: () => void = () => undefined;
    const promise = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#held.set(name, { promise, release });
    return () => {
      this.#held.delete(name);
      release();
    };
  }

  /** Resolves when `name` may go on; rejects when its workflow no longer wants it. */
  async pass(name: Name): Promise<void> {
    this.calls.push(name);
    const held = this.#held.get(name);
    if (!held) return;
    const context = Context.current();
    // A heartbeat is what delivers a cancel.
    const beat = setInterval(() => {
      context.heartbeat();
    }, 100);
    try {
      await Promise.race([held.promise, context.cancelled]);
    } finally {
      clearInterval(beat);
    }
  }

  async stop(): Promise<void> {
    for (const { release } of this.#held.values()) release();
    this.#worker.shutdown();
    await this.#ended;
    await this.client.connection.close();
    await this.#connection.close();
  }
}

let installed = false;

export function quietRuntime(): void {
  if (installed) return;
  installed = true;
  Runtime.install({
    logger: new DefaultLogger('ERROR'),
    telemetryOptions: { logging: { forward: {}, filter: 'temporalio_sdk_core=ERROR' } },
  });
}

function watched(script: Required<Script>, holder: { engine?: ScriptedEngine }): object {
  const entries = Object.entries(script).map(([name, activity]) => [
    name,
    async (...args: unknown[]): Promise<unknown> => {
      await holder.engine?.pass(name as Name);
      return (activity as (...args: unknown[]) => Promise<unknown>)(...args);
    },
  ]);
  return Object.fromEntries(entries) as object;
}

const side = { systemIdentifier: '7000000000000000001', databaseOid: 1 };
const peerSide = { systemIdentifier: '7000000000000000002', databaseOid: 1 };

export function migrationOf(owner: string): Migration {
  return {
    id: 'feedbeef_1',
    database: REQUEST.source,
    peer: REQUEST.destination,
    source: side,
    destination: peerSide,
    publication: null,
    owner,
    concurrent: true,
    soakMs: null,
  };
}

function story(steps: readonly Step[]): Promise<PartResult> {
  const events = steps.map((step): EpochEvent => ({ type: EVENT_OF[step], data: { ms: 1 } }));
  return Promise.resolve({ ok: true, events, sealLsn: '0/1' });
}

function defaults(holder: { engine?: ScriptedEngine }): Required<Script> {
  let migration: Migration | null = null;
  let epoch = 0;
  const nothing = (): Promise<void> => Promise.resolve();
  const over = (): Promise<void> => {
    migration = null;
    return Promise.resolve();
  };
  const statements = (): Promise<{ statements: number }> => Promise.resolve({ statements: 0 });
  return {
    assessSituation: () =>
      Promise.resolve({
        migration,
        serving: holder.engine?.serving ?? 'source',
        epoch,
        since: null,
        streams: migration !== null,
      }),
    runPreflight: () => Promise.resolve([]),
    claimMigration: (_, owner) => {
      migration = migrationOf(owner);
      return Promise.resolve(migration);
    },
    loadSchema: statements,
    syncSchema: statements,
    createStreams: nothing,
    copyTables: () => Promise.resolve({ tablesReady: 1, tablesTotal: 1, bytes: 1, rows: 1 }),
    finaliseSchema: statements,
    armFences: nothing,
    createReverseStreams: nothing,
    watchStreams: () => Promise.resolve(null),
    removeMigration: over,
    checkFinalizable: nothing,
    finalizeMigration: over,
    claimOperation: nothing,
    releaseOperation: nothing,
    awaitMoment: (request): Promise<EpochPlan> => {
      epoch += 1;
      const pin = { timeline: 1 };
      return Promise.resolve({
        ...{ migration: request.migration, heading: request.heading, epoch, nonce: 'n', attempt: request.attempt },
        ...{ source: { ...side, ...pin }, destination: { ...peerSide, ...pin } },
        ...{ leaseMs: 1_000, drainMs: 1_000, drainAction: 'abort', timeoutMs: 1_000, timeoutAction: 'abort' },
        ...{ nodes: [], acceptLoss: false, saveConfig: false, maxAttempts: 1 },
      });
    },
    verifyTables: () =>
      Promise.resolve({
        ...{
          heading: 'forward',
          epoch,
          tables: 1,
          rows: 1,
          bytes: 1,
          differences: 0,
          undecided: 0,
          samples: [],
          busyMs: 1,
        },
        ...{ startedAt: '2026-01-01T00:00:00.000Z', finishedAt: '2026-01-01T00:00:01.000Z' },
      }),
    resolvePause: (plan, reason) =>
      Promise.resolve({ epoch: plan.epoch, outcome: 'aborted', reason, events: [], pausedMs: null }),
    writeTimeline: nothing,
    recordEvents: nothing,
    keepEvents: nothing,
    moveTraffic: (plan) => {
      if (holder.engine) holder.engine.serving = plan.heading === 'forward' ? 'destination' : 'source';
      return story(STEPS);
    },
    returnToSource: (_, reason) => Promise.resolve({ outcome: 'aborted', reason }),
  };
}
