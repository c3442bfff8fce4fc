/**
 * One task: keep, by text without its literals, whether a statement may be shared, and how long it and its answer were lately.
 *
 * A text is parsed when it comes for the second time: what is never sent again is not worth it.
 */
import type { StatementParser } from '../../sharding/statement-parser.js';
import { templateOf, type Template } from '../../sharding/statement-template.js';
import { KnownQueries } from '../known-queries.js';
import type { StatementCache } from '../statement-cache.js';
import { keyValueOf, type KeyValue } from './key-read.js';
import { KeyedQuery } from './keyed-query.js';
import type { ReadFacts } from './read-facts.js';
import { isShareable } from './read-verdict.js';

const TEMPLATES_MAX = 2_000;
/** A longer text is seldom answered in no time. */
const TEXT_MAX_LENGTH = 8_192;

/** To be shared for the first time, or again, it must have been answered alone in this time. */
const ALONE_MS_MAX = 5;
const ANSWER_BYTES_MAX = 16_384;
/** In a lane all others wait for it. */
const SHARED_MS_MAX = 1;
/** The estimate goes up by more than down, so that about three of four answers take no longer: a hiccup of the machine moves it little. */
const STEP_MS = 0.02;
const UP = 3;
const BARRED_MS = 1_000;

/** What is known of the statements that differ in their literals alone. */
export class ReadTemplate {
  /** null: it has come once */
  shareable: boolean | null = null;
  /** as a prepared statement it has the same plan; null: it is sent as it is */
  key: KeyValue | null = null;
  /** what its Query is sent as, where that is known */
  keyed: KeyedQuery | null = null;
  /** null: it has not been measured alone yet */
  #usualMs: number | null = null;
  #barredUntilMs = 0;

  /** What it is expected to take; null: it may not be shared now. */
  expectedMs(): number | null {
    return this.#usualMs;
  }

  /** It was answered on a server of its own. */
  answeredAlone(ms: number, bytes: number): void {
    if (bytes > ANSWER_BYTES_MAX) this.bar();
    else if (this.#usualMs === null && ms <= ALONE_MS_MAX && performance.now() > this.#barredUntilMs)
      this.#usualMs = Math.min(ms, SHARED_MS_MAX / 2);
  }

  /** It was answered in a lane. */
  answeredShared(ms: number, bytes: number): void {
    if (this.#usualMs === null) return;
    this.#usualMs = Math.max(STEP_MS, this.#usualMs + (ms > this.#usualMs ? UP : -1) * STEP_MS);
    if (this.#usualMs > SHARED_MS_MAX || bytes > ANSWER_BYTES_MAX) this.bar();
  }

  /** As a prepared statement it has failed, and nobody knows why: from now on it is sent as it is. */
  failedPrepared(): void {
    this.key = null;
    this.keyed = null;
  }

  /** It takes too long, or its answer too much room: for a while it runs alone, and is then measured anew. */
  bar(): void {
    this.#usualMs = null;
    this.#barredUntilMs = performance.now() + BARRED_MS;
  }
}

/** Finds the template of what is to be shared. */
export interface TemplateSearch {
  /** The template of a text; null: it is not shared. */
  of(sql: string): ReadTemplate | null;
  /** As {@link of}, of a Query that has come whole; undefined: its text must be read. */
  ofQuery(buffer: Buffer, at: number, end: number): ReadTemplate | undefined;
}

/** Those of one database, as long as its facts hold. */
export class ReadTemplates implements TemplateSearch {
  /** For who has asked before, and waits: a text that comes no second time is not taken for one that does. */
  readonly known: TemplateSearch = {
    of: (sql) => this.#known(sql),
    ofQuery: (buffer, at, end) => this.ofQuery(buffer, at, end),
  };
  readonly #templates = new Map<string, ReadTemplate>();
  readonly #parser: StatementParser;
  readonly #facts: ReadFacts;
  readonly #statements: StatementCache;
  readonly #queries = new KnownQueries<ReadTemplate>();
  /** by the bytes of the Query that was asked for last: `#queries` has its number */
  #found: ReadTemplate | null = null;

  constructor(parser: StatementParser, facts: ReadFacts, statements: StatementCache) {
    this.#parser = parser;
    this.#facts = facts;
    this.#statements = statements;
  }

  /** What the Query is sent as that was asked for last, with its key; null: as it is. */
  get keyed(): KeyedQuery | null {
    const keyed = this.#found?.keyed ?? null;
    keyed?.bind(this.#queries.number);
    return keyed;
  }

  of(sql: string): ReadTemplate | null {
    this.#found = null;
    const known = this.#templates.get(sql);
    const template = typeof known?.shareable === 'boolean' ? known : this.#byTemplate(sql);
    return template?.shareable === true ? template : null;
  }

  ofQuery(buffer: Buffer, at: number, end: number): ReadTemplate | undefined {
    this.#found = this.#queries.find(buffer, at, end, isAny);
    return this.#found ?? undefined;
  }

  #known(sql: string): ReadTemplate | null {
    this.#found = null;
    const known = this.#templates.get(sql) ?? this.#templates.get(templateOf(sql)?.text ?? sql);
    return known?.shareable === true ? known : null;
  }

  #byTemplate(sql: string): ReadTemplate | null {
    if (sql.length > TEXT_MAX_LENGTH) return null;
    const template = templateOf(sql);
    const key = template?.text ?? sql;
    const known = this.#templates.get(key);
    if (known === undefined) {
      this.#makeRoom();
      this.#templates.set(key, new ReadTemplate());
      return null;
    }
    if (known.shareable === null) this.#judge(sql, known);
    if (known.shareable && template !== null) this.#keep(template, known);
    return known;
  }

  #judge(sql: string, template: ReadTemplate): void {
    const statements = this.#parser.parse(sql);
    template.shareable = isShareable(statements, this.#facts);
    template.key = template.shareable ? keyValueOf(statements, this.#facts) : null;
  }

  /** The next one like it is known by its bytes. */
  #keep({ sql, kinds, starts, ends }: Template, known: ReadTemplate): void {
    const [start = 0, end = 0] = [starts[0], ends[0]];
    if (kinds.length !== 1 || kinds[0] !== 'integer') return;
    if (known.key === 'integer') known.keyed ??= new KeyedQuery(this.#statements, sql, start, end);
    this.#queries.keep(sql, start, end, known);
  }

  /** The oldest goes: what is sent all the time is back at once. */
  #makeRoom(): void {
    if (this.#templates.size < TEMPLATES_MAX) return;
    for (const key of this.#templates.keys()) {
      this.#templates.delete(key);
      return;
    }
  }
}

function isAny(): boolean {
  return true;
}
