/**
 * One task: run one UPDATE that sets the sharding column, so that its rows are then on the shards of their new keys; on all shards or on none.
 *
 * Stages:
 *   preparing    on each shard a transaction is begun, the table is kept as it is, and looked at (row-move-facts.ts)
 *   updating     the client's own UPDATE runs where the rows are, shard after shard, and tells of each row where it lies and its new key
 *   moving       rows whose key leads to another shard are deleted and put there (row-transfer.ts)
 * PostgreSQL computes every value of a row: SET, triggers of UPDATE, generated columns, constraints. No row is updated twice: all are before
 * the first is moved.
 */
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { quoteIdentifier } from '../postgres/connection.js';
import { TOLD_COLUMNS } from '../sharding/router-move.js';
import type { TableRule } from '../sharding/scheme.js';
import type { MovedTable } from '../sharding/statement-verdict.js';
import { commandComplete, NO_DATA } from '../wire/backend.js';
import { BACKEND } from '../wire/codes.js';
import { query } from '../wire/frontend.js';
import { nameOf } from './move-lock.js';
import { MovingRows, type MovingGroup } from './moving-rows.js';
import { REPLY } from './reply-queue.js';
import { factsQuery, moveProblem, moveRefusal, type MoveFacts, type MoveProblem } from './row-move-facts.js';
import { transferRows } from './row-transfer.js';
import type { SessionSettings } from './settings.js';
import { answerWith, Beginning, type Answering, type WriteListener, type WriteOutcome } from './several-answer.js';
import { ServerError, type Passing, type ShardPart } from './shard-part.js';
import { addedUp, LOCK_LIMIT, type PartsClient, type StatementParts } from './shard-parts.js';
import { cutDescription, cutRow } from './told-rows.js';
import { closing, isAskedFor, type PartMessages, type WriteBatch } from './write-batch.js';

export interface MovePlan {
  readonly kind: 'move';
  readonly batch: WriteBatch;
  /** the UPDATE, with what it tells beside: see `movingText` */
  readonly messages: PartMessages;
  readonly moved: MovedTable;
  readonly rule: TableRule;
  /** of the database */
  readonly shardCount: number;
  /** all that have rows to change, or may get some, in the order of their numbers */
  readonly shards: readonly number[];
  /** those that have rows to change */
  readonly from: readonly number[];
  /** whether every shard has all rows of a table */
  readonly isEverywhere: (schema: string, table: string) => boolean;
}

const FOREIGN_KEY_VIOLATION = '23503';
const FACTS_REPLIES = [REPLY.query];

export class RowMove {
  readonly #client: PartsClient;
  readonly #parts: StatementParts;
  readonly #settings: SessionSettings;
  readonly #plan: MovePlan;
  readonly #listener: WriteListener;
  readonly #answering: Answering;
  readonly #moving: MovingRows;
  #running: readonly ShardPart[] = [];
  readonly #tags: string[] = [];
  /** why rows cannot be moved */
  #problem: MoveProblem | null = null;
  /** columns that can be given */
  #columns = '';

  constructor(
    client: PartsClient,
    parts: StatementParts,
    settings: SessionSettings,
    plan: MovePlan,
    listener: WriteListener,
    mayAsk: boolean,
  ) {
    this.#client = client;
    this.#parts = parts;
    this.#settings = settings;
    this.#plan = plan;
    this.#listener = listener;
    this.#answering = { client, parts, listener, beginning: new Beginning(listener), mayAsk };
    this.#moving = new MovingRows(client.database, plan.rule, plan.shardCount);
  }

  /** Stops the statement where it runs; what is being committed is not stopped. */
  cancel(): void {
    for (const part of this.#running) part.cancel();
  }

  /** Closes the connections of the servers that were to stop and have not. */
  giveUp(): void {
    for (const part of this.#running) part.giveUp();
  }

  /** Answers the client to the end, unless it is to run anew. Never rejects. */
  run(): Promise<WriteOutcome> {
    return answerWith(
      this.#answering,
      () => this.#work(),
      () => Promise.resolve([commandComplete(addedUp(this.#tags)), closing(this.#plan.batch)]),
    );
  }

  async #work(): Promise<void> {
    try {
      await this.#prepare();
      await this.#update();
      await this.#move();
    } finally {
      // What is being decided is not stopped by anybody.
      this.#running = [];
    }
  }

  async #prepare(): Promise<void> {
    const { isEverywhere } = this.#plan;
    const all: MoveFacts[] = [];
    for (const part of this.#parts.all) {
      this.#running = [part];
      await this.#parts.begin(part, this.#settings, LOCK_LIMIT);
      // The keys would be read as others.
      if (part.server?.parameters.get('server_encoding') !== 'UTF8') throw this.#refused('encoding');
      all.push(await this.#ask(part));
    }
    this.#problem = moveProblem(all, isEverywhere);
    const names = all[0]?.columns.map(([name]) => name) ?? [];
    this.#columns = names.map(quoteIdentifier).join(', ');
  }

  async #ask(part: ShardPart): Promise<MoveFacts> {
    let row = Buffer.alloc(0);
    await part.run({ bytes: query(factsQuery(this.#plan.moved)), replies: FACTS_REPLIES }, (type, bytes, continued) => {
      if (type === BACKEND.dataRow) row = continued ? Buffer.concat([row, bytes]) : Buffer.from(bytes);
    });
    const [json = null] = cutRow(row, 1).told;
    invariant(json !== null, 'the facts of a table are never NULL');
    return JSON.parse(json) as MoveFacts;
  }

  async #update(): Promise<void> {
    const { from, messages } = this.#plan;
    for (const part of this.#parts.all.filter(({ shard }) => from.includes(shard))) {
      this.#running = [part];
      try {
        await part.run(messages, this.#passing(part, part.shard === from[0]));
      } catch (error) {
        // The row may be there that a foreign key asks for: on the shard of the new key.
        const asked = error instanceof ServerError && error.code === FOREIGN_KEY_VIOLATION;
        if (asked && this.#problem === 'references') throw this.#refused(this.#problem);
        // Where nothing more is read it was stopped for that.
        this.#moving.check();
        throw error;
      }
      this.#moving.check(part.tag);
      this.#tags.push(part.tag);
    }
  }

  /** What goes to the client of what a shard's server says: of the first one also what comes once. */
  #passing(part: ShardPart, first: boolean): Passing {
    return (type, bytes, continued) => {
      if (type === BACKEND.dataRow) this.#row(part, bytes, continued);
      else if (type === BACKEND.noticeResponse || type === BACKEND.parameterStatus) this.#listener.say(bytes);
      else if (first) this.#keepBeginning(type, bytes);
    };
  }

  #row(part: ShardPart, bytes: Buffer, continued: boolean): void {
    const before = this.#moving.failed;
    const row = this.#moving.push(part.shard, bytes, continued);
    if (this.#moving.failed && !before) part.cancel();
    if (row === null || !this.#plan.moved.returning) return;
    this.#answering.beginning.tell();
    this.#listener.say(row);
  }

  #keepBeginning(type: number, bytes: Buffer): void {
    const { batch, moved } = this.#plan;
    const { beginning } = this.#answering;
    if (type === BACKEND.parseComplete && isAskedFor(batch, 'parse')) beginning.keep(bytes, true);
    else if (type === BACKEND.bindComplete) beginning.keep(bytes);
    else if (type === BACKEND.rowDescription && isAskedFor(batch, 'describe')) {
      if (moved.returning) beginning.keep(cutDescription(bytes, TOLD_COLUMNS));
      else if (batch.extended !== null) beginning.keep(NO_DATA);
    }
  }

  /** An UPDATE that moves no row is one like any other. */
  async #move(): Promise<void> {
    if (this.#problem !== null && this.#moving.groups.length > 0) throw this.#refused(this.#problem);
    for (const group of this.#moving.groups) {
      const [from, to] = [group.from, group.to].map((shard) => this.#parts.all.find((part) => part.shard === shard));
      invariant(from && to, 'every shard that gets rows has a part');
      this.#running = [from, to];
      const rows = group.places.length;
      const { taken, put } = await transferRows(from, to, this.#transferSql(group));
      // A trigger behind the UPDATE may have changed a row once more, or taken it away.
      if (taken !== rows || put !== rows)
        throw new CutoverError('shards_not_committed', { problem: 'a row that is moved was changed again meanwhile' });
    }
  }

  #transferSql({ table, places }: MovingGroup): { readonly take: string; readonly put: string } {
    const [name, columns] = [nameOf(this.#plan.moved), this.#columns];
    const chosen = `tableoid = ${table} AND ctid = ANY ('{${places.map((place) => `"${place}"`).join(',')}}'::pg_catalog.tid[])`;
    return {
      take: `COPY (DELETE FROM ${name} WHERE ${chosen} RETURNING ${columns}) TO STDOUT`,
      put: `COPY ${name} (${columns}) FROM STDIN`,
    };
  }

  #refused(problem: MoveProblem): CutoverError {
    return new CutoverError('statement_not_routed', {
      database: this.#client.database,
      reason: moveRefusal(problem),
    });
  }
}
