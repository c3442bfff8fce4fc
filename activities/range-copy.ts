/**
 * One task: copy the large tables of the streams that lead to one database in ranges, several at once, and then let these streams run.
 *
 * Every stream's slot is made with a snapshot, the rows are read by it, and the stream begins where it was taken. In which order that is
 * done, and what happens when somebody dies in between: docs/decisions/0028-large-tables-are-copied-in-ranges.md.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Migration } from '../src/cutover/contract.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import { invariant } from '../src/errors/invariant.js';
import { withConnection, type Connection } from '../src/postgres/connection.js';
import { Connections } from '../src/postgres/connections.js';
import { qualified, type TableName } from '../src/postgres/fence.js';
import { cutTables, type PageRange, type RangedTable } from '../src/postgres/ranges/cut.js';
import { beginRun, clearRun, expectRun, releaseRun, type Run } from '../src/postgres/ranges/ledger.js';
import { interrupted, SnapshotSlot } from '../src/postgres/ranges/snapshot-slot.js';
import { closeEnds, openEnds, transferRange, type Ends } from '../src/postgres/ranges/transfer.js';
import { publishes, subscriptionState } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import type { Alarm } from './limits.js';
import { tablesOf } from './published-rows.js';
import { RangeTally, type Came } from './range-tally.js';
import type { Stream } from './stream-ends.js';

const RETRY_MS = 1_000;
const TOLD_MAX = 20;

/** Keeps all copies together to a speed. */
export type Pace = (bytes: number, stopped: AbortSignal) => Promise<void>;

interface RangeCopyOptions {
  readonly alarm: Alarm;
  readonly pace: Pace;
  /** a range that brings nothing for longer is begun anew, on new connections */
  readonly stallMs: number;
}

/** A range of a table of a stream that is still to come. */
interface Task {
  readonly table: RangedTable;
  readonly range: PageRange;
}

interface Plan {
  readonly stream: Stream;
  readonly slot: SnapshotSlot;
  readonly tasks: readonly Task[];
}

export class RangeCopy {
  /** with connections of its own: others ask the same servers meanwhile */
  readonly #context: EngineContext;
  readonly #connections = new Connections();
  readonly #migration: Migration;
  readonly #streams: readonly Stream[];
  readonly #options: RangeCopyOptions;
  readonly #tables: readonly TableName[];
  readonly #tally = new RangeTally();
  readonly #told = new Set<string>();
  readonly #run: Run;

  private constructor(
    context: EngineContext,
    migration: Migration,
    streams: readonly Stream[],
    tables: readonly TableName[],
    options: RangeCopyOptions,
  ) {
    this.#context = { ...context, connections: this.#connections };
    this.#migration = migration;
    this.#streams = streams;
    this.#tables = tables;
    this.#options = options;
    this.#run = { migration: migration.id, run: randomUUID(), streams: streams.map(({ name }) => name) };
  }

  /** Null where the streams run already, or never waited for ranges. */
  static async of(
    context: EngineContext,
    migration: Migration,
    streams: readonly Stream[],
    options: RangeCopyOptions,
  ): Promise<RangeCopy | null> {
    for (const { name, subscriber } of streams) {
      const state = await subscriptionState(await connectionTo(context, subscriber), name);
      if (state?.held === true) return new RangeCopy(context, migration, streams, state.tables, options);
    }
    return null;
  }

  /** What has come of a table by a stream so far. */
  came(stream: string, table: TableName): Came {
    return this.#tally.came(keyOf(stream, table));
  }

  /**
   * From the beginning to streams that run. A destination that goes away is waited for; settles only when nothing of it works any more.
   *
   * @throws CutoverError `copy_interrupted` when all of it has to be done again
   */
  async copy(stopped: AbortSignal): Promise<void> {
    try {
      await this.#copy(stopped);
    } finally {
      await this.#connections.close();
    }
  }

  async #copy(stopped: AbortSignal): Promise<void> {
    const begun = await this.#atDestination((destination) => beginRun(destination, this.#run));
    if (begun === 'released') return;
    const plans: Plan[] = [];
    const slots: SnapshotSlot[] = [];
    // A slot waits for every transaction that is under way.
    const giveUp = (): void => void Promise.all(slots.map((slot) => slot.close()));
    stopped.addEventListener('abort', giveUp);
    try {
      for (const stream of this.#streams) {
        stopped.throwIfAborted();
        const slot = await SnapshotSlot.open(await this.#context.directory.endpointOf(stream.publisher), stream.name);
        slots.push(slot);
        plans.push({ stream, slot, tasks: await this.#tasksOf(stream) });
      }
      // Behind the locks that the slots were opened with: from here on it is this attempt or none.
      await this.#atDestination((destination) =>
        begun === 'again' ? clearRun(destination, this.#run, this.#tables) : expectRun(destination, this.#run),
      );
      for (const slot of slots) {
        stopped.throwIfAborted();
        await slot.create();
      }
      await this.#copyAll(plans, stopped);
      for (const slot of slots) await slot.expectOwn();
      const ranges = plans.reduce((sum, { tasks }) => sum + tasks.length, 0);
      await this.#patiently(stopped, () =>
        this.#atDestination((destination) => releaseRun(destination, this.#run, ranges)),
      );
    } finally {
      stopped.removeEventListener('abort', giveUp);
      await Promise.all(slots.map((slot) => slot.close()));
    }
  }

  async #atDestination<T>(work: (destination: Connection) => Promise<T>): Promise<T> {
    const [first] = this.#streams;
    invariant(first, 'ranges are copied by a stream');
    return withConnection(await this.#context.directory.endpointOf(first.subscriber), work);
  }

  /** Before the slot is made: a table that is rewritten later is told by what it was. */
  async #tasksOf(stream: Stream): Promise<readonly Task[]> {
    const publisher = await connectionTo(this.#context, stream.publisher);
    const names = new Set(this.#tables.map(qualified));
    const carried = (await tablesOf(this.#context, this.#migration, stream)).filter((t) => names.has(qualified(t)));
    if (!(await publishes(publisher, stream.name, carried)))
      throw interrupted(stream.name, 'its publication does not have these tables');
    const wanted = carried.filter(({ where }) => where !== 'false');
    const tables = await cutTables(publisher, wanted, this.#context.config().cutover.copyRangeBytes);
    if (tables.length < wanted.length) throw interrupted(stream.name, 'a table is gone');
    return tables.flatMap((table) => table.ranges.map((range) => ({ table, range })));
  }

  /** The first failure that is not waited out ends all of them. */
  async #copyAll(plans: readonly Plan[], stopped: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const ending = AbortSignal.any([stopped, failed.signal, ...plans.map(({ slot }) => slot.lost)]);
    const { parallelCopies } = this.#context.config().cutover;
    const workers = plans.flatMap((plan) => {
      const queue = [...plan.tasks];
      return Array.from({ length: Math.min(parallelCopies, queue.length) }, async () => {
        try {
          await this.#work(plan, queue, ending);
        } catch (error) {
          failed.abort(error);
        }
      });
    });
    await Promise.all(workers);
    ending.throwIfAborted();
  }

  async #work(plan: Plan, queue: Task[], stopped: AbortSignal): Promise<void> {
    const held: { ends: Ends | null } = { ends: null };
    try {
      for (let task = queue.shift(); task; task = queue.shift()) {
        const wanted = task;
        await this.#patiently(stopped, async () => {
          try {
            held.ends ??= await this.#connect(plan.stream);
            await this.#bring(plan, wanted, held.ends, stopped);
          } catch (error) {
            if (held.ends) await closeEnds(held.ends);
            held.ends = null;
            throw error;
          }
        });
      }
    } finally {
      if (held.ends) await closeEnds(held.ends);
    }
  }

  async #connect({ publisher, subscriber, name }: Stream): Promise<Ends> {
    const { directory } = this.#context;
    return openEnds(await directory.endpointOf(publisher), await directory.endpointOf(subscriber), name);
  }

  async #bring({ stream, slot }: Plan, { table, range }: Task, ends: Ends, stopped: AbortSignal): Promise<void> {
    const silent = new AbortController();
    const timer = setTimeout(() => {
      silent.abort(new Error(`a range of ${qualified(table)} brings nothing any more`));
    }, this.#options.stallMs);
    const ending = AbortSignal.any([stopped, silent.signal]);
    const count = this.#tally.begin(keyOf(stream.name, table));
    try {
      const rows = await transferRange(ends, {
        ...{ run: this.#run, stream: stream.name, table, range, snapshot: slot.snapshot, stopped: ending },
        binary: this.#context.config().cutover.copyFormat === 'binary' && this.#migration.concurrent,
        onBytes: async (chunk) => {
          timer.refresh();
          await this.#options.pace(chunk, ending);
          count.add(chunk);
        },
      });
      count.done(rows ?? 0);
    } catch (error) {
      count.failed();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Asks the same again until it succeeds or can never do; the whole copy has an end, which is not here. */
  async #patiently(stopped: AbortSignal, work: () => Promise<void>): Promise<void> {
    for (;;) {
      stopped.throwIfAborted();
      try {
        await work();
        return;
      } catch (error) {
        stopped.throwIfAborted();
        if (error instanceof CutoverError) throw error;
        this.#tell(messageOf(error));
        await delay(RETRY_MS, undefined, { signal: stopped });
      }
    }
  }

  /** Each trouble once. */
  #tell(problem: string): void {
    if (this.#told.has(problem) || this.#told.size >= TOLD_MAX) return;
    this.#told.add(problem);
    this.#options.alarm(`ranges of ${this.#run.streams.join(', ')} are copied again: ${problem}`);
  }
}

function keyOf(stream: string, table: TableName): string {
  return `${stream} ${qualified(table)}`;
}
