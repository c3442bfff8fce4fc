/**
 * One task: run the reads of several sessions over one server connection, one behind the other, and hand each its answer at its
 * ReadyForQuery.
 *
 * Each batch ends with its own Sync or is a Query, so it is a transaction by itself and an error in it is its own. All batches that come in
 * one turn of the event loop leave in one write. An answer is kept until it is whole: so whatever happens to the connection, a session has
 * got all of its answer or nothing of it, and what has not been answered is run again elsewhere. A read does no harm twice.
 */
import { errorField } from '../../wire/backend.js';
import { BACKEND, STATUS } from '../../wire/codes.js';
import { FENCE_SQLSTATE } from '../../errors/errors.js';
import { HEADER_BYTES } from '../../wire/frames.js';
import type { Pool, SharedServer } from '../pool.js';
import { CANCEL_PATIENCE_MS, sendCancel } from '../server-cancel.js';
import type { ServerConnection, ServerOwner } from '../server-connection.js';
import type { ReadTemplate } from './read-templates.js';

/** What a lane tells a session whose batch it has; exactly one of the two, once. */
export interface LaneReader {
  /** the whole answer, with its ReadyForQuery */
  laneAnswered(reply: Buffer, failed: boolean): void;
  /** nothing has been answered, and the batch is to run by itself */
  laneFailed(): void;
  clientNameOf(serverName: string): string | undefined;
}

export interface LaneBatch {
  /** null: nobody waits for its answer any more */
  reader: LaneReader | null;
  readonly template: ReadTemplate;
  readonly expectedMs: number;
  /** it was sent as another statement than the client's: an error of it is not told */
  prepared: boolean;
  cancelAsked: boolean;
}

const BATCHES_MAX = 48;
/** What is ahead of a batch is expected to take no longer. */
const EXPECTED_MS_MAX = 4;
/** Kept of one answer; what is longer ends the lane. */
const REPLY_BYTES_MAX = 262_144;
/** Nobody waits behind a statement that has not been answered for so long, to twice this. */
const STALLED_MS = 50;
const QUERY_CANCELLED = '57014';
/** invalid_sql_statement_name: it was to be prepared by a batch ahead that failed */
const STATEMENT_MISSING = '26000';
/** feature_not_supported: `cached plan must not change result type`; prepared anew it is as good as before (server-connection.ts) */
const PLAN_OUTDATED = '0A000';
const NOTHING = Buffer.alloc(0);

export class Lane implements ServerOwner, SharedServer {
  /** none of a client */
  readonly id = 0;
  readonly #server: ServerConnection;
  readonly #pool: Pool;
  readonly #ended: (lane: Lane) => void;
  readonly #batches: LaneBatch[] = [];
  #expectedMs = 0;
  /** of the first batch */
  #parts: Buffer[] = [];
  #partBytes = 0;
  #failed = false;
  #firstSinceMs = 0;
  #gathering = false;
  #stalled = false;
  #cancelled = false;
  #over = false;
  #watch: NodeJS.Timeout | null = null;
  #watched: LaneBatch | null = null;
  /** how long the first has been the only thing that goes on, for nobody */
  #abandonedMs = 0;

  /** @param server idle, lent to nobody @param ended called once, when it takes no more */
  constructor(server: ServerConnection, pool: Pool, ended: (lane: Lane) => void) {
    this.#server = server;
    this.#pool = pool;
    this.#ended = ended;
    server.changedParameters.clear();
    server.owner = this;
    server.handsOver = true;
  }

  get server(): ServerConnection {
    return this.#server;
  }

  /** batches that are not answered */
  get depth(): number {
    return this.#batches.length;
  }

  /** It may take another batch of whoever comes. Not while somebody waits for a server: it ends when all is answered. */
  get open(): boolean {
    return this.hasRoom && !this.#pool.short;
  }

  /** It may take another batch of one who waits for a server. */
  get hasRoom(): boolean {
    if (this.#over || this.#stalled || this.#server.cancelsInFlight > 0) return false;
    if (this.depth >= BATCHES_MAX || this.#expectedMs > EXPECTED_MS_MAX) return false;
    return !this.#pool.isOutdated(this.#server);
  }

  /**
   * Takes a batch.
   *
   * @param send sends it, on this very call
   */
  take(batch: LaneBatch, send: (server: ServerConnection) => void): void {
    if (this.depth === 0) this.#firstSinceMs = performance.now();
    this.#batches.push(batch);
    this.#expectedMs += batch.expectedMs;
    if (!this.#gathering) {
      this.#gathering = true;
      this.#server.cork();
      setImmediate(this.#flush);
    }
    this.#watch ??= setTimeout(this.#look, STALLED_MS);
    try {
      send(this.#server);
    } catch (error) {
      // Nobody knows what has been sent of it.
      batch.reader = null;
      this.#server.destroy();
      throw error;
    }
  }

  readonly #flush = (): void => {
    this.#gathering = false;
    this.#server.uncork();
  };

  /** Has the statement stopped: now when it runs, else when it would begin. */
  cancel(batch: LaneBatch): void {
    batch.cancelAsked = true;
    if (batch === this.#batches[0]) this.#cancelFirst();
  }

  /** The statement was to stop and has not: the connection ends where it is what runs. */
  giveUp(batch: LaneBatch): void {
    if (batch === this.#batches[0]) this.#server.destroy();
  }

  #cancelFirst(): void {
    const [server, pool] = [this.#server, this.#pool];
    // It may arrive when another statement runs, which is then run again.
    this.#cancelled = true;
    server.cancelsInFlight += 1;
    void sendCancel(server).then(() => {
      pool.cancelArrived(server);
    });
  }

  // ---- the server's side

  deliver(bytes: Buffer): void {
    const [first] = this.#batches;
    if (first === undefined) return;
    this.#parts.push(bytes);
    this.#partBytes += bytes.length;
    if (this.#partBytes <= REPLY_BYTES_MAX) return;
    first.template.bar();
    this.#server.destroy();
  }

  settled(): void {
    const batch = this.#batches.shift();
    if (batch === undefined) return;
    const reply = this.#parts.length === 1 ? (this.#parts[0] ?? NOTHING) : Buffer.concat(this.#parts);
    const failed = this.#failed;
    const now = performance.now();
    batch.template.answeredShared(now - this.#firstSinceMs, reply.length);
    this.#expectedMs = this.depth === 0 ? 0 : this.#expectedMs - batch.expectedMs;
    this.#firstSinceMs = now;
    this.#parts = [];
    this.#partBytes = 0;
    this.#failed = false;
    this.#stalled = false;
    this.#abandonedMs = 0;
    if (this.#server.transactionStatus !== STATUS.idle) this.#server.destroy();
    if (this.#batches[0]?.cancelAsked === true) this.#cancelFirst();
    const { reader } = batch;
    batch.reader = null;
    if (failed && this.#isNotItsOwn(batch, reply)) reader?.laneFailed();
    else reader?.laneAnswered(reply, failed);
    if (this.depth === 0) this.#rest();
  }

  /** An error that others have caused, or a statement in its place, or the fence, which the session can wait out. */
  #isNotItsOwn({ cancelAsked, prepared, template }: LaneBatch, reply: Buffer): boolean {
    const sqlstate = sqlstateOf(reply);
    if (sqlstate === QUERY_CANCELLED) return this.#cancelled && !cancelAsked;
    if (sqlstate === FENCE_SQLSTATE || sqlstate === STATEMENT_MISSING) return true;
    if (prepared && sqlstate !== PLAN_OUTDATED) template.failedPrepared();
    return prepared;
  }

  /** Nothing is left to answer: the server goes back. */
  #rest(): void {
    if (this.#over) return;
    this.#end();
    this.#server.handsOver = false;
    this.#pool.giveBack(this.#server, true);
  }

  lost(): void {
    this.#end();
    const batches = this.#batches.splice(0);
    for (const { reader } of batches) reader?.laneFailed();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#watch !== null) clearTimeout(this.#watch);
    if (this.#gathering) this.#flush();
    this.#ended(this);
  }

  /** Once answers that are there already have been read. */
  readonly #look = (): void => {
    setImmediate(() => {
      if (this.#over) return;
      const [first] = this.#batches;
      if (first !== undefined && first === this.#watched) this.#stall(first);
      if (first?.reader === null && this.#stalled) this.#abandon();
      this.#watched = first ?? null;
      this.#watch = setTimeout(this.#look, STALLED_MS);
    });
  };

  /** The first goes on; nobody waits behind it, and those who did run elsewhere. */
  #stall(first: LaneBatch): void {
    first.template.bar();
    this.#stalled = true;
    for (const batch of this.#batches.slice(1)) {
      const { reader } = batch;
      batch.reader = null;
      reader?.laneFailed();
    }
  }

  /** Said again and again, as long as nobody waits for the first. */
  #abandon(): void {
    if (this.#abandonedMs === 0) this.#cancelFirst();
    this.#abandonedMs += STALLED_MS;
    if (this.#abandonedMs >= CANCEL_PATIENCE_MS) this.#server.destroy();
  }

  sessionChanged(_tags: number, failed: boolean): void {
    this.#failed ||= failed;
  }

  clientNameOf(serverName: string): string | undefined {
    return this.#batches[0]?.reader?.clientNameOf(serverName);
  }

  setupDone(): void {
    // It runs none.
  }

  refused(): void {
    // It does not watch for it: the whole answer is looked at.
  }

  writable(): void {
    // What it takes is bounded: by the number of batches and their length.
  }
}

function sqlstateOf(reply: Buffer): string | undefined {
  for (let at = 0; at + HEADER_BYTES <= reply.length; at += 1 + reply.readUInt32BE(at + 1))
    if (reply[at] === BACKEND.errorResponse) return errorField(reply, at, at + 1 + reply.readUInt32BE(at + 1), 'C');
  return undefined;
}
