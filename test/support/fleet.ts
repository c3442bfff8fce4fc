/** One task: a fleet: two clusters, Temporal, and several nodes, each the whole program in a process of its own. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, Connection } from '@temporalio/client';
import type pg from 'pg';
import type { Step } from '../../src/cutover/epoch.js';
import { startCluster, type Cluster, type Major } from '../../src/dev/embedded-postgres.js';
import { freePorts, LOOPBACK } from '../../src/dev/ports.js';
import { startTemporal, type TemporalDevServer } from '../../src/dev/temporal-dev-server.js';
import { invariant } from '../../src/errors/invariant.js';
import { withConnection } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { spawnScript, type Child } from './child.js';
import { configText, usersText, type TaskLine } from './served.js';
import { TASKS_POLL_MS, until } from './wait.js';

const PROGRAM = fileURLToPath(new URL('fleet-node.ts', import.meta.url));
const START_DEADLINE_MS = 60_000;

export interface FleetOptions {
  readonly source: Major;
  readonly destination: Major;
  readonly nodes: number;
  /** lines for [general] of every node */
  readonly general?: string;
}

/** One node: a process, its files, its address. */
export class FleetNodeProcess {
  readonly name: string;
  readonly endpoint: Endpoint;
  readonly files: { readonly config: string; readonly users: string };
  readonly #temporal: string;
  readonly #fault: string;
  #child: Child | null = null;

  constructor(name: string, port: number, directory: string, temporal: string) {
    this.name = name;
    this.endpoint = { host: LOOPBACK, port, database: 'prod', user: 'app', password: 'app secret' };
    this.files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
    this.#temporal = temporal;
    this.#fault = join(directory, 'fault');
  }

  async start(): Promise<void> {
    const { config, users } = this.files;
    const child = spawnScript(PROGRAM, [config, users, this.#temporal, this.name, this.#fault]);
    this.#child = child;
    await until(
      `node ${this.name} serves and its worker runs`,
      () => {
        if (child.process.exitCode !== null) throw new Error(child.output());
        return child.output().includes('the worker runs');
      },
      START_DEADLINE_MS,
    );
  }

  /** The process sends `signal` to the process `victim` at the beginning of the next `step` that it runs itself. */
  faultAt(step: Step, signal: 'SIGKILL' | 'SIGSTOP', victim: number): void {
    writeFileSync(this.#fault, `${step} ${signal} ${victim.toString()}`);
  }

  forgetFault(): void {
    rmSync(this.#fault, { force: true });
  }

  get pid(): number {
    const pid = this.#child?.process.pid;
    invariant(pid !== undefined, `node ${this.name} runs`);
    return pid;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.process.kill(signal);
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.#child?.ended;
    this.#child = null;
  }

  /** Runs a command on this node's admin database. */
  async admin<Row extends pg.QueryResultRow>(command: string): Promise<Row[]> {
    const endpoint = { ...this.endpoint, database: 'admin', user: 'admin', password: 'admin secret' };
    return withConnection(endpoint, async (admin) => (await admin.query<Row>(command)).rows);
  }

  get output(): string {
    return this.#child?.output() ?? '';
  }
}

export class FleetSystem {
  readonly source: Cluster;
  readonly destination: Cluster;
  readonly temporalServer: TemporalDevServer;
  readonly temporal: Client;
  readonly nodes: readonly FleetNodeProcess[];
  readonly #directory: string;

  private constructor(
    source: Cluster,
    destination: Cluster,
    temporalServer: TemporalDevServer,
    temporal: Client,
    nodes: readonly FleetNodeProcess[],
    directory: string,
  ) {
    this.source = source;
    this.destination = destination;
    this.temporalServer = temporalServer;
    this.temporal = temporal;
    this.nodes = nodes;
    this.#directory = directory;
  }

  static async start(options: FleetOptions): Promise<FleetSystem> {
    const [source, destination, temporal, ports] = await Promise.all([
      startCluster({ major: options.source, auth: 'scram' }),
      startCluster({ major: options.destination, auth: 'scram' }),
      startTemporal(),
      freePorts(options.nodes),
    ]);
    await Promise.all([source, destination].map((cluster) => cluster.createDatabase('app')));
    const directory = mkdtempSync(join(tmpdir(), 'cutover-fleet-'));
    const rows = ports.map((port, index) => ({ name: nameOf(index), port }));
    const list = rows.map(({ name, port }) => nodeRow(name, port)).join('');
    const nodes = rows.map(({ name, port }) => {
      const own = join(directory, name);
      mkdirSync(own);
      const node = new FleetNodeProcess(name, port, own, temporal.address);
      const text = configText(source, destination, options.general ?? '').replace('port = 0', `port = ${String(port)}`);
      writeFileSync(node.files.config, text + list);
      writeFileSync(node.files.users, usersText(source, destination));
      return node;
    });
    await Promise.all(nodes.map((node) => node.start()));
    const connection = await Connection.connect({ address: temporal.address });
    return new FleetSystem(source, destination, temporal, new Client({ connection }), nodes, directory);
  }

  node(index: number): FleetNodeProcess {
    const node = this.nodes[index];
    invariant(node, `there is a node ${index.toString()}`);
    return node;
  }

  /** Waits until a task of `SHOW TASKS` on the first node reads so. */
  task(what: string, test: (row: TaskLine) => boolean, deadlineMs = 90_000): Promise<TaskLine> {
    return until(
      what,
      async () => (await this.node(0).admin<TaskLine>('SHOW TASKS')).find(test),
      deadlineMs,
      TASKS_POLL_MS,
    );
  }

  async stop(): Promise<void> {
    for (const node of this.nodes) node.signal('SIGCONT');
    await Promise.all(this.nodes.map((node) => node.kill()));
    await this.temporal.connection.close();
    await this.temporalServer.stop();
    await Promise.all([this.source.remove(), this.destination.remove()]);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function nameOf(index: number): string {
  return String.fromCharCode('a'.charCodeAt(0) + index);
}

function nodeRow(name: string, port: number): string {
  return `\n[[nodes]]\nname = "${name}"\nhost = "${LOOPBACK}"\nport = ${port.toString()}\n`;
}
