/** One task: what operators may do with tasks: start, cut over, stop, rehearse on paper, look. */
import type { Client } from '@temporalio/client';
import { checkMove } from '../../activities/preparation.js';
import { nextMigrationId, sidesOf } from '../../activities/situation.js';
import type { EngineContext } from '../../activities/context.js';
import type { Check, MoveRequest } from '../cutover/contract.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { LocalNode } from '../fleet/local-node.js';
import type { Connection } from '../postgres/connection.js';
import { publishedTables } from '../postgres/publications.js';
import { abortEpoch, readRecord } from '../postgres/record.js';
import { streamName } from '../postgres/streams.js';
import type { Proxy } from '../proxy/contract.js';
import { listTasks, taskNumber, type Task } from './task-list.js';

export type StartKind = 'reshard' | 'copy_data' | 'replicate' | 'schema_sync';

export interface StartRequest {
  readonly source: string;
  readonly destination: string;
  readonly publication?: string;
  readonly slot?: string;
  /** of schema_sync */
  readonly part?: 'pre' | 'post' | 'cutover';
}

export interface TasksOptions {
  readonly proxy: Proxy;
  readonly node: LocalNode;
  client(): Promise<Client>;
}

export class Tasks {
  readonly #options: TasksOptions;

  constructor(options: TasksOptions) {
    this.#options = options;
  }

  /** Starts a workflow and answers its number. @throws CutoverError before anything is started when a name is wrong */
  async start(kind: StartKind, request: StartRequest): Promise<{ taskId: number; replicationSlot: string | null }> {
    const context = this.#context();
    const sides = await sidesOf(context, request);
    const source = await this.#connection(request.source);
    await publishedTables(source, request.publication ?? null);
    const client = await this.#options.client();
    const workflowId = `${kind}-${request.source}-${request.destination}-${Date.now().toString(36)}`;
    const { type, args } = workflowOf(kind, request);
    const replicationSlot =
      kind === 'schema_sync' ? null : streamName(await nextMigrationId(context, sides), 'forward');
    await client.workflow.start(type, {
      workflowId,
      taskQueue: this.#options.proxy.config.temporal.taskQueue,
      args,
      staticSummary: `${kind} ${request.source} → ${request.destination}`,
    });
    const task = (await this.list()).find((t) => t.workflowId === workflowId);
    // Visibility may lag behind the start by a moment: the number follows from the start time all the same.
    const started = task?.id ?? (await numberOf(client, workflowId));
    return { taskId: started, replicationSlot };
  }

  async list(): Promise<readonly Task[]> {
    const records = await this.records();
    const client = await this.#options.client().catch(() => null);
    return listTasks(client, this.#options.proxy.config.temporal.taskQueue, records);
  }

  /** Connections to every reachable side that has a record. */
  async records(): Promise<readonly Connection[]> {
    const found: Connection[] = [];
    for (const name of this.#options.node.directory.names) {
      try {
        const connection = await this.#connection(name);
        if (await readRecord(connection)) found.push(connection);
      } catch {
        // A side that is down has no story to tell now; the other one has a copy.
      }
    }
    return found;
  }

  /**
   * Moves the traffic of a task: forward for one that waits or streams, back for one whose streams run the other way.
   *
   * @param taskId absent: the first replication task, and only forward: going back is asked for by name
   */
  async cutover(taskId?: number): Promise<void> {
    const tasks = await this.list();
    const candidates = tasks.filter((t) => t.running && t.state.kind === 'replication');
    const task = taskId === undefined ? candidates[0] : tasks.find((t) => t.id === taskId && t.running);
    if (!task) throw new CutoverError('no_replication_task', { task: taskId ?? 'none' });
    if (task.state.reversed && taskId === undefined)
      throw new CutoverError('already_moved', { database: task.state.source, task: task.id });
    const owner = ownerOf(task, tasks);
    if (task.state.kind === 'cutover' || task.state.kind === 'schema_sync')
      throw new CutoverError('no_replication_task', { task: task.id });
    if (task.state.kind !== 'replication' && task.state.reversed)
      throw new CutoverError('already_moved', { database: task.state.source, task: candidates[0]?.id ?? task.id });
    const client = await this.#options.client();
    if (owner.state.kind !== 'replication') {
      const update = task.state.reversed ? 'rollback' : 'approve';
      await refusalAsError(client.workflow.getHandle(owner.workflowId).executeUpdate(update, { args: [] }));
      return;
    }
    const { source, destination } = task.state;
    await client.workflow.start('cutover', {
      workflowId: `cutover-${source}-${destination}-${Date.now().toString(36)}`,
      taskQueue: this.#options.proxy.config.temporal.taskQueue,
      args: [{ source, destination, rollback: task.state.reversed }],
    });
  }

  /** Preflight as a plan: every check, nothing touched. */
  async dryRun(target: number | MoveRequest): Promise<readonly Check[]> {
    if (typeof target !== 'number') return checkMove(this.#context(), target);
    const task = (await this.list()).find((t) => t.id === target);
    if (!task) throw new CutoverError('no_replication_task', { task: target });
    const { source, destination } = task.state;
    return checkMove(this.#context(), { source, destination });
  }

  /**
   * Stops a task: the record first, so that a pause under way ends by its decision, then the workflow.
   *
   * @param save save the swapped configuration first, which finalizing needs
   */
  async stop(taskId: number, save = false): Promise<'OK' | 'task not found'> {
    const tasks = await this.list();
    const task = tasks.find((t) => t.id === taskId && t.running);
    if (!task) return 'task not found';
    const owner = task.state.kind === 'cutover' ? task : ownerOf(task, tasks);
    if (owner.state.reversed) await this.#filesReady(owner.state.source, save);
    else await this.#abortOpenEpoch(owner.state.source);
    const client = await this.#options.client();
    await client.workflow.getHandle(owner.workflowId).signal('stop');
    return 'OK';
  }

  async #filesReady(database: string, save: boolean): Promise<void> {
    const { node } = this.#options;
    if (save) await node.save(database);
    const state = await node.state(database);
    if (!state.filesServe) throw new CutoverError('files_name_old_side', { node: state.node, database });
  }

  async #abortOpenEpoch(database: string): Promise<void> {
    for (const name of this.#options.node.directory.names) {
      const connection = await this.#connection(name).catch(() => null);
      const record = connection ? await readRecord(connection) : null;
      if (!connection || !record) continue;
      for (const decision of record.decisions)
        if (decision.database === database && (decision.state === 'preparing' || decision.state === 'sealed'))
          await abortEpoch(connection, record.identity, decision.epoch, 'stopped by an operator');
    }
  }

  #context(): EngineContext {
    const { node, proxy } = this.#options;
    return {
      config: () => proxy.config,
      directory: node.directory,
      connections: node.connections,
      nodes: [node],
      isRunning: () => Promise.resolve(true),
      onStep: () => undefined,
    };
  }

  #connection(name: string): Promise<Connection> {
    const { node } = this.#options;
    return node.connections.get(node.directory.endpoint(name), 'watch');
  }
}

function workflowOf(kind: StartKind, request: StartRequest): { type: string; args: unknown[] } {
  const { source, destination, publication, slot, part } = request;
  const move = { source, destination, ...(publication === undefined ? {} : { publication }) };
  switch (kind) {
    case 'reshard':
      return { type: 'reshard', args: [move] };
    case 'copy_data':
      return { type: 'reshard', args: [{ ...move, cutover: 'approved' }] };
    case 'replicate':
      return { type: 'replicate', args: [slot === undefined ? move : { ...move, slot }] };
    case 'schema_sync':
      return { type: 'schemaSync', args: [part ?? 'pre', move] };
  }
}

/** The task whose workflow decides: a child's parent while that runs, itself otherwise. */
function ownerOf(task: Task, tasks: readonly Task[]): Task {
  const parent = tasks.find((t) => t.workflowId === task.parentWorkflowId && t.running);
  return parent ? ownerOf(parent, tasks) : task;
}

async function numberOf(client: Client, workflowId: string): Promise<number> {
  const { startTime } = await client.workflow.getHandle(workflowId).describe();
  return taskNumber(startTime);
}

/** An update refused by its validator says why not: that sentence is the operator's answer. */
async function refusalAsError(update: Promise<unknown>): Promise<void> {
  try {
    await update;
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    throw new CutoverError('refused_now', { problem: messageOf(cause) });
  }
}
