/** One task: a database moves while the process that serves it is followed by another one: the move waits, and ends in the new process. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { Cleanup } from '../../src/cli/demo/cleanup.js';
import { Operator } from '../../src/cli/demo/operator.js';
import { APPLICATION_USER, DESTINATION, setStage, SOURCE, type Stage } from '../../src/cli/demo/stage.js';
import { release, watch } from '../../src/dev/guardian.js';
import { isRunning, signalProcess } from '../../src/dev/processes.js';
import { until } from '../support/wait.js';
import { cutoverWaitsFor, holdBeforePause } from './moving.js';

const PUBLICATION = 'everything';
const MAIN = join(import.meta.dirname, '..', '..', 'dist', 'src', 'cli', 'main.js');
const FLOWS = 4;
/** Of one visit; with its pauses it is over long before the process before has to end. */
const WRITES_OF_VISIT = 8;
const THINK_MS = 20;
/** Of a process, or of a move, on a machine that is busy. */
const DEADLINE_MS = 90_000;
const SHUTDOWN_MS = 30_000;
const TWO_SERVE = 'two processes serve its clients';

/** Clients that come, write numbered rows, every second one in a transaction, and leave, over and over. */
class Visitors {
  readonly errors: string[] = [];
  /** of each flow: rows it was told are written */
  readonly written: number[] = [];
  #stopped = false;
  readonly #running: readonly Promise<void>[];

  constructor(endpoint: pg.ClientConfig) {
    this.#running = Array.from({ length: FLOWS }, (_, flow) => this.#flow(flow, endpoint));
  }

  async #flow(flow: number, endpoint: pg.ClientConfig): Promise<void> {
    this.written[flow] = 0;
    while (!this.#stopped) {
      const client = new pg.Client(endpoint);
      client.on('error', () => undefined);
      try {
        await client.connect();
        for (let write = 0; write < WRITES_OF_VISIT; write += 1) await this.#write(flow, client, write % 2 === 1);
        await client.end();
      } catch (error) {
        this.errors.push(String(error));
        await sleep(THINK_MS);
      }
    }
  }

  async #write(flow: number, client: pg.Client, inTransaction: boolean): Promise<void> {
    const n = (this.written[flow] ?? 0) + 1;
    if (inTransaction) await client.query('BEGIN');
    await client.query('INSERT INTO visits VALUES ($1, $2)', [flow, n]);
    if (inTransaction) await client.query('COMMIT');
    this.written[flow] = n;
    await sleep(THINK_MS);
  }

  get total(): number {
    return this.written.reduce((sum, n) => sum + n, 0);
  }

  async more(): Promise<void> {
    const before = this.total;
    await until('more is written', () => this.total > before + 2 * FLOWS * WRITES_OF_VISIT, DEADLINE_MS);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }
}

/** A move whose copy streams, under load, and what hands its proxy over. */
class Move {
  readonly stage: Stage;
  readonly visitors: Visitors;
  readonly temporal: Client;
  readonly #cleanup: Cleanup;
  /** the processes that have served, the newest last */
  readonly #pids: number[];
  task = '';

  private constructor(stage: Stage, visitors: Visitors, temporal: Client, cleanup: Cleanup) {
    this.stage = stage;
    this.visitors = visitors;
    this.temporal = temporal;
    this.#cleanup = cleanup;
    this.#pids = [stage.proxyPid];
  }

  static async streaming(): Promise<Move> {
    const cleanup = new Cleanup();
    onTestFinished(() => cleanup.run());
    const general = [`shutdown_timeout = ${SHUTDOWN_MS.toString()}`, 'cutover_drain_timeout = 5000'];
    const stage = await setStage(
      { from: 17, to: 18, ui: false, program: MAIN, general, report: () => undefined },
      cleanup,
    );
    const table = 'CREATE TABLE visits (flow integer, n integer, PRIMARY KEY (flow, n))';
    await stage.source.query(
      SOURCE,
      `SET ROLE ${APPLICATION_USER}; ${table}; RESET ROLE; CREATE PUBLICATION ${PUBLICATION} FOR ALL TABLES`,
    );
    const connection = await Connection.connect({ address: stage.temporal.address });
    cleanup.defer('the connection to Temporal', () => connection.close());
    const visitors = new Visitors(stage.application);
    cleanup.defer('the visitors', () => visitors.stop());
    const move = new Move(stage, visitors, new Client({ connection }), cleanup);
    await move.#copy();
    return move;
  }

  async #copy(): Promise<void> {
    await this.operated(async (operator) => {
      const [row] = await operator.command(`COPY_DATA ${SOURCE} ${DESTINATION} ${PUBLICATION}`);
      this.task = String(row?.task_id);
      const streams = async (): Promise<boolean> =>
        (await operator.tasks()).some(({ id, phase }) => id === this.task && phase === 'replicating');
      await until('the copy streams', streams, DEADLINE_MS);
    });
    await this.visitors.more();
  }

  /** On a connection of its own: it must not stay with a process that is to end. */
  async operated<T>(work: (operator: Operator) => Promise<T>): Promise<T> {
    const operator = await Operator.connect(this.stage.configuration.admin);
    try {
      return await work(operator);
    } finally {
      await operator.end();
    }
  }

  get log(): string {
    return readFileSync(join(this.stage.folder, 'proxy.log'), 'utf8');
  }

  /** Tells the process to hand over; resolves once it has begun. @returns waits until another one serves too */
  async handOver(): Promise<() => Promise<void>> {
    process.kill(this.#pids.at(-1) ?? 0, 'SIGUSR2');
    await this.operated((operator) =>
      until('the process knows that it is followed', async () => {
        const asked = operator.command(`CUTOVER_NODE state '{"database": "${SOURCE}"}'`);
        return (await asked.then(() => '', String)).includes(TWO_SERVE);
      }),
    );
    return () => this.#followed();
  }

  async #followed(): Promise<void> {
    const successors = (): readonly RegExpMatchArray[] => [...this.log.matchAll(/"successor":(\d+)/g)];
    await until('another process serves', () => successors().length === this.#pids.length, DEADLINE_MS);
    const pid = Number(successors().at(-1)?.[1]);
    this.#pids.push(pid);
    watch({ pid, signal: 'SIGKILL' });
    this.#cleanup.defer('the process that took over', async () => {
      signalProcess(pid, 'SIGTERM');
      await until('it has ended', () => !isRunning(pid), DEADLINE_MS);
      release(pid);
    });
  }

  async client(): Promise<pg.Client> {
    const client = new pg.Client(this.stage.application);
    client.on('error', () => undefined);
    onTestFinished(() => client.end().catch(() => undefined));
    await client.connect();
    return client;
  }

  /** The process before is gone, the database has moved, and is where everybody writes. */
  async expectMoved(): Promise<void> {
    const before = this.#pids.at(-2) ?? 0;
    await until('the process before has ended', () => !isRunning(before), DEADLINE_MS);
    await this.operated((operator) => operator.untilMoved(this.task, 0, DEADLINE_MS));
    await this.visitors.more();
    await this.visitors.stop();
    expect(this.visitors.errors).toEqual([]);
    const rows = await this.stage.destination.query(
      SOURCE,
      'SELECT flow, count(*)::integer AS rows, max(n) AS last FROM visits GROUP BY flow ORDER BY flow',
    );
    expect(rows).toEqual(this.visitors.written.map((n, flow) => ({ flow, rows: n, last: n })));
    const failed = this.temporal.workflow.list({ query: "ExecutionStatus = 'Failed' AND WorkflowType != 'pause'" });
    for await (const { workflowId } of failed) expect(workflowId).toBeNull();
  }
}

test(
  'handed over while it streams: a cutover waits while two processes serve, and moves when one has gone',
  { timeout: 240_000 },
  async () => {
    const move = await Move.streaming();
    const stays = await move.client();
    await stays.query('BEGIN');
    await stays.query('INSERT INTO visits VALUES (-1, 1)');
    await (
      await move.handOver()
    )();
    await move.visitors.more();
    await move.operated((operator) => operator.command(`CUTOVER ${move.task}`));
    await cutoverWaitsFor(move.temporal, new RegExp(TWO_SERVE));
    expect(await move.operated((operator) => operator.command('SHOW CUTOVERS'))).toEqual([]);
    await stays.query('ROLLBACK');
    await stays.end();
    await move.expectMoved();
  },
);

test(
  'asked for at the pause: the process refuses to hold its clients, and the move is tried again by the one that follows',
  { timeout: 240_000 },
  async () => {
    const move = await Move.streaming();
    const hold = await holdBeforePause(move.stage.source, SOURCE);
    await move.operated((operator) => operator.command(`CUTOVER ${move.task}`));
    await hold.reached();
    const followed = await move.handOver();
    await hold.letGo();
    await followed();
    await move.expectMoved();
    const cutovers = await move.operated((operator) => operator.command('SHOW CUTOVERS'));
    expect(cutovers.map(({ outcome }) => outcome)).toEqual(['committed', 'aborted']);
    expect(String(cutovers[1]?.reason)).toContain(TWO_SERVE);
  },
);
