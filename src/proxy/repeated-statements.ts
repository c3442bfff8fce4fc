/**
 * One task: tell by its bytes alone that a statement is one that was routed before, with another key at most, and to which shard it goes.
 *
 * Applications send the same few statements again and again. What is found here is not decoded, taken apart or looked up by its text. A
 * statement is kept when one value alone tells its shard: an integer in its text, or a parameter. All sessions of a database share what is
 * kept, for as long as its router stays.
 */
import { valueKey } from '../sharding/router-parameters.js';
import type { KeyedBy } from '../sharding/router-binding.js';
import { shardOf, shardOfNumber } from '../sharding/hash.js';
import type { TableRule } from '../sharding/scheme.js';
import { FRONTEND } from '../wire/codes.js';
import { HEADER_BYTES } from '../wire/frames.js';
import { readBind, readBoundValue, readParse, readParseTypes, type BindNames } from '../wire/frontend.js';
import type { ClientStatements } from './client-statements.js';
import { ANYWHERE, needOfShard, type Need } from './statement-need.js';
import { BYTES_MAX, endOf, isAt, KnownQueries, numberAt, Recent } from './known-queries.js';

/** What of it is the same each time. */
export interface Known {
  readonly text: string;
  /** the schemas that its names were looked for in, as {@link pathKey} gives them */
  readonly path: string;
  /** see `Need` */
  readonly everywhere: boolean;
}

/** What is kept, with what it needs on each shard, so that nothing is made anew for it. */
interface Kept extends Known {
  readonly needs: readonly Need[];
}

interface KnownQuery extends Kept {
  readonly rule: TableRule;
  /** the key is below it */
  readonly below: number;
}

interface KnownBind extends Kept {
  readonly by: Extract<KeyedBy, { kind: 'parameter' }>;
  /** text and types as they stand in a Parse behind the name; the same bytes elsewhere once a client has named them */
  body: Buffer;
  /** OID of the parameter; 0: the server infers it */
  readonly declared: number;
  /** a value in text is read as an integer */
  readonly integer: boolean;
}

/** Format of a value (PostgreSQL documentation, 55.7, Bind). */
const BINARY = 1;
const ONE = Buffer.from('1');

export function pathKey(path: readonly string[]): string {
  return path.join('\0');
}

export class RepeatedStatements {
  /** what the statement that was found last needs */
  need: Need = ANYWHERE;
  /** where its Query or Bind begins */
  start = 0;
  readonly #shards: number;
  readonly #queries = new KnownQueries<KnownQuery>();
  readonly #binds = new Recent<KnownBind>();

  /** @param shards of the database */
  constructor(shards: number) {
    this.#shards = shards;
  }

  /**
   * The statement that begins at `at`, where it is known and has come whole: `need` and `start` are its own then; null: it must be looked at.
   *
   * @param path of the session, as {@link pathKey} gives it
   * @throws FrameError
   */
  find(buffer: Buffer, at: number, statements: ClientStatements, path: string): Known | null {
    const end = endOf(buffer, at);
    if (end === 0) return null;
    switch (buffer[at]) {
      case FRONTEND.query:
        return this.#query(buffer, at, end, path);
      case FRONTEND.bind: {
        const names = readBind(buffer, at, end);
        const { portalEnd, statementEnd } = names;
        const unnamed = portalEnd + 1 === statementEnd;
        const body = unnamed
          ? statements.unnamed
          : (statements.named(buffer, portalEnd + 1, statementEnd)?.body ?? null);
        const known = body === null ? null : this.#prepared(body, 0, body.length, path);
        if (known === null) return null;
        // As long as a client has a name for it, the body stays.
        if (!unnamed && body !== null) known.body = body;
        return this.#bind(buffer, at, end, names, known);
      }
      case FRONTEND.parse:
        return this.#parse(buffer, at, end, path);
      default:
        return null;
    }
  }

  /** Keeps a Query. @param by where its key stands in the text */
  keepQuery(known: Known, by: Extract<KeyedBy, { kind: 'literal' }>): void {
    const below = by.limit === null ? Number.POSITIVE_INFINITY : Number(by.limit);
    this.#queries.keep(known.text, by.start, by.end, { ...this.#kept(known), rule: by.rule, below });
  }

  /** Keeps what a Parse of `body` prepares and a Bind has bound. */
  keepBind(known: Known, by: Extract<KeyedBy, { kind: 'parameter' }>, body: Buffer): void {
    if (body.length > BYTES_MAX) return;
    const declared = readParseTypes(body)[by.key.number - 1] ?? 0;
    const integer = typeof valueKey(by.key, declared, ONE, false, true) === 'bigint';
    this.#binds.add({ ...this.#kept(known), by, body: Buffer.from(body), declared, integer });
  }

  #query(buffer: Buffer, at: number, end: number, path: string): Known | null {
    const query = this.#queries.find(buffer, at, end, (kept) => kept.path === path);
    if (query === null) return null;
    const key = this.#queries.number;
    return key >= query.below ? null : this.#found(query, shardOfNumber(query.rule, key, this.#shards), at);
  }

  /** A Parse and the Bind of what it prepares. */
  #parse(buffer: Buffer, at: number, end: number, path: string): Known | null {
    const bindEnd = endOf(buffer, end);
    if (bindEnd === 0 || buffer[end] !== FRONTEND.bind) return null;
    const { bodyAt } = readParse(buffer, at, end);
    const nameAt = at + HEADER_BYTES;
    const names = readBind(buffer, end, bindEnd);
    const length = names.statementEnd - names.portalEnd - 1;
    if (length !== bodyAt - 1 - nameAt || !isSame(buffer, nameAt, names.portalEnd + 1, length)) return null;
    const known = this.#prepared(buffer, bodyAt, end, path);
    return known === null ? null : this.#bind(buffer, end, bindEnd, names, known);
  }

  /** What is kept of the statement whose text and types stand there. */
  #prepared(buffer: Buffer, from: number, to: number, path: string): KnownBind | null {
    return this.#binds.find((one) => one.path === path && isBody(one.body, buffer, from, to));
  }

  #bind(buffer: Buffer, at: number, end: number, names: BindNames, known: KnownBind): Known | null {
    if (names.portalEnd !== at + HEADER_BYTES) return null;
    const { rule, key } = known.by;
    const value = readBoundValue(buffer, names, end, key.number - 1);
    if (value === null) return null;
    const { format, from, to } = value;
    const number = known.integer && format !== BINARY ? numberAt(buffer, from, to) : -1;
    if (number >= 0) return this.#found(known, shardOfNumber(rule, number, this.#shards), at);
    const bytes = to < from ? null : buffer.subarray(from, to);
    const found = valueKey(key, known.declared, bytes, format === BINARY, true);
    return found === null || found === undefined ? null : this.#found(known, shardOf(rule, found, this.#shards), at);
  }

  #kept(known: Known): Kept {
    const { everywhere } = known;
    const needs = Array.from({ length: this.#shards }, (_, shard) => needOfShard(shard, everywhere));
    return { ...known, needs };
  }

  #found(kept: Kept, shard: number | null, start: number): Known | null {
    const need = shard === null ? undefined : kept.needs[shard];
    if (need === undefined) return null;
    this.need = need;
    this.start = start;
    return kept;
  }
}

function isBody(body: Buffer, buffer: Buffer, from: number, to: number): boolean {
  return body === buffer || (body.length === to - from && isAt(body, buffer, from));
}

function isSame(buffer: Buffer, one: number, other: number, length: number): boolean {
  for (let at = 0; at < length; at += 1) if (buffer[one + at] !== buffer[other + at]) return false;
  return true;
}
