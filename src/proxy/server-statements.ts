/** One task: know which statements one server has prepared, and keep them below the limit. */
import { invariant } from '../errors/invariant.js';
import type { ReplyQueue, Undo } from './reply-queue.js';
import { Statement } from './statement-cache.js';

interface Prepared {
  readonly generation: number;
  /** what the server got in the place of the statement's text; null: that text */
  readonly as: string | null;
  /** the settings by which the server has read its text */
  meaning: string;
  used: boolean;
  /** since unused() looked last */
  usedLately: boolean;
  /** by the clock of unused() */
  seenUsedMs: number;
  /** the Syncs that had been sent before its Parse */
  readonly batch: number;
  /** its Parse was passed over */
  undone: boolean;
}

/** Statements are looked through ten times in the time after which one counts as unused: it is closed at most a tenth later. */
const LOOKS_PER_TTL = 10;
/** Closed by one text; the others come with the next look. */
const UNUSED_MAX = 100;
const UNKNOWN = 'unknown';
/** Of those added since the settings were known, most may be gone again: then all that are there count as such. */
const FRESH_PER_STATEMENT = 2;

export class ServerStatements {
  readonly #prepared = new Map<Statement, Prepared>();
  readonly #limit: number;
  readonly #replies: Pick<ReplyQueue, 'syncs' | 'syncsOwed'>;
  #meaning = '';
  #unknown = 0;
  #lookedAtMs = -Infinity;
  /** added since the settings were last known for sure */
  #fresh: Prepared[] = [];

  /**
   * @param limit statements one server may hold; at least 1
   * @param replies what the server owes
   */
  constructor(limit: number, replies: Pick<ReplyQueue, 'syncs' | 'syncsOwed'>) {
    this.#replies = replies;
    this.#limit = Math.max(1, limit);
  }

  get count(): number {
    return this.#prepared.size;
  }

  get all(): Iterable<Statement> {
    return this.#prepared.keys();
  }

  /**
   * The settings by which the server reads texts from here on: what it has prepared under others means what it meant then.
   *
   * @param meaning null: nobody knows them, nor those by which it has read what was added since they were known
   */
  readBy(meaning: string | null): void {
    if (meaning === null) {
      this.#unknown += 1;
      for (const prepared of this.#fresh) prepared.meaning = UNKNOWN;
    }
    if (this.#fresh.length > 0) this.#fresh = [];
    this.#meaning = meaning ?? `${UNKNOWN} ${this.#unknown.toString()}`;
  }

  /** True when the server has this statement as it is now, with the text that it would get now, and as the session's settings make it. */
  has(statement: Statement, as: string | null = null, own = false): boolean {
    const prepared = this.#prepared.get(statement);
    if (prepared?.generation !== statement.generation || prepared.as !== as) return false;
    if (prepared.meaning !== this.#meaning || (!own && this.#isUncertain(prepared))) return false;
    prepared.used = true;
    prepared.usedLately = true;
    return true;
  }

  /** Its Parse is under way in an earlier batch: an error there passes it over, and not what comes now. */
  #isUncertain({ batch }: Prepared): boolean {
    const { syncs, syncsOwed } = this.#replies;
    return batch < syncs && batch >= syncs - syncsOwed;
  }

  /** What must be closed before `statement` can be prepared: its outdated self, or the one not used for longest. */
  inTheWayOf(statement: Statement): Statement | null {
    if (this.#prepared.has(statement)) return statement;
    if (this.#prepared.size < this.#limit) return null;
    // Second chance: those used since the last look go to the end. Ends, since each is looked at twice at most.
    for (const [candidate, prepared] of this.#prepared) {
      if (!prepared.used) return candidate;
      prepared.used = false;
      this.#prepared.delete(candidate);
      this.#prepared.set(candidate, prepared);
    }
    invariant(false, 'a full set of statements has one to give up');
  }

  /**
   * Statements that nobody has used for `ttlMs`, at most a hundred; empty too where this was asked shortly before. Asking does not count as a use.
   *
   * @param nowMs of a clock that only goes forward
   */
  unused(ttlMs: number, nowMs: number): readonly Statement[] {
    if (nowMs - this.#lookedAtMs < ttlMs / LOOKS_PER_TTL) return [];
    this.#lookedAtMs = nowMs;
    const unused: Statement[] = [];
    for (const [statement, prepared] of this.#prepared) {
      if (prepared.usedLately) prepared.seenUsedMs = nowMs;
      prepared.usedLately = false;
      if (nowMs - prepared.seenUsedMs >= ttlMs && unused.length < UNUSED_MAX) unused.push(statement);
    }
    return unused;
  }

  /** Notes that a Parse is on its way. */
  added(statement: Statement, as: string | null = null): Undo {
    const { generation } = statement;
    const batch = this.#replies.syncs;
    const prepared = {
      generation,
      as,
      meaning: this.#meaning,
      used: true,
      batch,
      undone: false,
      usedLately: true,
      seenUsedMs: 0,
    };
    this.#prepared.set(statement, prepared);
    if (this.#fresh.length >= FRESH_PER_STATEMENT * this.#limit) this.#fresh = [...this.#prepared.values()];
    else this.#fresh.push(prepared);
    return {
      undo: () => {
        prepared.undone = true;
        if (this.#prepared.get(statement) === prepared) this.#prepared.delete(statement);
      },
    };
  }

  /** Notes that a Close is on its way. */
  closed(statement: Statement): Undo {
    const prepared = this.#prepared.get(statement);
    this.#prepared.delete(statement);
    return { undo: () => prepared?.undone === false && this.#prepared.set(statement, prepared) };
  }

  /**
   * A statement in use failed: the server lost it, or its result type is no longer what it was.
   *
   * @param use entry of the message that failed
   * @param everywhere other servers are concerned as well
   */
  failed(use: Undo | null, everywhere: boolean): void {
    if (!(use instanceof Statement)) return;
    if (everywhere) use.generation += 1;
    else this.#prepared.delete(use);
  }

  clear(): void {
    this.#prepared.clear();
  }
}
