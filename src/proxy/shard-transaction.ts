/**
 * One task: hold the servers of one transaction on several shards, take further ones into it, and end it on all of them or on none.
 *
 * One server at a time is lent to the session, which passes messages to it as in any transaction; the others wait here, with their
 * transactions open. A server that is lost cannot be replaced: the transaction then only rolls back. Servers are taken without asking the
 * gate: a pause waits until the transaction has ended, and must not keep it from that.
 *
 * If the process dies: what was not decided is rolled back by the servers, or by whoever resolves (src/postgres/two-phase.ts).
 */
import { CutoverError, messageOf } from '../errors/errors.js';
import { commitOnAll } from '../postgres/two-phase.js';
import { READY_FAILED, READY_IN_TRANSACTION } from '../wire/backend.js';
import { BACKEND, STATUS } from '../wire/codes.js';
import { query } from '../wire/frontend.js';
import type { Pool } from './pool.js';
import { raising } from './raising.js';
import { REPLY } from './reply-queue.js';
import { COORDINATOR } from './routes.js';
import type { ServerConnection } from './server-connection.js';
import type { SchemaHold } from './schema-hold.js';
import type { SessionContext } from './session-context.js';
import type { SessionSettings } from './settings.js';
import type { SeveralPlan } from './several-plan.js';
import { ServerError, ShardPart } from './shard-part.js';
import { endedInTime, LOCK_LIMIT, type PartsClient, type StatementParts } from './shard-parts.js';
import type { WriteBatch } from './write-batch.js';

/** What an open transaction does with servers beside the one where it is. */
export type TransactionPlan =
  | SeveralPlan
  /** goes on on the server of another shard; the batch stays where it is */
  | { readonly kind: 'enlist'; readonly shard: number }
  /** says the batch to every server it has; `back`: it goes back to a savepoint */
  | { readonly kind: 'everywhere'; readonly batch: WriteBatch; readonly back: boolean }
  | { readonly kind: 'end'; readonly commit: boolean; readonly batch: WriteBatch };

/** The server that a session has. */
export interface Lent {
  readonly shard: number;
  readonly server: ServerConnection;
  readonly pool: Pool;
  /** of the configuration by which its shard was found */
  readonly version: number;
}

const HAS_WRITTEN = 'SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL';

export class ShardTransaction {
  /** the schema has been changed in it, and what is known of it is to be read anew */
  schemaChanged = false;
  /** readers at the coordinator wait for its end */
  hold: SchemaHold | null = null;
  readonly #client: PartsClient;
  readonly #context: SessionContext;
  /** the configuration by which its shards are told */
  readonly #version: number;
  readonly #parts = new Map<number, ShardPart>();
  #limited = false;
  #left = false;

  constructor(client: PartsClient, context: SessionContext, version: number) {
    this.#client = client;
    this.#context = context;
    this.#version = version;
  }

  /** In the order of their shards. */
  get shards(): readonly number[] {
    return [...this.#parts.keys()].sort((a, b) => a - b);
  }

  /** A server waits here, so a pause must wait. */
  get holding(): boolean {
    return [...this.#parts.values()].some(({ server }) => server !== null);
  }

  /** 0: none */
  get serverPid(): number {
    return [...this.#parts.values()].find(({ server }) => server !== null)?.server?.processId ?? 0;
  }

  /** Takes the server that the session has had. */
  park({ shard, server, pool }: Lent): void {
    const part = this.#parts.get(shard) ?? new ShardPart(this.#client.id, shard);
    this.#parts.set(shard, part);
    part.adopt(server, pool);
  }

  /** Gives the session the server of a shard; null: it is lost, or the client has left. */
  lend(shard: number): Lent | null {
    if (this.#left) return null;
    const lent = this.#parts.get(shard)?.lend() ?? null;
    return lent === null ? null : { shard, ...lent, version: this.#version };
  }

  /**
   * The servers of these shards, with the transaction open on each.
   *
   * @param opening what has been said of it so far, in SQL
   * @throws CutoverError of the pool; an error of the server's
   */
  async enlist(shards: readonly number[], settings: SessionSettings, opening: string): Promise<readonly ShardPart[]> {
    await this.#limitLocks();
    const parts: ShardPart[] = [];
    for (const shard of shards) parts.push(this.#parts.get(shard) ?? (await this.#begun(shard, settings, opening)));
    for (const part of parts) if (part.server === null) throw new Error('the connection to the server was lost');
    return parts;
  }

  async #begun(shard: number, settings: SessionSettings, opening: string): Promise<ShardPart> {
    const { user, database } = this.#client;
    const { routes } = this.#context;
    if (routes.version !== this.#version)
      throw new CutoverError('shards_not_committed', { problem: 'the shards have become others meanwhile' });
    if (this.#left) throw new Error('the client has left');
    const part = new ShardPart(this.#client.id, shard);
    this.#parts.set(shard, part);
    try {
      await part.borrow(routes.of(user, database, shard).pool);
      await part.begin(settings, shard === COORDINATOR ? opening : `${opening}\n;${LOCK_LIMIT}`);
      return part;
    } catch (error) {
      // It has done nothing yet.
      this.#parts.delete(shard);
      part.release();
      throw error;
    }
  }

  /** To be called again when a savepoint was gone back to, which may have taken it away. */
  async limitAgain(): Promise<void> {
    this.#limited = false;
    await this.#limitLocks();
  }

  async #limitLocks(): Promise<void> {
    if (this.#limited) return;
    this.#limited = true;
    for (const part of this.#parts.values()) if (part.shard !== COORDINATOR) await part.execute(LOCK_LIMIT);
  }

  /** The servers of a statement in it. @param schema the statement is about the schema */
  partsFor(shards: readonly number[], settings: SessionSettings, opening: string, schema: boolean): StatementParts {
    return new TransactionParts(this, async () => {
      if (schema) await this.#endReading();
      return this.enlist(shards, settings, opening);
    });
  }

  /**
   * One server's transaction has failed, and with it the whole.
   *
   * @returns where; null: no server is left to say so
   */
  async fail(error: unknown): Promise<number | null> {
    const alive = [...this.#parts.values()].filter(({ server }) => server !== null);
    const failed = alive.find(({ server }) => server?.transactionStatus === STATUS.failed);
    if (failed !== undefined) return failed.shard;
    const told =
      error instanceof CutoverError ? error : new CutoverError('shards_not_committed', { problem: messageOf(error) });
    for (const part of alive) {
      await part.execute(raising(told)).catch(() => undefined);
      if (part.server?.transactionStatus === STATUS.failed) return part.shard;
    }
    return null;
  }

  /** @throws ServerError; CutoverError `shards_not_committed` | `shards_undecided`. In all but the last nothing was changed. */
  async commit(): Promise<void> {
    await endedInTime(this.#committed(), this);
  }

  async #committed(): Promise<void> {
    const parts = this.shards.flatMap((shard) => this.#parts.get(shard) ?? []);
    const written: ShardPart[] = [];
    const asked = parts.filter(({ shard }) => shard !== COORDINATOR);
    // All are waited for: one that is still asked could not be rolled back.
    const answers = await Promise.allSettled(asked.map(hasWritten));
    for (const [index, answer] of answers.entries()) {
      if (answer.status === 'rejected') throw answer.reason;
      const part = asked[index];
      if (answer.value && part !== undefined) written.push(part);
    }
    const [first, ...others] = written;
    if (first !== undefined && others.length > 0) await commitOnAll(first, others);
    else if (first !== undefined) await commitOne(first);
    // What has only read ends either way.
    await Promise.allSettled(parts.filter((part) => !written.includes(part)).map((part) => part.execute('COMMIT')));
  }

  async rollBack(): Promise<void> {
    const open = [...this.#parts.values()].filter(({ server }) => server !== null && !server.idle);
    await endedInTime(Promise.allSettled(open.map((part) => part.execute('ROLLBACK'))), this);
  }

  /** Its servers, for what the session knows of their settings. */
  get servers(): readonly ServerConnection[] {
    return [...this.#parts.values()].flatMap(({ server }) => server ?? []);
  }

  /** Its sessions on the shards, in their order. */
  get parts(): readonly ShardPart[] {
    return this.shards.flatMap((shard) => (shard === COORDINATOR ? [] : (this.#parts.get(shard) ?? [])));
  }

  /** Ends what it has read over the shards, by the coordinator's own sessions there: a change of the schema would wait for them without an end. */
  async #endReading(): Promise<void> {
    const part = this.#parts.get(COORDINATOR);
    if (part === undefined) return;
    await part.execute('COMMIT');
    this.#parts.delete(COORDINATOR);
    part.release();
  }

  /** Gives the servers back. */
  release(): void {
    for (const part of this.#parts.values()) part.release();
    this.#parts.clear();
    this.#context.gate(this.#client.database).released();
  }

  /** The client is gone: nothing more is begun. */
  leave(): void {
    this.#left = true;
  }

  /** Ends the connections, whatever is in flight; the servers roll back. */
  abandon(): void {
    this.#left = true;
    for (const part of this.#parts.values()) part.abandon();
    void this.hold?.end();
    this.#context.gate(this.#client.database).released();
  }
}

/** Whether there is anything to commit; a transaction without a number has changed nothing (PostgreSQL documentation, 67.1). */
async function hasWritten(part: ShardPart): Promise<boolean> {
  if (part.server === null) throw new Error('the connection to a server was lost');
  let written = true;
  await part.run({ bytes: query(HAS_WRITTEN), replies: [REPLY.query] }, (type, bytes) => {
    if (type === BACKEND.dataRow) written = bytes.at(-1) === TRUE;
  });
  return written;
}

const TRUE = 0x74;

async function commitOne(part: ShardPart): Promise<void> {
  try {
    await part.execute('COMMIT');
  } catch (error) {
    // Only an ERROR, which leaves the session alive, says that nothing was.
    if (error instanceof ServerError && error.severity === 'ERROR') throw error;
    throw new CutoverError('shards_undecided', { problem: messageOf(error) }, { cause: error });
  }
}

/** One statement's servers, which stay the transaction's: nothing is begun, ended or given back. */
class TransactionParts implements StatementParts {
  all: readonly ShardPart[] = [];
  readonly inTransaction = true;
  left = false;
  readonly #transaction: ShardTransaction;
  readonly #enlist: () => Promise<readonly ShardPart[]>;

  constructor(transaction: ShardTransaction, enlist: () => Promise<readonly ShardPart[]>) {
    this.#transaction = transaction;
    this.#enlist = enlist;
  }

  get holding(): boolean {
    return this.#transaction.holding;
  }

  get serverPid(): number {
    return this.#transaction.serverPid;
  }

  hold(held: boolean): void {
    for (const { server } of this.all) {
      if (held) server?.pause();
      else server?.resume();
    }
  }

  leave(): void {
    this.left = true;
    this.#transaction.leave();
  }

  abandon(): void {
    this.#transaction.abandon();
  }

  async borrow(): Promise<boolean> {
    this.all = await this.#enlist();
    return true;
  }

  async begin(part: ShardPart, _settings: SessionSettings, first?: string): Promise<void> {
    if (first !== undefined) await part.execute(first);
  }

  commit(): Promise<void> {
    return Promise.resolve();
  }

  /** It has failed: how it ends is the client's to say. */
  async rollBack(stopping: Promise<unknown> = Promise.resolve()): Promise<void> {
    await endedInTime(stopping, this);
  }

  release(): void {
    this.hold(false);
  }

  ready(good: boolean): Buffer {
    return good ? READY_IN_TRANSACTION : READY_FAILED;
  }
}
