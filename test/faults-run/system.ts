/** One task: what the faults are made in: two clusters or more, Temporal, nodes and worker as processes, a network that can be spoilt between them. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, Connection, type WorkflowHandle } from '@temporalio/client';
import type pg from 'pg';
import type { MoveResult } from '../../src/cutover/contract.js';
import { ChaosProxy } from '../../src/dev/chaos-proxy.js';
import { startCluster, type Cluster, type Place } from '../../src/dev/embedded-postgres.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import { removeAtEnd } from '../../src/dev/guardian.js';
import { freePorts, LOOPBACK } from '../../src/dev/ports.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';
import { messageOf } from '../../src/errors/errors.js';
import { invariant } from '../../src/errors/invariant.js';
import { withConnection } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { until } from '../support/wait.js';
import { DIRECT_TABLE, DirectWriter, EXTRA_TABLES } from './direct-writers.js';
import type { Layout } from './plan.js';
import { ProgramProcess } from './process.js';
import type { ProgramOptions } from './program-options.js';
import { placeOf, SPREAD_SCHEMA } from './spread.js';
import { StepReports } from './steps.js';
import { configText, usersText, type FaultSettings } from './texts.js';

/** `.ts` under a test runner, `.js` when it was built. */
const SELF = import.meta.url;
const PROGRAM = fileURLToPath(new URL(SELF.endsWith('.js') ? 'program.js' : 'program.ts', SELF));
const COPY_DEADLINE_MS = 60_000;
const MOVE_DEADLINE_MS = 120_000;
const WORKER = 'worker';
/** The nodes log in at all shards with one password. */
const PASSWORD = 'password of every cluster';

/** Called with the folder of each process's files before anything is in it. */
type PrepareFolder = (process: string, folder: string) => void;

export interface FaultSystemOptions {
  /** how many the destination has */
  readonly shards?: number;
  /** of all nodes */
  readonly pipelining?: FaultSettings['pipelining'];
  readonly prepareFolder?: PrepareFolder;
}

export type Side = 'source' | 'destination';
export const SIDES: readonly Side[] = ['source', 'destination'];

/** As a way to it, and a writer at it, are called. */
export function shardName(side: Side, shard: number): string {
  return shard === 0 ? side : `${side} ${shard.toString()}`;
}

export interface MoveOutcome {
  readonly moved: boolean;
  readonly attempts: number;
  readonly sentence: string;
}

export interface TaskLine {
  readonly id: string | null;
  readonly type: string;
  readonly status: string;
  readonly inner_status: string;
}

export interface NodeLine {
  readonly node: string;
  readonly state: string;
  readonly database: string | null;
  readonly epoch: string | null;
  readonly serving: string | null;
  readonly held_by: string | null;
  readonly files: string | null;
  readonly problem: string | null;
}

export class FaultSystem {
  readonly layout: Layout;
  readonly leaseMs: number;
  readonly pipelining: FaultSettings['pipelining'];
  readonly source: Cluster;
  readonly destination: Cluster;
  /** shards of the destination after the first, each on a cluster of its own */
  readonly further: readonly Cluster[];
  readonly temporalServer: TemporalDevServer;
  readonly temporal: Client;
  readonly steps: StepReports;
  readonly directory: string;
  /** names of the nodes */
  readonly nodes: readonly string[];
  readonly directWriters: readonly DirectWriter[];
  /** how many the destination has */
  readonly shards: number;
  readonly #processes = new Map<string, ProgramProcess>();
  readonly #chaos = new Map<string, ChaosProxy>();
  readonly #ports: ReadonlyMap<string, number>;
  #history: LoadedHistory | null = null;
  #task = '';
  #moves = 0;

  private constructor(
    fixed: Pick<
      FaultSystem,
      | 'layout'
      | 'leaseMs'
      | 'pipelining'
      | 'source'
      | 'destination'
      | 'further'
      | 'temporalServer'
      | 'temporal'
      | 'steps'
      | 'directory'
    >,
    ports: ReadonlyMap<string, number>,
  ) {
    this.layout = fixed.layout;
    this.leaseMs = fixed.leaseMs;
    this.pipelining = fixed.pipelining;
    this.source = fixed.source;
    this.destination = fixed.destination;
    this.further = fixed.further;
    this.temporalServer = fixed.temporalServer;
    this.temporal = fixed.temporal;
    this.steps = fixed.steps;
    this.directory = fixed.directory;
    this.shards = 1 + fixed.further.length;
    this.nodes = [...ports.keys()];
    this.#ports = ports;
    this.directWriters = SIDES.flatMap((side) =>
      this.placesOf(side).map((place, shard, { length }) => {
        const owns = (mark: string): boolean => placeOf('uuid', mark, length) === shard;
        return new DirectWriter(side, shardName(side, shard), place, shard, owns);
      }),
    );
  }

  /** Starts everything, loads the ledger and copies it: ready for the first cutover. */
  static async start(
    layout: Layout,
    leaseMs: number,
    { shards = 1, pipelining = 'off', prepareFolder = () => undefined }: FaultSystemOptions = {},
  ): Promise<FaultSystem> {
    const directory = mkdtempSync(join(tmpdir(), 'cutover-faults-'));
    removeAtEnd(directory);
    const names = layout === 'together' ? ['a', 'b', 'c'] : ['a', 'b'];
    const settings = {
      max_prepared_transactions: '10',
      max_logical_replication_workers: '16',
      max_worker_processes: '32',
    };
    const cluster = { auth: 'scram', ...(shards > 1 ? { settings, password: PASSWORD } : {}) } as const;
    const [source, destination, temporalServer, ports, steps, ...further] = await Promise.all([
      startCluster({ major: 17, ...cluster }),
      startCluster({ major: 18, ...cluster }),
      startTemporal({ databaseFile: join(directory, 'temporal.sqlite') }),
      freePorts(names.length),
      StepReports.listen(),
      ...Array.from({ length: shards - 1 }, () => startCluster({ major: 18, ...cluster })),
    ]);
    await Promise.all([source, destination, ...further].map((each) => each.createDatabase('app')));
    const connection = await Connection.connect({ address: temporalServer.address });
    const temporal = new Client({ connection });
    const portOf = new Map(names.map((name, index) => [name, ports[index] ?? 0]));
    const system = new FaultSystem(
      { layout, leaseMs, pipelining, source, destination, further, temporalServer, temporal, steps, directory },
      portOf,
    );
    try {
      await system.#startProcesses(prepareFolder);
      await system.#copy();
    } catch (error) {
      await system.stop();
      throw error;
    }
    return system;
  }

  async #startProcesses(prepareFolder: PrepareFolder): Promise<void> {
    const role = this.layout === 'together' ? 'node with worker' : 'node';
    const programs = this.nodes.map((name): [string, ProgramOptions['role']] => [name, role]);
    if (this.layout === 'apart') programs.push([WORKER, 'worker']);
    for (const [name, programRole] of programs)
      this.#processes.set(name, new ProgramProcess(PROGRAM, await this.#options(name, programRole, prepareFolder)));
    await Promise.all([...this.#processes.values()].map((process) => process.start()));
  }

  /** Every process has a way of its own to each server and to each other node, so that one way can be spoilt alone. */
  async #options(name: string, role: ProgramOptions['role'], prepareFolder: PrepareFolder): Promise<ProgramOptions> {
    const targets: readonly [string, number][] = [
      ...SIDES.flatMap((side) =>
        this.placesOf(side).map(({ cluster }, shard): [string, number] => [shardName(side, shard), cluster.port]),
      ),
      ...[...this.#ports].filter(([node]) => node !== name),
    ];
    const routes: Record<string, number> = {};
    for (const [target, port] of targets) {
      const chaos = await ChaosProxy.listen(port);
      this.#chaos.set(`${name} to ${target}`, chaos);
      routes[port.toString()] = chaos.port;
    }
    const own = join(this.directory, name);
    mkdirSync(own);
    prepareFolder(name, own);
    const files = { config: join(own, 'pgdog.toml'), users: join(own, 'users.toml') };
    const sides = [this.source, this.destination, ...this.further] as const;
    writeFileSync(files.config, configText(sides, this.#ports, this.#ports.get(name) ?? 0, this));
    writeFileSync(files.users, usersText(sides));
    return { name, role, files, temporalAddress: this.temporalServer.address, steps: this.steps.url, routes };
  }

  async #copy(): Promise<void> {
    const source = this.source.endpoint('app');
    await this.source.query('app', DIRECT_TABLE);
    this.#history = await prepareLedger(source, { rows: 1_000, extraTables: EXTRA_TABLES });
    if (this.shards > 1) await this.source.query('app', SPREAD_SCHEMA);
    const [started] = await this.admin<{ task_id: string }>('a', `COPY_DATA prod prod_new ${PUBLICATION}`);
    this.#task = started?.task_id ?? '';
    await this.task('the copy streams', (t) => t.id === this.#task && t.inner_status === 'replicating');
    for (const writer of this.directWriters) writer.start();
  }

  /** The shards of a side; its record is on the first. */
  placesOf(side: Side): readonly [Place, ...Place[]] {
    const place = (cluster: Cluster): Place => ({ cluster, database: 'app' });
    return side === 'source' ? [place(this.source)] : [place(this.destination), ...this.further.map(place)];
  }

  get clusters(): readonly Cluster[] {
    return [this.source, this.destination, ...this.further];
  }

  get history(): LoadedHistory {
    invariant(this.#history, 'the ledger was loaded');
    return this.#history;
  }

  process(name: string): ProgramProcess {
    const process = this.#processes.get(name);
    invariant(process, `there is a process ${name}`);
    return process;
  }

  get processes(): readonly ProgramProcess[] {
    return [...this.#processes.values()];
  }

  chaos(from: string, to: string): ChaosProxy {
    const chaos = this.#chaos.get(`${from} to ${to}`);
    invariant(chaos, `there is a way from ${from} to ${to}`);
    return chaos;
  }

  /** Where an application connects on this node. */
  endpointOf(node: string): Endpoint {
    const port = this.#ports.get(node);
    invariant(port, `there is a node ${node}`);
    return { host: LOOPBACK, port, database: 'prod', user: 'app', password: 'app secret' };
  }

  async admin<Row extends pg.QueryResultRow>(node: string, command: string): Promise<Row[]> {
    const endpoint = { ...this.endpointOf(node), database: 'admin', user: 'admin', password: 'admin secret' };
    return withConnection(endpoint, async (admin) => (await admin.query<Row>(command)).rows);
  }

  async nodeLines(): Promise<readonly NodeLine[]> {
    const lines = await this.admin<NodeLine & pg.QueryResultRow>('a', 'SHOW NODES');
    return lines.filter((line) => line.database === null || line.database === 'prod');
  }

  async task(what: string, test: (row: TaskLine) => boolean): Promise<TaskLine> {
    const tasks = (): Promise<TaskLine[]> => this.admin<TaskLine & pg.QueryResultRow>('a', 'SHOW TASKS');
    try {
      return await until(what, async () => (await tasks()).find(test), COPY_DEADLINE_MS);
    } catch {
      throw new Error(`${what}: not within ${COPY_DEADLINE_MS.toString()} ms; tasks: ${JSON.stringify(await tasks())}`);
    }
  }

  /** Starts a move in this direction; its result is read with {@link resultOf}. */
  startMove(rollback: boolean): Promise<WorkflowHandle> {
    const args = [{ source: 'prod', destination: 'prod_new', rollback }];
    const workflowId = `fault-${(++this.#moves).toString()}`;
    return this.temporal.workflow.start('cutover', { workflowId, taskQueue: 'cutover', args });
  }

  /** Waits for the end of a move, also through a Temporal that is gone for a while. */
  async resultOf(handle: WorkflowHandle): Promise<MoveOutcome> {
    await until(
      'the move ends, one way or the other',
      async () => (await handle.describe()).status.name !== 'RUNNING',
      MOVE_DEADLINE_MS,
    );
    try {
      const { outcome, attempts, sentence } = (await handle.result()) as MoveResult;
      return { moved: outcome === 'moved', attempts, sentence };
    } catch (error) {
      const cause = error instanceof Error ? (error.cause ?? error) : error;
      return { moved: false, attempts: 0, sentence: messageOf(cause) };
    }
  }

  /** Ends the migration as an operator would; the destination must serve. */
  async finalize(): Promise<void> {
    await this.admin('a', `STOP_TASK ${this.#task}`);
    await this.task('the move is finished', (t) => t.id === this.#task && t.status === 'finished');
  }

  /** Ends and removes all of it; may be called again. */
  async stop(): Promise<void> {
    for (const chaos of this.#chaos.values()) chaos.set('calm');
    await Promise.all(this.directWriters.map((writer) => writer.stop()));
    await Promise.all(this.processes.map((process) => process.kill()));
    await this.temporal.connection.close();
    await this.temporalServer.stop();
    await Promise.all(this.clusters.map((cluster) => cluster.remove()));
    await Promise.all([...this.#chaos.values()].map((chaos) => chaos.close()));
    this.steps.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
