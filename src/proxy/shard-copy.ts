/**
 * One task: run one COPY FROM STDIN on all shards, on all of them or on none: each row goes to the shard of its key, or to every shard.
 *
 * Stages (`#stage`):
 *   opening   a transaction is begun and the COPY started on one shard after the other
 *   data      the client has been told to send, and what it sends is passed on as far as every server takes it
 *   ending    the client has said the end, or a row cannot be placed; the servers are waited for
 *   closing   by the extended protocol: it has ended well, and the client's Sync commits it
 *   over      it is committed or rolled back, and nobody stops that
 *   skipping  by the extended protocol: it has failed, and what the client sends is thrown away up to its Sync
 * What is sent on is bounded: while one server does not take more, nothing is taken from the client.
 */
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { REFUSAL_TEXTS } from '../sharding/router-refusals.js';
import type { CopyKey } from '../sharding/statement-verdict.js';
import { BIND_COMPLETE, commandComplete, errorResponse, frame, NO_DATA, PARSE_COMPLETE } from '../wire/backend.js';
import { BACKEND, FRONTEND } from '../wire/codes.js';
import { HEADER_BYTES, type FrameScanner } from '../wire/frames.js';
import { copyRowsOf, type CopyFormat } from './copy-format.js';
import { placeOfKey } from './copy-key.js';
import type { CopyPiece, CopyRows } from './copy-rows.js';
import { REPLY } from './reply-queue.js';
import type { SessionSettings } from './settings.js';
import type { WriteListener, WriteOutcome } from './several-answer.js';
import { ServerError, type ShardPart } from './shard-part.js';
import { addedUp, LOCK_LIMIT, replyOf, type PartsClient, type StatementParts } from './shard-parts.js';
import { isAskedFor, type PartMessages, type WriteBatch } from './write-batch.js';

export interface CopyPlan {
  readonly kind: 'copy';
  readonly batch: WriteBatch;
  readonly messages: PartMessages;
  /** all of them, in the order of their numbers */
  readonly shards: readonly number[];
  /** null: every shard has all rows */
  readonly division: { readonly key: CopyKey; readonly format: CopyFormat } | null;
}

export interface CopyListener extends Pick<WriteListener, 'say' | 'started' | 'parsed' | 'failed'> {
  /** what the client has sent can be taken */
  readonly more: () => void;
}

const COPY_DONE = frame('c');
const COPY_FAIL = frame('f', Buffer.from('it failed on another shard\0'));
const LEFT = 'the client has left';
/** Outside of a COPY these say nothing (PostgreSQL documentation, 54.2.6). */
const IGNORED: ReadonlySet<number> = new Set([FRONTEND.copyData, FRONTEND.copyDone, FRONTEND.copyFail, FRONTEND.flush]);

export class ShardCopy {
  readonly #client: PartsClient;
  readonly #settings: SessionSettings;
  readonly #plan: CopyPlan;
  readonly #listener: CopyListener;
  readonly #parts: StatementParts;
  #stage: 'opening' | 'data' | 'ending' | 'closing' | 'over' | 'skipping' = 'opening';
  /** the client is still to send the Sync behind its COPY */
  #owesSync = false;
  /** of each part whose COPY has begun: it was answered */
  readonly #ends: Promise<void>[] = [];
  /** the servers that do not take more */
  readonly #full = new Set<ShardPart>();
  #committing = false;
  #rows: CopyRows | null = null;
  /** rows that were sent on */
  #rowCount = 0;
  /** ends the stage in which the client is read, with what is left to wait for */
  #finish: (last: Promise<unknown>) => void = () => undefined;

  constructor(
    client: PartsClient,
    parts: StatementParts,
    settings: SessionSettings,
    plan: CopyPlan,
    listener: CopyListener,
  ) {
    this.#client = client;
    this.#settings = settings;
    this.#plan = plan;
    this.#listener = listener;
    this.#parts = parts;
  }

  /** A server that waits for data would not notice: the proxy says what it would say. */
  cancel(): void {
    if (this.#stage === 'data' || this.#stage === 'closing') this.#fail(new ServerError(CANCELLED));
    else if (this.#stage !== 'over') for (const part of this.#parts.all) part.cancel();
  }

  /** Closes the connections of the servers that were to stop and have not; what is being committed is not stopped. */
  giveUp(): void {
    if (!this.#committing) for (const part of this.#parts.all) part.giveUp();
  }

  /** The client is gone: what it has not sent to the end is rolled back. */
  left(): void {
    if (this.#reads) this.#fail(new Error(LEFT));
  }

  /** Answers the client to the end, unless it is to run anew. Never rejects. */
  async run(): Promise<WriteOutcome> {
    let open = false;
    try {
      if (!(await this.#parts.borrow())) return 'anew';
      this.#listener.started();
      open = true;
      await this.#copy();
      const tag = commandComplete(this.#tag);
      if (this.#owesSync) {
        this.#listener.say(tag);
        await this.#read('closing');
      }
      open = false;
      this.#stage = 'over';
      this.#committing = true;
      await this.#parts.commit();
      this.#listener.say(this.#extended ? this.#parts.ready(true) : Buffer.concat([tag, this.#parts.ready(true)]));
      return 'committed';
    } catch (error) {
      this.#stage = 'over';
      if (open) await this.#parts.rollBack(this.#stop());
      const beginning = open && !this.#owesSync ? this.#beginning : [];
      this.#listener.say(Buffer.concat([...beginning, replyOf(error, this.#client.database)]));
      this.#listener.failed(error);
      await this.#skip();
      this.#listener.say(this.#parts.ready(false));
      return 'failed';
    } finally {
      this.#parts.release();
    }
  }

  async #copy(): Promise<void> {
    let response: Buffer | null = null;
    for (const part of this.#parts.all) response = await this.#open(part);
    if (this.#parts.left) throw new Error(LEFT);
    const { division } = this.#plan;
    if (division !== null) this.#rows = copyRowsOf(division.format, this.#versions);
    invariant(response, 'a COPY that has begun was answered');
    this.#listener.say(Buffer.concat([...this.#beginning, response]));
    this.#owesSync = this.#extended;
    const failed = new Promise<never>((_, reject) => {
      for (const end of this.#ends) end.catch(reject);
    });
    failed.catch(() => undefined);
    await Promise.race([this.#read('data'), failed]);
  }

  get #extended(): boolean {
    return this.#plan.batch.extended !== null;
  }

  /** What the client is told before it is told to send. */
  get #beginning(): readonly Buffer[] {
    const { batch } = this.#plan;
    if (batch.extended === null) return [];
    const parsed = isAskedFor(batch, 'parse');
    if (parsed) this.#listener.parsed();
    return [...(parsed ? [PARSE_COMPLETE] : []), BIND_COMPLETE, ...(isAskedFor(batch, 'describe') ? [NO_DATA] : [])];
  }

  /** What is the end of the rows depends on the version of the servers. */
  get #versions(): readonly string[] {
    return this.#parts.all.map(({ server }) => server?.parameters.get('server_version') ?? '');
  }

  /** @returns what the server answers when it waits for data */
  async #open(part: ShardPart): Promise<Buffer> {
    if (this.#plan.division?.key.rule.type === 'varchar' && part.server?.parameters.get('server_encoding') !== 'UTF8')
      throw this.#refusal('its key is a text, and the encoding of a shard is not UTF-8');
    await this.#parts.begin(part, this.#settings);
    await part.execute(LOCK_LIMIT);
    part.onWritable = () => {
      this.#full.delete(part);
      if (this.#full.size === 0 && this.#stage === 'data') this.#listener.more();
    };
    return new Promise((resolve, reject) => {
      const end = part.run(this.#plan.messages, (type, bytes) => {
        if (type === BACKEND.copyInResponse) resolve(Buffer.from(bytes));
        else if (type === BACKEND.noticeResponse) this.#listener.say(bytes);
      });
      this.#ends.push(end);
      end.then(() => {
        reject(new Error('the server did not ask for data'));
      }, reject);
    });
  }

  get #reads(): boolean {
    return this.#stage === 'data' || this.#stage === 'closing' || this.#stage === 'skipping';
  }

  /** Takes what the client sends until it has ended the stage. @throws what it ends with */
  async #read(stage: 'data' | 'closing' | 'skipping'): Promise<void> {
    await new Promise<unknown>((resolve) => {
      this.#finish = (last) => {
        // Where something else has failed before, nobody waits for it.
        last.catch(() => undefined);
        resolve(last);
      };
      this.#stage = stage;
      this.#listener.more();
    });
  }

  /** As PostgreSQL does it behind an error (PostgreSQL documentation, 54.2.3). */
  async #skip(): Promise<void> {
    if (!this.#owesSync) return;
    this.#parts.release();
    await this.#read('skipping').catch(() => undefined);
    this.#stage = 'over';
  }

  /** What is behind is read when this has been dealt with. */
  #fail(error: Error): void {
    this.#stage = 'over';
    this.#finish(Promise.reject(error));
  }

  /** Takes what the client has sent, as far as the servers take it. @throws CutoverError `protocol_violation` */
  feed(scanner: FrameScanner): void {
    while (this.#reads && (this.#full.size === 0 || this.#stage !== 'data') && scanner.peek()) {
      const { type, buffer, start, end, continued } = scanner;
      // What is behind is the session's to read.
      if (type === FRONTEND.terminate) {
        this.#fail(new Error(LEFT));
        return;
      }
      scanner.consume();
      if (this.#stage !== 'data') this.#afterwards(type);
      else if (type === FRONTEND.copyData) this.#take(buffer.subarray(continued ? start : start + HEADER_BYTES, end));
      else if (type === FRONTEND.copyDone) this.#done();
      else if (type === FRONTEND.copyFail) this.#end(Buffer.from(buffer.subarray(start, end)), this.#parts.all);
      else if (type !== FRONTEND.sync && type !== FRONTEND.flush)
        throw new CutoverError('protocol_violation', { problem: 'a message that is no part of the COPY under way' });
    }
  }

  /** Behind the rows, up to the Sync. */
  #afterwards(type: number): void {
    if (type === FRONTEND.sync) {
      this.#owesSync = false;
      this.#stage = 'over';
      this.#finish(Promise.resolve());
    } else if (this.#stage === 'closing' && !IGNORED.has(type))
      this.#fail(this.#refusal('more than a COPY before a Sync, which is not implemented on several shards'));
  }

  #take(chunk: Buffer): void {
    if (this.#rows !== null) this.#pass(this.#rows.push(chunk));
    else for (const part of this.#parts.all) this.#send(part, [chunk]);
  }

  #done(): void {
    if (this.#rows !== null) this.#pass(this.#rows.end());
    if (this.#stage === 'data') this.#end(COPY_DONE, this.#parts.all);
  }

  /** The last message of these servers. */
  #end(message: Buffer, parts: readonly ShardPart[], orElse?: Error): void {
    this.#stage = 'ending';
    for (const { server } of parts) {
      server?.replies.push(REPLY.copyEnd);
      server?.send(message);
    }
    const ends = Promise.all(this.#ends.filter((_, index) => parts.some((part) => part === this.#parts.all[index])));
    this.#finish(
      ends.then(() => {
        if (orElse !== undefined) throw orElse;
      }),
    );
  }

  /** Sends each piece where it belongs: for each server one message, whatever the number of its rows. */
  #pass(pieces: readonly CopyPiece[]): void {
    const forParts = this.#parts.all.map((): Buffer[] => []);
    let last: (() => void) | null = null;
    for (const piece of pieces) {
      if (piece.kind === 'all') for (const bytes of forParts) bytes.push(piece.bytes);
      else if (piece.kind === 'unreadable') last = this.#unreadable(piece.bytes, piece.problem);
      else last = this.#place(piece.bytes, piece.key, forParts);
      if (last !== null) break;
    }
    for (const [index, part] of this.#parts.all.entries()) {
      const bytes = forParts[index] ?? [];
      if (bytes.length > 0) this.#send(part, bytes);
    }
    last?.();
  }

  /** @returns what ends the COPY where the row has no place; null where it has one */
  #place(bytes: Buffer, field: Buffer | null, forParts: readonly Buffer[][]): (() => void) | null {
    const { division, shards } = this.#plan;
    invariant(division, 'rows are cut where they are divided');
    const place = placeOfKey(division.key, field, division.format.kind === 'binary', shards.length);
    if (place === 'unreadable') return this.#unreadable(bytes, 'its sharding key cannot be read');
    if (place === 'unmapped')
      return () => {
        this.#fail(this.#refusal(REFUSAL_TEXTS['key-unmapped']));
      };
    this.#rowCount += 1;
    forParts[place]?.push(bytes);
    return null;
  }

  /** A server says better what is wrong with a row. Where it finds nothing wrong nothing is committed either. */
  #unreadable(bytes: Buffer, problem: string): () => void {
    const row = (this.#rowCount + 1).toString();
    const error = new CutoverError('shards_not_committed', { problem: `row ${row} of the COPY: ${problem}` });
    return () => {
      const [first] = this.#parts.all;
      if (first === undefined || bytes.length === 0) this.#fail(error);
      else {
        this.#send(first, [bytes]);
        this.#end(COPY_DONE, [first], error);
      }
    };
  }

  #send(part: ShardPart, bytes: readonly Buffer[]): void {
    if (part.server?.send(frame('d', ...bytes)) === false) this.#full.add(part);
  }

  /** Ends the COPY where it still runs. */
  async #stop(): Promise<void> {
    for (const part of this.#parts.all) {
      const { server } = part;
      if (server?.replies.copyIn === true) {
        server.replies.push(REPLY.copyEnd);
        server.send(COPY_FAIL);
      } else part.cancel();
    }
    await Promise.allSettled(this.#ends);
  }

  get #tag(): string {
    const tags = this.#parts.all.map(({ tag }) => tag);
    return this.#plan.division === null ? (tags[0] ?? '') : addedUp(tags);
  }

  #refusal(reason: string): CutoverError {
    return new CutoverError('statement_not_routed', { database: this.#client.database, reason });
  }
}

const CANCELLED = errorResponse({
  severity: 'ERROR',
  sqlstate: '57014',
  message: 'canceling statement due to user request',
});
