/** One task: a database under load on the whole program: its switches by name, and the verdict of everything its clients saw. */
import { readFileSync, writeFileSync } from 'node:fs';
import { Client, Connection } from '@temporalio/client';
import { expect } from 'vitest';
import type { MoveResult } from '../../src/cutover/contract.js';
import { compareLedger } from '../../src/dev/ledger/compare.js';
import { startLedger, type Ledger } from '../../src/dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { System, type SystemOptions } from '../support/served.js';
import { until } from '../support/wait.js';
import { expectSameContents, sequencesOf } from './contents.js';
import { drawTickets, SEQUENCES, type Tickets } from './tickets.js';

/** Long enough for a loaded machine; every wait below is for a condition and returns at once when it holds. */
const SWITCH_DEADLINE_MS = 90_000;
/** More than the ledger has clients, so that one which holds its transaction keeps nobody waiting. */
const POOL_SIZE = 20;
/** Writes acknowledged between two switches, so that each of them has something to lose. */
const WRITES_BETWEEN = 50;
/** Of each writer: with eight of them a write comes every few milliseconds, in any pause, and leaves the processors to what is tested. */
const THINK_MS = 80;

export interface CutoverLine {
  readonly epoch: string;
  readonly heading: string;
  readonly outcome: string;
  readonly reason: string | null;
  readonly paused_ms: string | null;
}

export class Moving {
  readonly system: System;
  readonly history: LoadedHistory;
  readonly temporal: Client;
  #ledger: Ledger | null = null;
  #tickets: Tickets | null = null;

  private constructor(system: System, history: LoadedHistory, temporal: Client) {
    this.system = system;
    this.history = history;
    this.temporal = temporal;
  }

  static async start(options: SystemOptions): Promise<Moving> {
    const general = `default_pool_size = ${POOL_SIZE.toString()}\n${options.general ?? ''}`;
    const system = await System.start({ ...options, general, schema: SEQUENCES + (options.schema ?? '') });
    const history = await prepareLedger(system.source.endpoint('app'), { rows: 5_000, extraTables: 3 });
    const connection = await Connection.connect({ address: system.temporal.address });
    return new Moving(system, history, new Client({ connection }));
  }

  /** Eight writers, a reader and a client that draws numbers, through the proxy. */
  async load(): Promise<Ledger> {
    const endpoint = this.system.endpoint();
    this.#ledger = await startLedger({ endpoint, writtenTables: 3, thinkMs: THINK_MS });
    this.#tickets = await drawTickets(endpoint);
    await this.writes();
    return this.#ledger;
  }

  get ledger(): Ledger {
    if (!this.#ledger) throw new Error('load() comes first');
    return this.#ledger;
  }

  /** Waits until more writes were acknowledged. */
  async writes(count = WRITES_BETWEEN): Promise<void> {
    const before = this.ledger.acknowledged.length;
    await until('writes are acknowledged', () => this.ledger.acknowledged.length >= before + count, 60_000);
  }

  /** `RESHARD` by an operator; resolves once the destination serves and the way back stands. */
  async reshard(): Promise<string> {
    const [started] = await this.system.admin<{ task_id: string }>(`RESHARD prod prod_new ${PUBLICATION}`);
    await this.#turned('prod -> prod_new (reverse)');
    return started?.task_id ?? '';
  }

  /** `COPY_DATA` by an operator; resolves once a cutover may be asked for. */
  async copyData(): Promise<string> {
    const [started] = await this.system.admin<{ task_id: string }>(`COPY_DATA prod prod_new ${PUBLICATION}`);
    await this.system.task(
      'the copy streams',
      (t) => t.type === 'copy_data prod -> prod_new' && t.inner_status === 'replicating',
      SWITCH_DEADLINE_MS,
    );
    return started?.task_id ?? '';
  }

  /** `CUTOVER <task>` of whichever streams run, by an operator: forward or back, as they run. */
  async cutoverByOperator(task: string): Promise<void> {
    const before = await this.#streams();
    await this.system.admin(`CUTOVER ${task}`);
    await this.#turned(before.includes('(reverse)') ? 'prod -> prod_new' : 'prod -> prod_new (reverse)');
  }

  /** The id of the running streams, which is what a rollback names; empty while they run forward within their move. */
  async streamsTask(heading: 'forward' | 'reverse' = 'reverse'): Promise<string> {
    const type = `replication prod -> prod_new${heading === 'reverse' ? ' (reverse)' : ''}`;
    return (await this.system.task('streams run', (t) => t.type === type && t.status === 'running')).id ?? '';
  }

  async #streams(): Promise<string> {
    const task = await this.system.task('streams run', (t) => t.type.startsWith('replication '));
    return task.type;
  }

  async #turned(route: string): Promise<void> {
    await this.system.task(
      `streams run ${route}`,
      (t) => t.type === `replication ${route}` && t.status === 'running',
      SWITCH_DEADLINE_MS,
    );
  }

  /** The workflow `cutover` with the JSON of an operator; resolves or rejects with its result. Must be awaited in the end. */
  async cutover(input: { rollback?: boolean; acceptLoss?: boolean } = {}): Promise<MoveResult> {
    const workflowId = `operator-${Date.now().toString(36)}`;
    const args = [{ source: 'prod', destination: 'prod_new', ...input }];
    const handle = await this.temporal.workflow.start('cutover', { workflowId, taskQueue: 'cutover', args });
    return (await handle.result()) as MoveResult;
  }

  rollback(): Promise<MoveResult> {
    return this.cutover({ rollback: true });
  }

  waitsFor(reason: RegExp): Promise<void> {
    return cutoverWaitsFor(this.temporal, reason);
  }

  /** Which major serves the name `prod` now, asked through the proxy on a connection of its own. */
  async servingMajor(): Promise<number> {
    const client = await this.system.client();
    const { rows } = await client.query<{ major: number }>(
      `SELECT current_setting('server_version_num')::int / 10000 AS major`,
    );
    await client.end();
    return rows[0]?.major ?? 0;
  }

  /** Sets keys of [general] in the file, as an operator would, and reloads. */
  async configure(keys: Readonly<Record<string, string | number>>): Promise<void> {
    const { config } = this.system.files;
    const kept = readFileSync(config, 'utf8')
      .split('\n')
      .filter((line) => !Object.keys(keys).some((key) => line.startsWith(`${key} =`)));
    const lines = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
    kept.splice(kept.indexOf('[general]') + 1, 0, ...lines);
    writeFileSync(config, kept.join('\n'));
    await this.system.admin('RELOAD');
  }

  /** Newest first. */
  cutovers(): Promise<CutoverLine[]> {
    return this.system.admin<CutoverLine & Record<string, string | null>>('SHOW CUTOVERS');
  }

  /** Ends the load. Nothing lost, doubled, refused, repeated; the reader never went back; both sides equal. */
  async expectNothingLost(): Promise<void> {
    const { ledger } = this;
    await this.stopLoad();
    expect(ledger.refused).toEqual([]);
    expect(ledger.unknown).toEqual([]);
    expect(ledger.reader).toMatchObject({ wentBack: 0, missed: [] });
    expect(await compareLedger(this.system.endpoint(), ledger, this.history)).toEqual({
      lost: [],
      doubled: [],
      unexpected: [],
      balanceOk: true,
      historyOk: true,
      unknownFound: 0,
    });
    expect(this.#tickets).toMatchObject({ refused: [], repeated: [] });
    await expectSameContents(this.system.source, this.system.destination);
  }

  async stopLoad(): Promise<void> {
    await Promise.all([this.#ledger?.stop(), this.#tickets?.stop()]);
  }

  /** The sequences of the side that serves stand past those of the other one: their values never meet. */
  async expectSequencesAhead(serving: 'source' | 'destination'): Promise<void> {
    const { source, destination } = this.system;
    const ahead = await sequencesOf(serving === 'source' ? source : destination);
    const behind = await sequencesOf(serving === 'source' ? destination : source);
    expect(ahead.size).toBeGreaterThan(4);
    for (const [name, value] of ahead) expect(value, `sequence ${name}`).toBeGreaterThan(behind.get(name) ?? -Infinity);
  }

  async stop(): Promise<void> {
    await this.stopLoad();
    await this.temporal.connection.close();
    await this.system.stop();
  }
}

/** Waits until a cutover that looks for its moment says that it waits for `reason`. */
export async function cutoverWaitsFor({ workflow }: Client, reason: RegExp): Promise<void> {
  await until(
    `a cutover waits for ${reason.source}`,
    async () => {
      for await (const { workflowId } of workflow.list({ query: "WorkflowType = 'cutover'" })) {
        const { raw } = await workflow.getHandle(workflowId).describe();
        const details = (raw.pendingActivities ?? []).flatMap((activity) => activity.heartbeatDetails?.payloads ?? []);
        if (details.some(({ data }) => reason.test(Buffer.from(data ?? []).toString('utf8')))) return true;
      }
      return false;
    },
    SWITCH_DEADLINE_MS,
  );
}

/**
 * Keeps the next cutover from `from` between its moment and its pause: the moment is found, the epoch not begun. What
 * happens in between is what a pause meets that nobody could foresee.
 */
export async function holdBeforePause(
  from: Cluster,
  database: string,
): Promise<{ reached(): Promise<void>; letGo(): Promise<void> }> {
  // Reading the record stays possible; cutover.begin() waits. Prepared, so that no session has an old transaction: the
  // moment would wait for that.
  const lock = 'LOCK TABLE cutover.decision IN EXCLUSIVE MODE';
  await from.query(database, `BEGIN; ${lock}; PREPARE TRANSACTION 'hold before pause'`);
  // Ahead of it the warm-up waits here for a moment, and asks for less.
  const waits = `SELECT FROM pg_locks WHERE relation = 'cutover.decision'::regclass AND mode = 'ShareRowExclusiveLock' AND NOT granted`;
  return {
    reached: async () => {
      await until(
        'the moment is found',
        async () => (await from.query(database, waits)).length > 0,
        SWITCH_DEADLINE_MS,
      );
    },
    letGo: async () => {
      const held = await from.query(database, `SELECT FROM pg_prepared_xacts WHERE gid = 'hold before pause'`);
      if (held.length > 0) await from.query(database, `ROLLBACK PREPARED 'hold before pause'`);
    },
  };
}
