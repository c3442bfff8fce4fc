/**
 * One task: tell by its bytes alone that a statement is one that was routed before, with another key at most, and to which shard it goes.
 *
 * Applications send the same few statements again and again. What is found here is not decoded, taken apart or looked up by its text. A
 * statement is kept when one value alone tells its shard: an integer in its text, or a parameter. All sessions of a database share what is
 * kept, for as long as its router stays.
 */
import { parameterKey } from '../sharding/router-parameters.js';
import type { KeyedBy } from '../sharding/router-binding.js';
import { shardOf } from '../sharding/hash.js';
import type { KeyValue, TableRule } from '../sharding/scheme.js';
import { FRONTEND } from '../wire/codes.js';
import { HEADER_BYTES } from '../wire/frames.js';
import { readBind, readBoundValues, readParse, readParseTypes } from '../wire/frontend.js';
import type { ClientStatements } from './client-statements.js';
import { BYTES_MAX, endOf, isAt, KnownQueries, Recent } from './known-queries.js';

/** What of it is the same each time. */
export interface Known {
  readonly text: string;
  /** the schemas that its names were looked for in, as {@link pathKey} gives them */
  readonly path: string;
  /** see `Need` */
  readonly everywhere: boolean;
}

interface KnownQuery extends Known {
  readonly rule: TableRule;
  /** the key is below it */
  readonly below: number;
}

interface KnownBind extends Known {
  readonly by: Extract<KeyedBy, { kind: 'parameter' }>;
  /** text and types as they stand in a Parse behind the name */
  readonly body: Buffer;
  readonly types: readonly number[];
}

export interface Repeated {
  readonly known: Known;
  readonly shard: number;
  /** where its Query or Bind begins */
  readonly start: number;
}

export function pathKey(path: readonly string[]): string {
  return path.join('\0');
}

export class RepeatedStatements {
  readonly #shards: number;
  readonly #queries = new KnownQueries<KnownQuery>();
  readonly #binds = new Recent<KnownBind>();

  /** @param shards of the database */
  constructor(shards: number) {
    this.#shards = shards;
  }

  /**
   * The statement that begins at `at`, where it is known and has come whole; null: it must be looked at.
   *
   * @param path of the session, as {@link pathKey} gives it
   * @throws FrameError
   */
  find(buffer: Buffer, at: number, statements: ClientStatements, path: string): Repeated | null {
    const end = endOf(buffer, at);
    if (end === 0) return null;
    switch (buffer[at]) {
      case FRONTEND.query:
        return this.#query(buffer, at, end, path);
      case FRONTEND.bind:
        return this.#bind(buffer, at, end, path, (from, to) =>
          from === to ? statements.unnamed : (statements.named(buffer, from, to)?.body ?? null),
        );
      case FRONTEND.parse:
        return this.#parse(buffer, at, end, path);
      default:
        return null;
    }
  }

  /** Keeps a Query. @param by where its key stands in the text */
  keepQuery(known: Known, by: Extract<KeyedBy, { kind: 'literal' }>): void {
    const below = by.limit === null ? Number.POSITIVE_INFINITY : Number(by.limit);
    this.#queries.keep(known.text, by.start, by.end, { ...known, rule: by.rule, below });
  }

  /** Keeps what a Parse of `body` prepares and a Bind has bound. */
  keepBind(known: Known, by: Extract<KeyedBy, { kind: 'parameter' }>, body: Buffer): void {
    if (body.length > BYTES_MAX) return;
    this.#binds.add({ ...known, by, body: Buffer.from(body), types: readParseTypes(body) });
  }

  #query(buffer: Buffer, at: number, end: number, path: string): Repeated | null {
    const query = this.#queries.find(buffer, at, end, (kept) => kept.path === path);
    if (query === null) return null;
    const key = this.#queries.number;
    return key >= query.below ? null : this.#repeated(query, query.rule, BigInt(key), at);
  }

  /** A Parse and the Bind of what it prepares. */
  #parse(buffer: Buffer, at: number, end: number, path: string): Repeated | null {
    const bindEnd = endOf(buffer, end);
    if (bindEnd === 0 || buffer[end] !== FRONTEND.bind) return null;
    const { bodyAt } = readParse(buffer, at, end);
    const nameAt = at + HEADER_BYTES;
    return this.#bind(buffer, end, bindEnd, path, (from, to) => {
      const isIt = to - from === bodyAt - 1 - nameAt && isSame(buffer, nameAt, from, to - from);
      return isIt ? buffer.subarray(bodyAt, end) : null;
    });
  }

  /** @param bodyOf of the statement whose name stands there; null: it is not known */
  #bind(
    buffer: Buffer,
    at: number,
    end: number,
    path: string,
    bodyOf: (from: number, to: number) => Buffer | null,
  ): Repeated | null {
    const names = readBind(buffer, at, end);
    if (names.portalEnd !== at + HEADER_BYTES) return null;
    const body = bodyOf(names.portalEnd + 1, names.statementEnd);
    if (body === null) return null;
    const known = this.#binds.find(
      (one) => one.path === path && one.body.length === body.length && isAt(one.body, body, 0),
    );
    if (known === null) return null;
    const { formats, values } = readBoundValues(buffer, names, end);
    const key = parameterKey(known.by.key, { formats, values, types: known.types, utf8: true });
    return key === null || key === undefined ? null : this.#repeated(known, known.by.rule, key, at);
  }

  #repeated(known: Known, rule: TableRule, key: KeyValue, start: number): Repeated | null {
    const shard = shardOf(rule, key, this.#shards);
    return shard === null ? null : { known, shard, start };
  }
}

function isSame(buffer: Buffer, one: number, other: number, length: number): boolean {
  for (let at = 0; at < length; at += 1) if (buffer[one + at] !== buffer[other + at]) return false;
  return true;
}
