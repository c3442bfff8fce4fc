/**
 * One task: run one statement on several shards, on all of them or on none, and answer the client as one server would.
 *
 * Shard after shard, in the order of their numbers: two such statements that write the same rows wait for each other on the first one,
 * and never in a circle. Then two-phase commit (src/postgres/two-phase.ts). Rows of RETURNING pass as they come, except those of an
 * INSERT, which are put in the order of the rows that were inserted.
 */
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { commandComplete } from '../wire/backend.js';
import { BACKEND } from '../wire/codes.js';
import type { SessionSettings } from './settings.js';
import { answerWith, Beginning, type Answering, type WriteListener, type WriteOutcome } from './several-answer.js';
import type { Passing, ShardPart } from './shard-part.js';
import { addedUp, type PartsClient, type StatementParts } from './shard-parts.js';
import { closing, isAskedFor, type PartMessages, type WriteBatch } from './write-batch.js';

export interface WritePlan {
  readonly kind: 'write';
  readonly batch: WriteBatch;
  /** two or more, in the order of their shards */
  readonly parts: readonly {
    readonly shard: number;
    readonly messages: PartMessages;
    /** of an INSERT: which of its rows these are; null: the shard finds its rows itself */
    readonly rows: readonly number[] | null;
  }[];
  /** every shard has the same rows, so that one of them tells what was written */
  readonly alike: boolean;
  readonly schema: SchemaEffect;
  /** what is said first on each shard, before it begins on any; null: nothing: see move-lock.ts */
  readonly lock: string | null;
}

/** Of a statement on the schema: `beside`: nothing that the coordinator has; `shape`: it must come along. */
export type SchemaEffect = 'none' | 'beside' | 'shape';

const NOTHING = Buffer.alloc(0);
/** Rows of an INSERT are kept until all of them are there. */
const ROWS_BYTES_MAX = 16 * 1024 * 1024;

export class ShardWrite {
  readonly #answering: Answering;
  readonly #settings: SessionSettings;
  readonly #plan: WritePlan;
  readonly #listener: WriteListener;
  readonly #parts: StatementParts;
  /** rows of each part, where they have to be put in order */
  readonly #rows: Buffer[][];
  #rowsBytes = 0;
  #running: ShardPart | null = null;
  #cancelled = false;

  constructor(
    client: PartsClient,
    parts: StatementParts,
    settings: SessionSettings,
    plan: WritePlan,
    listener: WriteListener,
    mayAsk: boolean,
  ) {
    this.#answering = { client, parts, listener, beginning: new Beginning(listener), mayAsk };
    this.#parts = parts;
    this.#settings = settings;
    this.#plan = plan;
    this.#listener = listener;
    this.#rows = plan.parts.map(() => []);
  }

  /** Stops the statement where it runs; what is being committed is not stopped. */
  cancel(): void {
    this.#cancelled = true;
    this.#running?.cancel();
  }

  /** Closes the connection of the server that was to stop and has not. */
  giveUp(): void {
    this.#running?.giveUp();
  }

  /** Answers the client to the end, unless it is to run anew. Never rejects. */
  run(): Promise<WriteOutcome> {
    return answerWith(
      this.#answering,
      () => this.#write(),
      async () => [
        ...this.#ordered(),
        await this.#schemaNotice(),
        commandComplete(this.#tag),
        closing(this.#plan.batch),
      ],
    );
  }

  async #write(): Promise<void> {
    const shape = this.#plan.schema === 'shape';
    try {
      // Ahead of the first shard: a reader may hold the coordinator and wait for a shard.
      if (shape) await this.#listener.schemaMayChange();
      if (this.#cancelled) throw new CutoverError('shards_not_committed', { problem: 'it was cancelled' });
      await this.#lock();
      for (const index of this.#parts.all.keys()) await this.#runPart(index);
      if (shape) await this.#listener.schemaMayCommit(this.#parts.all);
    } catch (error) {
      throw this.#listener.overdue() ?? error;
    } finally {
      // What is being decided is not stopped by anybody.
      this.#running = null;
    }
  }

  async #lock(): Promise<void> {
    const { lock } = this.#plan;
    for (const part of lock === null ? [] : this.#parts.all) {
      this.#running = part;
      await this.#parts.begin(part, this.#settings, lock ?? '');
    }
  }

  async #runPart(index: number): Promise<void> {
    const [part, planned] = [this.#parts.all[index], this.#plan.parts[index]];
    invariant(part && planned, 'each part is planned');
    this.#running = part;
    if (this.#plan.lock === null) await this.#parts.begin(part, this.#settings);
    await part.run(planned.messages, this.#passing(index));
    if (this.#rowsBytes > ROWS_BYTES_MAX)
      throw new CutoverError('shards_not_committed', {
        problem: `its RETURNING is longer than ${ROWS_BYTES_MAX.toString()} bytes`,
      });
  }

  /** What goes to the client of what a part's server says: of the first one also what comes once. */
  #passing(index: number): Passing {
    const { batch, alike, parts } = this.#plan;
    const { say } = this.#listener;
    const { beginning } = this.#answering;
    const first = index === 0;
    const inOrder = parts[index]?.rows !== null;
    return (type, bytes, continued) => {
      if (type === BACKEND.noticeResponse || type === BACKEND.parameterStatus) {
        if (first || !alike) say(bytes);
      } else if (type === BACKEND.dataRow) {
        if (inOrder) this.#keep(index, bytes, continued);
        else if (first || !alike) {
          beginning.tell();
          say(bytes);
        }
      } else if (first && type === BACKEND.parseComplete) {
        if (isAskedFor(batch, 'parse')) beginning.keep(bytes, true);
      } else if (first && (type === BACKEND.rowDescription || type === BACKEND.noData)) {
        if (isAskedFor(batch, 'describe')) beginning.keep(bytes);
      } else if (first && type === BACKEND.bindComplete) beginning.keep(bytes);
    };
  }

  #keep(index: number, bytes: Buffer, continued: boolean): void {
    const rows = this.#rows[index] ?? [];
    this.#rowsBytes += bytes.length;
    if (this.#rowsBytes > ROWS_BYTES_MAX) return;
    const before = continued ? rows.pop() : undefined;
    rows.push(before === undefined ? bytes : Buffer.concat([before, bytes]));
  }

  /** Rows in the order of the INSERT; where a part has not one for each of its rows, shard by shard. */
  #ordered(): readonly Buffer[] {
    const { parts } = this.#plan;
    const whole = parts.every(({ rows }, index) => rows?.length === this.#rows[index]?.length);
    if (!whole) return this.#rows.flat();
    const placed = parts.flatMap(({ rows }, index) =>
      (rows ?? []).map((row, at) => ({ row, bytes: this.#rows[index]?.[at] ?? Buffer.alloc(0) })),
    );
    return placed.sort((a, b) => a.row - b.row).map(({ bytes }) => bytes);
  }

  /** `UPDATE 3`: the counts of the shards added up. */
  get #tag(): string {
    const tags = this.#parts.all.map(({ tag }) => tag);
    return this.#plan.alike ? (tags[0] ?? '') : addedUp(tags);
  }

  /** Until the coordinator is in step nothing is asked of it, so a failure here makes no answer wrong. */
  async #schemaNotice(): Promise<Buffer> {
    if (this.#plan.schema === 'none') return NOTHING;
    this.#parts.release();
    return this.#listener.schemaChanged();
  }
}
