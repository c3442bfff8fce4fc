/**
 * One task: stand in for one PostgreSQL database: transactions with row and table locks, a flag outside of MVCC, a log that
 * streams read in order.
 *
 * Statements run as generators that stop where PostgreSQL could let others go first: at a lock, between two statements of a
 * function, while the client thinks. A transaction's changes become visible at its commit, all at once; the flag, a sequence, at once.
 */
import type { Decision, DecisionState, FenceState } from '../../src/postgres/record.js';
import { Locks, type LockMode } from './locks.js';
import { Actor, type Scheduler } from './scheduler.js';

export interface FenceRow {
  readonly epoch: number;
  readonly state: FenceState;
  readonly nonce: string;
  readonly seal_lsn: string | null;
}

/** A row of the application: its key comes from the sequence of the side that took it. */
export interface AppRow {
  /** names the write, whatever the key */
  readonly id: string;
  readonly key: number;
}

/** One committed transaction, as a stream sees it. */
export interface LogEntry {
  readonly lsn: number;
  /** the stream that brought it; null for what was written here */
  readonly origin: string | null;
  readonly rows: readonly AppRow[];
  readonly markers: readonly string[];
}

/** What a statement waits for. */
export type Wait =
  | { readonly lock: string; readonly mode: LockMode }
  | { readonly thinkMs: number }
  | { readonly sleepMs: number }
  | { readonly pause: true };

export type Work<T> = Generator<Wait, T, undefined>;

export class SqlError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Told of what happens in a database; the invariants listen here. */
export interface Watcher {
  flagChanged(database: Database): void;
  accepted(database: Database): void;
  committed(database: Database, entry: LogEntry): void;
  decided(database: Database, decision: Decision, before: DecisionState | null): void;
  duplicate(database: Database, row: AppRow): void;
}

const STATEMENT_MS = 0.1;
const COMMIT_MS = 0.4;
/** client_connection_check_interval of the engine's connections */
const DISCONNECT_NOTICED_MS = 500;

/** A transaction under way. */
export class Transaction {
  readonly database: Database;
  /** the process it works for */
  readonly client: Actor;
  readonly origin: string | null;
  lockTimeoutMs = 0;
  fenceRow: FenceRow | null = null;
  readonly decisions = new Map<number, Decision>();
  readonly markers = new Set<string>();
  readonly rows: AppRow[] = [];
  readonly beganAt: number;
  ended = false;
  /** set while it waits for a lock or a client: how to end it from outside */
  stop: ((error: Error) => void) | null = null;
  /** tells the client that the server has gone */
  lost: () => void = () => undefined;
  readonly single: boolean;

  constructor(database: Database, client: Actor, origin: string | null, single: boolean) {
    this.database = database;
    this.client = client;
    this.origin = origin;
    this.single = single;
    this.beganAt = database.scheduler.now;
  }

  get fence(): FenceRow {
    return this.fenceRow ?? this.database.fence;
  }

  decision(epoch: number): Decision | undefined {
    return this.decisions.get(epoch) ?? this.database.decisions.get(epoch);
  }

  get allDecisions(): readonly Decision[] {
    return [...new Map([...this.database.decisions, ...this.decisions]).values()];
  }
}

export class Database extends Actor {
  readonly scheduler: Scheduler;
  readonly host: string;
  readonly systemIdentifier: string;
  readonly databaseOid = 16_384;
  readonly timeline = 1;
  readonly locks = new Locks();
  readonly watcher: Watcher;
  fence: FenceRow = { epoch: 0, state: 'open', nonce: '', seal_lsn: null };
  /** is_called of cutover.fence_flag: outside of MVCC and of rollback */
  up = false;
  readonly decisions = new Map<number, Decision>();
  readonly markers = new Set<string>();
  readonly rows = new Map<string, AppRow>();
  readonly keys = new Map<number, string>();
  sequence = 0;
  readonly log: LogEntry[] = [];
  lsn = 1_000;
  /** transactions of the application that wrote something and have not ended */
  readonly writing = new Set<Transaction>();
  readonly open = new Set<Transaction>();
  readonly listeners: (() => void)[] = [];
  readonly #flagChanges: number[] = [];

  constructor(host: string, systemIdentifier: string, scheduler: Scheduler, watcher: Watcher) {
    super(host);
    this.host = host;
    this.systemIdentifier = systemIdentifier;
    this.scheduler = scheduler;
    this.watcher = watcher;
  }

  identity(): Record<string, unknown> {
    const { systemIdentifier, databaseOid, timeline } = this;
    return { systemIdentifier, databaseOid, timeline, inRecovery: false };
  }

  get lsnText(): string {
    return `0/${this.lsn.toString(16).toUpperCase()}`;
  }

  setFlag(up: boolean): void {
    if (this.up === up) return;
    this.up = up;
    this.#flagChanges.push(this.scheduler.now);
    this.watcher.flagChanged(this);
  }

  /** What a flag under MVCC would have shown to a snapshot of that time. */
  upAt(time: number): boolean {
    const later = this.#flagChanges.filter((change) => change > time).length;
    return later % 2 === 0 ? this.up : !this.up;
  }

  /**
   * Runs one transaction and calls back on this server's own time.
   *
   * @param single one statement of its own: nothing but its end tells the client, and a dead client may go unnoticed
   */
  transact<T>(
    client: Actor,
    work: (transaction: Transaction) => Work<T>,
    done: (error: Error | null, result: T | null) => void,
    options: { readonly origin?: string; readonly single?: boolean } = {},
  ): void {
    const transaction = new Transaction(this, client, options.origin ?? null, options.single ?? true);
    this.open.add(transaction);
    transaction.lost = () => {
      done(new SqlError('57P01', 'terminating connection due to administrator command'), null);
    };
    const steps = work(transaction);
    const step = (advance: () => IteratorResult<Wait, T>): void => {
      if (transaction.ended) return;
      transaction.stop = null;
      try {
        const next = advance();
        if (next.done === true) this.#commit(transaction, next.value, done);
        else this.#wait(transaction, next.value, step, steps);
      } catch (error) {
        this.#end(transaction);
        done(error instanceof Error ? error : new Error(String(error)), null);
      }
    };
    transaction.stop = (error) => {
      step(() => steps.throw(error));
    };
    step(() => steps.next());
  }

  #wait<T>(
    transaction: Transaction,
    wait: Wait,
    step: (advance: () => IteratorResult<Wait, T>) => void,
    steps: Work<T>,
  ): void {
    const { scheduler } = this;
    const goOn = (): void => {
      step(() => steps.next());
    };
    const fail = (error: Error): void => {
      step(() => steps.throw(error));
    };
    transaction.stop = fail;
    if ('pause' in wait) {
      scheduler.after(this, scheduler.between(0, STATEMENT_MS), goOn, true);
    } else if ('sleepMs' in wait) {
      scheduler.after(this, wait.sleepMs, goOn, true);
    } else if ('thinkMs' in wait) {
      // What it sent last was under way when it died: the server finds nobody at the other end.
      if (!transaction.client.alive) this.#noticeGone(transaction);
      scheduler.after(
        transaction.client,
        wait.thinkMs,
        () => scheduler.after(this, scheduler.between(0.1, 0.6), goOn, true),
        true,
      );
    } else {
      const queued = { waiting: true };
      const giveUp = this.locks.acquire(transaction, wait.lock, wait.mode, () => {
        queued.waiting = false;
        scheduler.after(this, 0, goOn, true);
      });
      if (!queued.waiting || transaction.lockTimeoutMs === 0) return;
      scheduler.after(this, transaction.lockTimeoutMs, () => {
        if (!queued.waiting || transaction.ended) return;
        giveUp();
        fail(new SqlError('55P03', 'canceling statement due to lock timeout'));
      });
    }
  }

  #commit<T>(transaction: Transaction, result: T, done: (error: Error | null, result: T | null) => void): void {
    // From here on nothing but this server's own end stops it.
    transaction.stop = null;
    this.scheduler.after(
      this,
      this.scheduler.between(0.05, COMMIT_MS),
      () => {
        if (transaction.ended) return;
        this.#apply(transaction);
        this.#end(transaction);
        done(null, result);
      },
      true,
    );
  }

  #apply(transaction: Transaction): void {
    if (transaction.fenceRow) this.fence = transaction.fenceRow;
    for (const [epoch, decision] of transaction.decisions) {
      const before = this.decisions.get(epoch)?.state ?? null;
      this.decisions.set(epoch, decision);
      this.watcher.decided(this, decision, before);
    }
    for (const marker of transaction.markers) this.markers.add(marker);
    for (const row of transaction.rows) {
      if (this.rows.has(row.id) || this.keys.has(row.key)) this.watcher.duplicate(this, row);
      this.rows.set(row.id, row);
      this.keys.set(row.key, row.id);
    }
    if (transaction.rows.length === 0 && transaction.markers.size === 0) return;
    this.lsn += 8;
    const entry = {
      lsn: this.lsn,
      origin: transaction.origin,
      rows: transaction.rows,
      markers: [...transaction.markers],
    };
    this.log.push(entry);
    this.watcher.committed(this, entry);
    for (const listener of this.listeners) listener();
  }

  #end(transaction: Transaction): void {
    transaction.ended = true;
    this.open.delete(transaction);
    this.writing.delete(transaction);
    this.locks.release(transaction);
  }

  /** A row was written by the application in a transaction that is open. */
  accept(transaction: Transaction, row: AppRow): void {
    transaction.rows.push(row);
    this.writing.add(transaction);
    this.watcher.accepted(this);
  }

  /** The process at the other end is gone: interactive transactions are rolled back, single statements may go on unnoticed. */
  clientGone(client: Actor): void {
    for (const transaction of this.open) {
      if (transaction.client !== client) continue;
      if (transaction.single && this.scheduler.chance(50)) continue;
      this.#noticeGone(transaction);
    }
  }

  #noticeGone(transaction: Transaction): void {
    const noticedMs = transaction.single ? DISCONNECT_NOTICED_MS : 20;
    this.scheduler.after(
      this,
      this.scheduler.between(0, noticedMs),
      () => {
        transaction.stop?.(new SqlError('57P01', 'terminating connection: the client is gone'));
      },
      true,
    );
  }

  /** The server is started again: what was not committed is rolled back; a flag stays as it was set. */
  restart(): void {
    for (const transaction of [...this.open]) {
      this.#end(transaction);
      transaction.lost();
    }
  }
}
