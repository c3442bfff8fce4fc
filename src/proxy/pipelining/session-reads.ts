/**
 * One task: give the read that a session has sent to a lane of its pool, where that is allowed, and take the answer for it.
 *
 * Allowed is what leaves nothing behind and takes nothing from the session: see read-batch.ts and read-verdict.ts. What fails there through
 * no fault of its own stands in the session's scanner again and runs by itself. The session measures such a read whenever it runs by itself.
 */
import { CutoverError } from '../../errors/errors.js';
import { FrameError, type FrameScanner } from '../../wire/frames.js';
import type { BatchRecord } from '../batch-record.js';
import type { ClientStatements } from '../client-statements.js';
import type { Forwarder } from '../forwarder.js';
import type { Gate } from '../gate.js';
import type { Pool, SharedServer } from '../pool.js';
import type { ServerConnection } from '../server-connection.js';
import type { SessionContext } from '../session-context.js';
import type { SessionCounters } from '../session-counters.js';
import { SESSION_TAG } from '../session-tags.js';
import type { TrackedSettings } from '../tracked-settings.js';
import { Lane, type LaneBatch, type LaneReader } from './lane.js';
import type { PoolLanes } from './pool-lanes.js';
import { readTemplateOf } from './read-batch.js';
import type { ReadTemplate, TemplateSearch } from './read-templates.js';

/** What it uses of its session. */
interface ReadsSession {
  readonly user: string;
  readonly database: string;
  readonly counters: SessionCounters;
  readonly statements: ClientStatements;
  readonly channel: { readonly bytesSent: number };
  deliver(bytes: Buffer): void;
  /** The session goes on. @param failure the read is in the scanner again, and is to be answered with this */
  readDone(failure?: CutoverError): void;
}

interface Parts {
  readonly forwarder: Forwarder;
  readonly record: BatchRecord;
  readonly scanner: FrameScanner;
}

export class SessionReads implements LaneReader {
  readonly #session: ReadsSession;
  readonly #context: SessionContext;
  readonly #gate: Gate;
  readonly #settings: TrackedSettings;
  readonly #parts: Parts;
  #pool: Pool | null = null;
  #version = -1;
  #lanes: PoolLanes | null = null;
  #lane: Lane | null = null;
  #batch: LaneBatch | null = null;
  #alone = false;
  /** of a read that runs by itself */
  #measured: ReadTemplate | null = null;
  #sinceMs = 0;
  #sentBytes = 0;
  #schemaChanged = false;

  constructor(session: ReadsSession, context: SessionContext, settings: TrackedSettings, parts: Parts) {
    this.#session = session;
    this.#context = context;
    this.#gate = context.gate(session.database);
    this.#settings = settings;
    this.#parts = parts;
  }

  /** The batch ahead runs by itself: it has failed in a lane. */
  get alone(): boolean {
    return this.#alone;
  }

  /** 0: none */
  get serverPid(): number {
    return this.#lane?.server.processId ?? 0;
  }

  /**
   * Sends what stands in the scanner by a lane, where it is one read that may be shared.
   *
   * @returns false where it must run by itself
   */
  take(): boolean {
    return this.#take('all', (lanes) => lanes.laneFor(this.#settings.current));
  }

  /** As {@link take}, of a session that waits for a server: on the one that it has got, which others may join, or by a lane of others. */
  join(by: ServerConnection | SharedServer): boolean {
    const { current } = this.#settings;
    if ('hasRoom' in by)
      return by instanceof Lane && by.server.settings?.key === current.key && this.#take('known', () => by);
    const taken = this.#take('known', (lanes) => lanes.openOn(by, current));
    if (taken && this.#lane !== null) this.#pool?.invite(this.#lane);
    return taken;
  }

  #take(which: 'all' | 'known', laneOf: (lanes: PoolLanes) => Lane | null): boolean {
    this.#measured = null;
    if (this.#alone || this.#gate.closed) return false;
    const lanes = this.#currentLanes();
    if (lanes === null) return false;
    const templates = lanes.templates();
    const template = templates && this.#templateAhead(which === 'all' ? templates : templates.known);
    if (template === null) return false;
    const expectedMs = template.expectedMs();
    const lane = expectedMs === null ? null : laneOf(lanes);
    if (lane === null || expectedMs === null) {
      this.#measure(template);
      return false;
    }
    this.#parts.forwarder.keyed = templates?.keyed ?? null;
    this.#parts.forwarder.sharesUnnamed = template.key === 'parameter';
    this.#send(lane, { reader: this, template, expectedMs, prepared: false, cancelAsked: false });
    return true;
  }

  /** Null too where the client breaks a rule: it hears so when that is sent. */
  #templateAhead(templates: TemplateSearch): ReadTemplate | null {
    try {
      return readTemplateOf(this.#parts.scanner, this.#session.statements, templates);
    } catch (error) {
      if (error instanceof FrameError) return null;
      throw error;
    }
  }

  #send(lane: Lane, batch: LaneBatch): void {
    const { forwarder, record, scanner } = this.#parts;
    const { counters } = this.#session;
    this.#lane = lane;
    this.#batch = batch;
    counters.started();
    lane.take(batch, (server) => {
      for (const news of this.#settings.newsFrom(server)) this.#session.deliver(news);
      forwarder.forward(scanner, server, false, record.add);
      batch.prepared = forwarder.prepared;
      forwarder.keyed = null;
      forwarder.sharesUnnamed = forwarder.prepared = false;
      server.lastRequestAt = counters.requested(forwarder);
    });
    // A word in it means nothing: it leaves nothing behind.
    forwarder.mentionedState = false;
    forwarder.full = false;
  }

  /** Null: its reads are not shared. */
  #currentLanes(): PoolLanes | null {
    const { routes, pipelining } = this.#context;
    if (this.#version !== routes.version) {
      const { user, database } = this.#session;
      const pool = routes.poolOf(user, database);
      // The other modes have rules of their own for a session's server, and so have reads where there are replicas.
      const shares = routes.modeOf(user, database) === 'transaction' && routes.replicasOf(user, database) === null;
      this.#version = routes.version;
      this.#pool = pool;
      this.#lanes = pool === null || !shares ? null : pipelining.lanesOf(pool);
    }
    return this.#lanes;
  }

  // ---- by itself

  #measure(template: ReadTemplate): void {
    this.#measured = template;
    this.#sinceMs = performance.now();
    this.#sentBytes = this.#session.channel.bytesSent;
  }

  /** A batch that ran by itself has been answered. @param idle no transaction is open */
  settled(idle: boolean): void {
    const measured = this.#measured;
    this.#measured = null;
    this.#alone = false;
    measured?.answeredAlone(performance.now() - this.#sinceMs, this.#session.channel.bytesSent - this.#sentBytes);
    if (!this.#schemaChanged || !idle) return;
    this.#schemaChanged = false;
    this.#currentLanes()?.schemaChanged();
  }

  /** @param tags see {@link SESSION_TAG} */
  changed(tags: number): void {
    if ((tags & SESSION_TAG.schema) !== 0) this.#schemaChanged = true;
  }

  // ---- in a lane

  laneAnswered(reply: Buffer, failed: boolean): void {
    const { counters, statements } = this.#session;
    const { forwarder, record } = this.#parts;
    const pool = this.#pool;
    this.#left();
    statements.keep();
    record.clear();
    if (failed) counters.errors += 1;
    counters.answered(true, forwarder, pool);
    if (pool !== null) pool.counters.sharedReads += 1;
    this.#session.deliver(reply);
    this.#session.readDone();
  }

  laneFailed(): void {
    const { record, scanner } = this.#parts;
    const batch = record.bytes();
    const cancelled = this.#batch?.cancelAsked === true;
    this.#left();
    this.#session.statements.revert();
    this.#session.counters.takenBack();
    record.clear();
    scanner.unshift(batch);
    // It has told nobody anything: a read that was to stop has stopped.
    this.#alone = !cancelled;
    this.#session.readDone(cancelled ? new CutoverError('statement_cancelled') : undefined);
  }

  clientNameOf(serverName: string): string | undefined {
    return this.#session.statements.nameOf(serverName);
  }

  /** Has the statement stopped; nothing happens where none is under way. */
  cancel(): void {
    if (this.#batch !== null) this.#lane?.cancel(this.#batch);
  }

  /** Closes the connection where a read was to stop and has not. May be called again. */
  giveUp(): void {
    if (this.#batch !== null) this.#lane?.giveUp(this.#batch);
  }

  /** The session ends: nobody waits for the answer. May be called again. */
  leave(): void {
    if (this.#batch === null) return;
    this.#batch.reader = null;
    this.#left();
    this.#gate.released();
  }

  #left(): void {
    this.#batch = null;
    this.#lane = null;
  }
}
