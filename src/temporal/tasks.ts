/** One task: what operators may do with tasks: start, cut over, stop, rehearse on paper, look. */
import type { Client } from '@temporalio/client';
import { askNodes, type NodeAnswer } from '../../activities/nodes.js';
import { checkMove } from '../../activities/preparation.js';
import { assessSituation, nextMigrationId, sidesOf } from '../../activities/situation.js';
import type { EngineContext } from '../../activities/context.js';
import { firstFrom } from '../../activities/stream-ends.js';
import type { Ending } from '../cutover/contract.js';
import { STEPS, STEP_TITLES } from '../cutover/epoch.js';
import type { SchemaPart, TaskKind } from '../cutover/task.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { Fleet } from '../fleet/fleet.js';
import type { LocalNode } from '../fleet/local-node.js';
import type { Place } from '../fleet/directory.js';
import type { Connection } from '../postgres/connection.js';
import { disarmFence } from '../postgres/fence.js';
import { findMigration } from '../postgres/migrations.js';
import { publishedTables } from '../postgres/publications.js';
import { abortEpoch, readRecord } from '../postgres/record.js';
import type { Proxy } from '../proxy/contract.js';
import { answered } from './connection.js';
import { REHEARSAL_ANSWER_MS, rehearsalOf, type Rehearsal } from './rehearsal.js';
import { slotAlarms } from './slot-alarms.js';
import { listTasks, taskNumber, type Task } from './task-list.js';
import { taskRows, type TaskRow } from './task-rows.js';
import {
  copiesInto,
  expectedRowsFrom,
  cutoversOf,
  eventsOf,
  slotsOf,
  type TableCopyRow,
  type CutoverRow,
  type RecordedEvent,
  type SlotRow,
} from './views.js';
import { waitingFor } from './waiting.js';

export interface StartRequest {
  readonly kind: Exclude<TaskKind, 'cutover' | 'verify'>;
  readonly source: string;
  readonly destination: string;
  readonly publication: string;
  readonly slot?: string;
  /** of schema_sync */
  readonly part?: SchemaPart;
}

/** A task by its number, by a database it is about, or the only one that can. */
export type CutoverTarget = { readonly taskId: number } | { readonly name: string } | null;

export interface StartedTask {
  readonly taskId: number;
  /** the slot that will be used, where it is known */
  readonly replicationSlot?: string;
}

export interface EventRow extends RecordedEvent {
  readonly taskId: number | null;
}

export interface PlanRow {
  readonly part: 'preflight' | 'plan';
  /** id of the check or of the step */
  readonly name: string;
  readonly verdict: 'ok' | 'warning' | 'failed' | 'will run';
  readonly detail: string;
  readonly remedy: string;
}

export interface TasksOptions {
  readonly proxy: Proxy;
  readonly node: LocalNode;
  readonly fleet: Fleet;
  client(): Promise<Client>;
}

/** Kinds of tasks that carry no streams of their own. */
const UNMOVABLE: readonly TaskKind[] = ['cutover', 'schema_sync', 'verify'];

const CALL_TIMEOUT_MS = 5_000;
/** A move waits up to ten seconds for a cutover under way before it answers. */
const UPDATE_TIMEOUT_MS = 20_000;

export class Tasks {
  readonly #options: TasksOptions;

  constructor(options: TasksOptions) {
    this.#options = options;
  }

  /** Starts a workflow and answers its number. @throws CutoverError before anything is started when a name is wrong */
  async start(request: StartRequest): Promise<StartedTask> {
    const { kind, source, destination, publication } = request;
    const context = this.#context();
    const sides = await sidesOf(context, request);
    await publishedTables(await this.#connection(source), publication);
    const workflowId = `${kind}-${source}-${destination}-${Date.now().toString(36)}`;
    const { type, args } = workflowOf(request);
    const id = await nextMigrationId(context, sides);
    const slot = kind === 'schema_sync' ? null : firstFrom({ id, ...sides }, 'forward', 0).name;
    await this.#start(type, workflowId, args, `${kind} ${source} → ${destination}`);
    const taskId = await this.#numberOf(workflowId);
    return slot === null ? { taskId } : { taskId, replicationSlot: slot };
  }

  /** Begins to compare every table of both sides. @throws CutoverError before anything is started when a name is wrong */
  async verify(source: string, destination: string): Promise<StartedTask> {
    await sidesOf(this.#context(), { source, destination });
    const workflowId = `verify-${source}-${destination}-${Date.now().toString(36)}`;
    await this.#start('verify', workflowId, [{ source, destination }], `Verify ${source} and ${destination}`);
    return { taskId: await this.#numberOf(workflowId) };
  }

  /** Visibility may lag behind the start by a moment: the number follows from the start time all the same. */
  async #numberOf(workflowId: string): Promise<number> {
    const task = (await this.tasks()).find((t) => t.workflowId === workflowId);
    return task?.id ?? this.#ask((client) => numberOf(client, workflowId));
  }

  /** Every workflow of ours, roots and children; without Temporal those the record tells of. */
  async tasks(): Promise<readonly Task[]> {
    try {
      return await this.#reachableTasks();
    } catch (error) {
      if (!(error instanceof CutoverError && error.code === 'temporal_unreachable')) throw error;
      return listTasks(null, this.#options.proxy.config.temporal.taskQueue, await this.records());
    }
  }

  /** @throws CutoverError `temporal_unreachable`: without Temporal no task can be found to run, or be told anything */
  async #reachableTasks(): Promise<readonly Task[]> {
    const { taskQueue } = this.#options.proxy.config.temporal;
    const records = await this.records();
    return this.#ask((client) => listTasks(client, taskQueue, records));
  }

  async #ask<T>(call: (client: Client) => Promise<T>, timeoutMs = CALL_TIMEOUT_MS): Promise<T> {
    const client = await this.#options.client();
    return answered(client, this.#options.proxy.config.temporal, timeoutMs, () => call(client));
  }

  async #start(type: string, workflowId: string, args: unknown[], staticSummary: string): Promise<void> {
    const { taskQueue } = this.#options.proxy.config.temporal;
    await this.#ask((client) => client.workflow.start(type, { workflowId, taskQueue, args, staticSummary }));
  }

  /** Connections to every reachable side that has a record. */
  async records(): Promise<readonly Connection[]> {
    return this.#recordsAt(this.#options.node.directory.places.filter(({ shard }) => shard === 0));
  }

  /** The same of every shard of each side. */
  async #shardRecords(): Promise<readonly Connection[]> {
    return this.#recordsAt(this.#options.node.directory.places);
  }

  async #recordsAt(places: readonly Place[]): Promise<readonly Connection[]> {
    const found: Connection[] = [];
    for (const { name, shard } of places) {
      try {
        const connection = await this.#connection(name, shard);
        if (await readRecord(connection)) found.push(connection);
      } catch {
        // A side that is down has no story to tell now; the other one has a copy.
      }
    }
    return found;
  }

  /** Root tasks with their subtasks. */
  async list(): Promise<readonly TaskRow[]> {
    const client = await this.#options.client().catch(() => null);
    const alarms = await slotAlarms(await this.#shardRecords(), this.#options.proxy.config.cutover);
    const waiting = async (workflowId: string): Promise<string | null> =>
      client ? waitingFor(client, workflowId) : null;
    return taskRows(await this.tasks(), waiting, alarms);
  }

  /**
   * Moves the traffic of a task: forward for one that waits or streams, back for one whose streams run the other way.
   * Without a target only forward: going back is asked for by name.
   *
   * @param acceptLoss swap without parity once cutover_timeout has passed, which the configuration must allow
   * @throws CutoverError `loss_not_allowed`, `no_replication_task`, `already_moved`, `refused_now`, `temporal_unreachable`
   */
  async cutover(target: CutoverTarget, acceptLoss = false): Promise<void> {
    if (acceptLoss && this.#options.proxy.config.cutover.timeoutAction !== 'cutover')
      throw new CutoverError('loss_not_allowed', {});
    const { source, destination, reversed, owner } = await this.#movable(target);
    if (owner.state.kind !== 'replication') {
      const update = reversed ? 'rollback' : 'approve';
      await refusalAsError(
        this.#ask(
          (client) => client.workflow.getHandle(owner.workflowId).executeUpdate(update, { args: [{ acceptLoss }] }),
          UPDATE_TIMEOUT_MS,
        ),
      );
      return;
    }
    await this.#start(
      'cutover',
      `cutover-${source}-${destination}-${Date.now().toString(36)}`,
      [{ source, destination, rollback: reversed, ...(acceptLoss ? { acceptLoss } : {}) }],
      `Cutover ${source} ${reversed ? '←' : '→'} ${destination}`,
    );
  }

  /**
   * Holds the clients as a cutover of this task would, proves the destination and gives the traffic back. Waits for the outcome,
   * for a minute at most.
   *
   * @throws CutoverError `rehearsal_failed`, `no_replication_task`, `already_moved`, `temporal_unreachable`
   */
  async rehearse(target: CutoverTarget): Promise<Rehearsal> {
    const { source, destination, reversed } = await this.#movable(target);
    const workflowId = `rehearsal-${source}-${destination}-${Date.now().toString(36)}`;
    await this.#start(
      'cutover',
      workflowId,
      [{ source, destination, rollback: reversed, rehearse: true }],
      `Rehearsal ${source} ${reversed ? '←' : '→'} ${destination}`,
    );
    const rehearsal = await this.#ask(
      (client) => rehearsalOf(client, workflowId),
      REHEARSAL_ANSWER_MS + CALL_TIMEOUT_MS,
    );
    return { ...rehearsal, taskId: await this.#numberOf(workflowId) };
  }

  /** What a cutover of `target` would move now, and whose word it needs. */
  async #movable(target: CutoverTarget): Promise<{
    readonly source: string;
    readonly destination: string;
    readonly reversed: boolean;
    readonly owner: Task;
  }> {
    const tasks = await this.#reachableTasks();
    const task = this.#find(target, tasks);
    const { source, destination, kind } = task.state;
    // The record says which side serves; a workflow's own story may be a moment behind.
    const reversed = (await assessSituation(this.#context(), { source, destination })).serving === 'destination';
    const reverse = tasks.find((t) => t.running && t.state.kind === 'replication' && t.state.source === source);
    if (reversed && (target === null || kind !== 'replication'))
      throw new CutoverError('already_moved', { database: source, task: reverse?.id ?? task.id });
    return { source, destination, reversed, owner: ownerOf(task, tasks) };
  }

  #find(target: CutoverTarget, tasks: readonly Task[]): Task {
    const movable = tasks.filter((t) => t.running && !UNMOVABLE.includes(t.state.kind));
    const replications = movable.filter((t) => t.state.kind === 'replication');
    const about = (t: Task, name: string): boolean => t.state.source === name || t.state.destination === name;
    const task =
      target === null
        ? replications[0]
        : 'taskId' in target
          ? movable.find((t) => t.id === target.taskId)
          : replications.find((t) => about(t, target.name));
    if (task) return task;
    throw new CutoverError('no_replication_task', {
      task: target === null ? '(none runs)' : 'taskId' in target ? target.taskId : target.name,
    });
  }

  /** Preflight as a plan: every check, then the eight steps; nothing touched. */
  async dryRun(target: CutoverTarget): Promise<readonly PlanRow[]> {
    const { source, destination } = this.#find(target, await this.#reachableTasks()).state;
    const checks = await checkMove(this.#context(), { source, destination }, 'cutover');
    return [
      ...checks.map((c) => ({
        part: 'preflight' as const,
        name: c.id,
        verdict: c.verdict,
        detail: c.detail,
        remedy: c.remedy,
      })),
      ...STEPS.map((step) => ({
        part: 'plan' as const,
        name: step,
        verdict: 'will run' as const,
        detail: STEP_TITLES[step],
        remedy: '',
      })),
    ];
  }

  /**
   * Stops a task: the record first, so that a pause under way ends by its decision, then the workflow.
   *
   * @param save save the swapped configuration first, which finalizing needs
   */
  async stop(taskId: number, save = false): Promise<'OK' | 'task not found'> {
    const tasks = await this.#reachableTasks();
    const task = tasks.find((t) => t.id === taskId && t.running);
    if (!task) return 'task not found';
    if (task.state.kind === 'verify') {
      // It changes nothing: there is nothing to decide before it may end.
      await this.#ask((client) => client.workflow.getHandle(task.workflowId).signal('stop', 'remove'));
      return 'OK';
    }
    const owner = task.state.kind === 'cutover' ? task : ownerOf(task, tasks);
    const { source, destination, kind } = owner.state;
    // The record says which side serves; a workflow's own story may be a moment behind.
    const moved =
      kind !== 'schema_sync' &&
      (await assessSituation(this.#context(), { source, destination })).serving === 'destination';
    if (moved && kind !== 'cutover') await this.#filesReady(source, save);
    else await this.#abortOpenEpoch(source);
    const ending: Ending = moved ? 'finalize' : 'remove';
    await this.#ask((client) => client.workflow.getHandle(owner.workflowId).signal('stop', ending));
    return 'OK';
  }

  async #filesReady(database: string, save: boolean): Promise<void> {
    const { fleet } = this.#options;
    for (const node of fleet.nodes(await fleet.addresses())) {
      if (save) await node.save(database);
      const state = await node.state(database);
      if (!state.filesServe) throw new CutoverError('files_name_old_side', { node: state.node, database });
    }
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

  /** What every node of the fleet says about every database it serves; fails for none of them. */
  nodes(): Promise<readonly NodeAnswer[]> {
    return askNodes(this.#context());
  }

  async slots(): Promise<readonly SlotRow[]> {
    return (await Promise.all((await this.#shardRecords()).map(slotsOf))).flat();
  }

  async tableCopies(): Promise<readonly TableCopyRow[]> {
    const shards = await this.#shardRecords();
    const copies = (await Promise.all(shards.map(copiesInto))).flat();
    const expected = copies.length === 0 ? [] : (await Promise.all(shards.map(expectedRowsFrom))).flat();
    return copies.map((copy) => {
      const { stream, schema, table } = copy;
      const known = expected.find((of) => of.stream === stream && of.schema === schema && of.table === table);
      return { ...copy, expectedRows: known?.rows ?? null };
    });
  }

  async cutovers(): Promise<readonly CutoverRow[]> {
    const tasks = await this.tasks();
    return cutoversOf(await this.records(), (workflowId) => rootOf(workflowId, tasks)?.id ?? null);
  }

  async events(taskId: number | null, limit: number): Promise<readonly EventRow[]> {
    const tasks = await this.tasks();
    const task = taskId === null ? null : tasks.find((t) => t.id === taskId);
    if (task === undefined) return [];
    const events = await eventsOf(await this.records(), task?.workflowId ?? null, limit);
    const ids = new Map(tasks.map((t) => [t.workflowId, t.id]));
    return events.map((e) => ({ ...e, taskId: ids.get(e.stream) ?? null }));
  }

  /**
   * Forgets the tombstone of a side that does not serve: its fence and its record go, and it accepts writes again.
   *
   * @throws CutoverError `refused_now` while a migration holds it, or when it serves
   */
  async retire(database: string): Promise<void> {
    const connection = await this.#connection(database);
    const record = await readRecord(connection);
    if (!record) return;
    const held = await findMigration(connection);
    if (held) throw new CutoverError('refused_now', { problem: `"${database}" belongs to the migration ${held.id}` });
    if (record.fence.state === 'open') throw new CutoverError('refused_now', { problem: `"${database}" serves` });
    // Shard 0 last: by its record a repeat finds that there is something left to do.
    const places = this.#options.node.directory.places.filter(({ name }) => name === database);
    for (const { shard } of [...places].reverse()) {
      const reached = await this.#connection(database, shard);
      await disarmFence(reached);
      await reached.query('DROP SCHEMA IF EXISTS cutover CASCADE');
    }
  }

  #context(): EngineContext {
    const { node, proxy } = this.#options;
    return {
      config: () => proxy.config,
      directory: node.directory,
      connections: node.connections,
      fleet: this.#options.fleet,
      isRunning: () => Promise.resolve(true),
      onStep: () => undefined,
    };
  }

  #connection(name: string, shard = 0): Promise<Connection> {
    const { node } = this.#options;
    return node.connections.get(node.directory.endpoint(name, shard), 'watch');
  }
}

function workflowOf(request: StartRequest): { type: string; args: unknown[] } {
  const { kind, source, destination, publication, slot, part } = request;
  const move = { source, destination, publication };
  switch (kind) {
    case 'reshard':
      return { type: 'reshard', args: [move] };
    case 'copy_data':
      return { type: 'reshard', args: [{ ...move, cutover: 'approved' }] };
    case 'replication':
      return { type: 'replicate', args: [slot === undefined ? move : { ...move, slot }] };
    case 'schema_sync':
      return { type: 'schemaSync', args: [part ?? 'pre', move] };
  }
}

/** The task under which SHOW TASKS lists a workflow. */
function rootOf(workflowId: string, tasks: readonly Task[]): Task | null {
  const task = tasks.find((t) => t.workflowId === workflowId);
  if (!task) return null;
  return (task.parentWorkflowId === null ? null : rootOf(task.parentWorkflowId, tasks)) ?? task;
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
    if (error instanceof CutoverError) throw error;
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    throw new CutoverError('refused_now', { problem: messageOf(cause) });
  }
}
