/**
 * One task: tell where the batches of one session run whose database has replicas.
 *
 * Only what provably reads leaves the primary: one simple query, or one extended batch up to its Sync, in which every statement is a
 * plain read (plain-read.ts), and a transaction that begins READ ONLY. What a client asks for by a comment or by `pgdog.role` comes first.
 */
import type { ReadKind } from '../sharding/plain-read.js';
import type { FrameScanner } from '../wire/frames.js';
import type { ClientStatements } from './client-statements.js';
import { FirstStatement } from './first-statement.js';
import { placeOn, type Place } from './place.js';
import type { WantedRole } from './read-texts.js';
import type { ReplicaSet } from './replica-set.js';
import { setValue } from './session-hint.js';
import type { SessionSettings } from './settings.js';
import { StatementsAhead } from './statements-ahead.js';
import type { TrackedSettings } from './tracked-settings.js';

/** A longer batch is not read: it goes to the primary, message by message. */
const UNREAD_BYTES_MAX = 65_536;

const PRIMARY = 0;
const MORE: Place = { kind: 'more' };

/** What a session has set about where it runs. */
interface Preference {
  readonly role: WantedRole | null;
  /** its transactions cannot run on a standby */
  readonly serializable: boolean;
}

interface Batch {
  /** of its first statement, where all others are plain reads */
  readonly kind: ReadKind;
  readonly role: WantedRole | null;
  /** its only statement; empty where it has several */
  readonly text: string;
}

const OTHER: Batch = { kind: 'other', role: null, text: '' };
const preferences = new WeakMap<SessionSettings, Preference>();

export class ReadSplit {
  /** moves a transaction to a replica */
  readonly first: FirstStatement;
  readonly #statements: ClientStatements;
  readonly #settings: TrackedSettings;
  readonly #replicas: ReplicaSet;

  constructor(statements: ClientStatements, settings: TrackedSettings, replicas: ReplicaSet) {
    this.#statements = statements;
    this.#settings = settings;
    this.#replicas = replicas;
    this.first = new FirstStatement((scanner) => this.#inTransaction(scanner));
  }

  /** How many replicas there are, banned or not. */
  get size(): number {
    return this.#replicas.size;
  }

  /**
   * Where the next batch runs, when no transaction is open. The scanner, which stands at its first message, holds until the rest has come
   * where the answer is `more`.
   *
   * @throws FrameError
   */
  next(scanner: FrameScanner): Place {
    this.first.begins('');
    const preference = preferenceOf(this.#settings.current);
    if (preference.role === 'primary' || preference.serializable) return placeOn(PRIMARY);
    const batch = this.#ahead(scanner);
    if (batch === null) return MORE;
    const shard = this.#shardOf(batch, preference.role);
    const decides = batch.kind === 'begin' && this.#replicas.aggressive && !this.#replicas.prefersPrimary;
    if (shard === PRIMARY && decides && batch.role === null) this.first.begins(batch.text);
    return placeOn(shard);
  }

  #shardOf({ kind, role, text }: Batch, preferred: WantedRole | null): number {
    const wanted = role ?? preferred;
    if (wanted === 'primary' || kind === 'session') return PRIMARY;
    const beginsReads = kind === 'begin' && text === '' && this.#replicas.aggressive;
    const reads = kind === 'read' || kind === 'read-only' || beginsReads;
    if (wanted === null && (!reads || this.#replicas.prefersPrimary)) return PRIMARY;
    // What may write fails on every replica alike, and not only where chance has it.
    return this.#replicas.choose(!reads || this.#replicas.prefersPrimary);
  }

  #inTransaction(scanner: FrameScanner): number | null {
    const batch = this.#ahead(scanner);
    if (batch === null) return null;
    return batch.kind === 'read' && batch.role !== 'primary' ? this.#replicas.choose(false) : PRIMARY;
  }

  /** @returns null when the rest of the batch must come first */
  #ahead(scanner: FrameScanner): Batch | null {
    if (scanner.awaitsRest) return null;
    const ahead = new StatementsAhead(scanner.buffer.subarray(scanner.position), this.#statements);
    let batch: Batch | null = null;
    for (let next = ahead.next(); next !== null; next = ahead.next()) {
      const { kind, role } = this.#replicas.texts.of(next.text);
      if (batch === null) batch = { kind, role, text: next.text };
      else batch = { kind: kind === 'read' ? batch.kind : 'other', role: batch.role ?? role, text: '' };
    }
    if (ahead.rest === null) return batch === null ? OTHER : ahead.complete ? batch : { ...batch, kind: 'other' };
    const { cut, neededBytes } = ahead.rest;
    if ((cut ? neededBytes : scanner.unreadBytes) > UNREAD_BYTES_MAX) return OTHER;
    scanner.hold(neededBytes);
    return null;
  }
}

function preferenceOf(settings: SessionSettings): Preference {
  const known = preferences.get(settings);
  if (known !== undefined) return known;
  const role = setValue(settings.statements.get('pgdog.role'));
  const isolation = settings.statements.get('default_transaction_isolation') ?? '';
  const preference: Preference = {
    role: role === 'primary' || role === 'replica' ? role : null,
    serializable: /serializable/i.test(isolation),
  };
  preferences.set(settings, preference);
  return preference;
}
