/** One task: hold everything of one simulation together. */
import type { CriticalSection } from '../../activities/critical-section.js';
import type { EngineContext } from '../../activities/context.js';
import type { Config } from '../../src/config/config.js';
import type { EpochPlan, Heading, Migration } from '../../src/cutover/contract.js';
import type { Step } from '../../src/cutover/epoch.js';
import { invariant } from '../../src/errors/invariant.js';
import type { LocalNode } from '../../src/fleet/local-node.js';
import { streamName } from '../../src/postgres/streams.js';
import { StraightWriter } from './clients.js';
import { configurationOf, DESTINATION_HOST, SOURCE_HOST, type Patience } from './configuration.js';
import { Database } from './database.js';
import type { FakeClient, Listener, Network } from './fake-client.js';
import { Faults } from './faults.js';
import { Invariants } from './invariants.js';
import { Process, type Worker } from './processes.js';
import type { RecordFunction } from './record-functions.js';
import { Actor, Scheduler } from './scheduler.js';
import { Statements } from './statements.js';
import { Stream } from './stream.js';
import { FakeTemporal } from './temporal.js';
import { Book, type FlagSeen } from './writes.js';

/** The product's parts of a simulation; a planted fault replaces one of them. */
export interface Parts {
  readonly section: new (context: EngineContext) => CriticalSection;
  readonly node: new (...given: ConstructorParameters<typeof LocalNode>) => LocalNode;
  readonly functions: Readonly<Record<string, RecordFunction>>;
  readonly flagSeen: FlagSeen;
}

/** A statement or a command of a node on its way. */
export interface Message {
  readonly host: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

const LOOPBACK = '127.0.0.1';
const MIGRATION_ID = 'feedbeef_1';
const PATIENCE: Patience = { leaseMs: 600, drainMs: 150, timeoutMs: 200, attempts: 3 };
const BUSY_MS = 150;
const QUIET_THINK_MS = 400;
const TRACE_MAX = 20_000;
/** Statements by which faults are counted: what changes something, and what decides. */
const COUNTED = /AS answer$|CUTOVER_NODE (pause|swap|resume|prepare)/;

export class World implements Network {
  readonly scheduler: Scheduler;
  readonly planted: Parts;
  readonly patience = PATIENCE;
  readonly #thinkMs: number;
  /** while something happens applications write more often: that is when it matters */
  #busyUntil = 0;
  readonly book = new Book();
  readonly clients = new Set<FakeClient>();
  readonly invariants: Invariants;
  readonly source: Database;
  readonly destination: Database;
  readonly databases: readonly Database[];
  readonly streams: readonly Stream[];
  readonly processes: readonly Process[];
  readonly configuration: Config;
  readonly temporal: FakeTemporal;
  readonly faults: Faults;
  readonly lines: string[] = [];
  /** what was sent to databases and nodes, as far as it changes something */
  readonly messages: Message[] = [];
  writersEnded = false;
  readonly #traced: boolean;
  readonly #lateClient = new Actor('somebody late');
  readonly #statements: Statements;

  constructor(seed: number, planted: Parts, traced: boolean) {
    this.scheduler = new Scheduler(seed);
    this.planted = planted;
    this.#traced = traced;
    const { scheduler } = this;
    this.invariants = new Invariants(this);
    this.source = new Database(SOURCE_HOST, '7000000000000000001', scheduler, this.invariants);
    this.destination = new Database(DESTINATION_HOST, '7000000000000000002', scheduler, this.invariants);
    this.databases = [this.source, this.destination];
    this.destination.fence = { epoch: 0, state: 'closed', nonce: '', seal_lsn: null };
    this.destination.up = true;
    const latencyMs = scheduler.chance(75) ? 3 : scheduler.between(8, 40);
    this.streams = [
      new Stream(streamName(MIGRATION_ID, 'forward'), this.source, this.destination, latencyMs, scheduler),
      new Stream(streamName(MIGRATION_ID, 'reverse'), this.destination, this.source, latencyMs, scheduler),
    ];
    this.#statements = new Statements(this.streams, planted.functions);
    this.#thinkMs = scheduler.between(8, 50);
    const nodes = ['node1', 'node2', 'node3'].slice(0, 1 + scheduler.random.below(3));
    const apart = scheduler.chance(50) ? ['worker1', 'worker2'].slice(0, 1 + scheduler.random.below(2)) : [];
    this.configuration = configurationOf(nodes, PATIENCE);
    this.processes = [
      ...nodes.map((name) => new Process(this, name, { serves: true, works: apart.length === 0 })),
      ...apart.map((name) => new Process(this, name, { serves: false, works: true })),
    ];
    this.temporal = new FakeTemporal(this);
    this.faults = new Faults(this, seed);
  }

  /** Sets everything going; `done` is told when the moves are over. */
  start(done: (problem: string | null) => void): void {
    const { scheduler } = this;
    this.faults.begin();
    for (const process of this.processes) process.start();
    for (const [index, database] of [this.source, this.source, this.destination].entries())
      new StraightWriter(this, database, index);
    const back = this.faults.shape === 'there and back' || scheduler.chance(40);
    const headings: readonly Heading[] = back ? ['forward', 'reverse'] : ['forward'];
    const wayBack = this.streams[1]?.broken === true ? headings.slice(0, 1) : headings;
    this.temporal.start(this.#migration(), wayBack, done);
  }

  #migration(): Migration {
    const { systemIdentifier, databaseOid } = this.source;
    return {
      id: MIGRATION_ID,
      database: 'app',
      peer: 'app_new',
      source: { systemIdentifier, databaseOid },
      destination: { systemIdentifier: this.destination.systemIdentifier, databaseOid },
      publication: null,
      owner: 'simulated',
      concurrent: true,
      soakMs: null,
    };
  }

  get thinkMs(): number {
    return this.scheduler.now < this.#busyUntil ? this.#thinkMs : QUIET_THINK_MS;
  }

  /** One of the events that faults are counted by. */
  #happened(): void {
    this.#busyUntil = this.scheduler.now + BUSY_MS;
    this.faults.happened();
  }

  get flagSeen(): FlagSeen {
    return this.planted.flagSeen;
  }

  get workers(): readonly Worker[] {
    return this.processes.flatMap((p) => p.worker ?? []);
  }

  databaseAt(host: string): Database {
    const database = this.databases.find((d) => d.host === host);
    invariant(database, `a database is at ${host}`);
    return database;
  }

  otherSide(database: Database): Database {
    return database === this.source ? this.destination : this.source;
  }

  trace(line: () => string): void {
    if (!this.#traced || this.lines.length >= TRACE_MAX) return;
    this.lines.push(`${this.scheduler.now.toFixed(2).padStart(9)}  ${line()}`);
  }

  // ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────────────

  attemptBegins(plan: EpochPlan): void {
    this.faults.attemptBegins(plan);
  }

  step(actor: Actor, plan: EpochPlan, step: Step): void {
    this.trace(() => `${actor.name}: ${step} of epoch ${plan.epoch.toString()}`);
    this.#happened();
  }

  sent(client: Actor, host: string, text: string, values: readonly unknown[]): void {
    if (!COUNTED.test(text)) return;
    this.messages.push({ host: host === LOOPBACK ? this.#processOf(client) : host, text, values });
    this.trace(() => `${client.name} → ${host}: ${text.slice(0, 90)}`);
    this.#happened();
  }

  /** A message arrives once more, long after it was sent perhaps; nobody waits for its answer. */
  deliverAgain({ host, text, values }: Message): void {
    const listener = this.listenerAt(host, 0, this.scheduler.outside);
    if (!listener) return;
    this.trace(() => `once more → ${host}: ${text.slice(0, 90)} ${JSON.stringify(values[0] ?? '').slice(0, 20)}`);
    this.scheduler.after(listener.actor, 0, () => {
      listener.answer(this.#lateClient, text, values, () => undefined);
    });
  }

  #processOf(actor: Actor): string {
    return this.processes.find((p) => p.actor === actor)?.name ?? LOOPBACK;
  }

  /** The sockets of a process that died are closed, at both ends. */
  processGone(actor: Actor): void {
    for (const database of this.databases) database.clientGone(actor);
    for (const client of [...this.clients]) {
      if (client.owner === actor) this.clients.delete(client);
      else if (client.listener?.actor === actor) client.break('Connection terminated unexpectedly');
    }
  }

  restartDatabase(database: Database, awayMs: number): void {
    this.trace(() => `${database.host} restarts`);
    database.restart();
    database.stalledUntil = this.scheduler.now + awayMs;
    for (const client of [...this.clients])
      if (client.listener?.actor === database) client.break('terminating connection due to administrator command');
  }

  listenerAt(host: string, _port: number, asking: Actor): Listener | null {
    const database = this.databases.find((d) => d.host === host);
    if (database)
      return {
        actor: database,
        answer: (client, text, values, reply) => {
          this.#statements.run(database, client, text, values, reply);
        },
      };
    const here = host === LOOPBACK;
    return this.processes.find((p) => p.running && (here ? p.actor === asking : p.name === host))?.listener ?? null;
  }
}
