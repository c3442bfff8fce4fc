/** One task: read a batch that runs one statement and nothing else, and make of it what one of several servers gets. */
import type { InsertPart } from '../sharding/router-split.js';
import {
  BIND_COMPLETE,
  CLOSE_COMPLETE,
  commandComplete,
  cstring,
  int32,
  NO_DATA,
  PARSE_COMPLETE,
  uint16,
} from '../wire/backend.js';
import { CLIENT_RULES, FRONTEND } from '../wire/codes.js';
import { FrameScanner } from '../wire/frames.js';
import {
  bind,
  DESCRIBE_PORTAL,
  EXECUTE,
  parse,
  query,
  readBind,
  readBoundValues,
  readExecuteLimit,
  readParse,
  readParseTypes,
  readTarget,
  SYNC,
  type BoundValues,
} from '../wire/frontend.js';
import type { ClientStatements } from './client-statements.js';
import { REPLY, type Reply } from './reply-queue.js';

export interface WriteBatch {
  /** of the client's messages, from the first to the last */
  readonly bytes: number;
  readonly extended: ExtendedBatch | null;
  /** the messages of a simple query as they came; empty for the extended protocol */
  readonly simple: Buffer;
}

interface ExtendedBatch {
  /** what a Parse in the batch names, and its text and types */
  readonly parsed: { readonly name: string; readonly body: Buffer } | null;
  /** text and types of the statement that is bound */
  readonly body: Buffer;
  readonly bound: BoundValues;
  readonly described: boolean;
  /** the portal is closed, which has an answer */
  readonly closed: boolean;
}

/** What a server gets, and the answers it owes for it. */
export interface PartMessages {
  readonly bytes: Buffer;
  readonly replies: readonly Reply[];
}

/**
 * @param unread begins where a message begins
 * @returns `more`: the end has not come; null: the batch is not one statement by itself
 * @throws FrameError
 */
export function readWriteBatch(unread: Buffer, statements: ClientStatements): WriteBatch | 'more' | null {
  const scanner = new FrameScanner(CLIENT_RULES);
  scanner.feed(unread);
  let parsed: ExtendedBatch['parsed'] = null;
  let body: Buffer | null = null;
  let bound: BoundValues | null = null;
  let described = false;
  let executed = false;
  let closed = false;
  while (scanner.peek()) {
    const { type, buffer, start, end, length } = scanner;
    if (end - start < length) return 'more';
    scanner.consume();
    if (type === FRONTEND.query)
      return start === 0 ? { bytes: end, extended: null, simple: buffer.subarray(start, end) } : null;
    if (type === FRONTEND.parse && parsed === null && bound === null) {
      const { name, bodyAt } = readParse(buffer, start, end);
      if (name !== '' && statements.get(name) !== undefined) return null;
      parsed = { name, body: buffer.subarray(bodyAt, end) };
    } else if (type === FRONTEND.bind && bound === null) {
      const names = readBind(buffer, start, end);
      const name = buffer.toString('utf8', names.portalEnd + 1, names.statementEnd);
      body =
        parsed?.name === name ? parsed.body : name === '' ? statements.unnamed : (statements.get(name)?.body ?? null);
      bound = readBoundValues(buffer, names, end);
    } else if (type === FRONTEND.describe && bound !== null && !executed && !described) {
      if (readTarget(buffer, start, end).kind !== PORTAL) return null;
      described = true;
    } else if (type === FRONTEND.execute && bound !== null && !executed) {
      if (readExecuteLimit(buffer, start, end) !== 0) return null;
      executed = true;
    } else if (type === FRONTEND.close && executed && !closed) {
      if (readTarget(buffer, start, end).kind !== PORTAL) return null;
      closed = true;
    } else if (type === FRONTEND.sync && executed && bound !== null && body !== null) {
      return { bytes: end, extended: { parsed, body, bound, described, closed }, simple: EMPTY };
    } else return null;
  }
  return 'more';
}

const EMPTY = Buffer.alloc(0);
const PORTAL = 0x50;

/** @param part of a statement whose rows belong to several servers; null: each gets the whole statement */
export function partMessages({ extended, simple }: WriteBatch, part: InsertPart | null): PartMessages {
  if (extended === null) return { bytes: part === null ? simple : query(part.sql), replies: [REPLY.query] };
  const { described } = extended;
  const { body, bound } = part === null ? extended : split(extended, part);
  const describe = described ? [DESCRIBE_PORTAL] : [];
  return {
    bytes: Buffer.concat([parse('', body), bind(bound), ...describe, EXECUTE, SYNC]),
    replies: [REPLY.parse, REPLY.bind, ...(described ? [REPLY.describe] : []), REPLY.execute, REPLY.sync],
  };
}

function split({ body, bound }: ExtendedBatch, { sql, parameters }: InsertPart): Pick<ExtendedBatch, 'body' | 'bound'> {
  const types = readParseTypes(body);
  const own = parameters.map((number) => types[number - 1] ?? 0);
  const { formats, values, resultFormats } = bound;
  return {
    body: Buffer.concat([cstring(sql), uint16(own.length), ...own.map((oid) => int32(oid | 0))]),
    bound: {
      values: parameters.map((number) => values[number - 1] ?? null),
      formats: formats.length <= 1 ? formats : parameters.map((number) => formats[number - 1] ?? 0),
      resultFormats,
    },
  };
}

/** The same batch with another text for the same parameters, whose result has that many more columns at its end, as texts. */
export function withText(batch: WriteBatch, sql: string, moreColumns: number): WriteBatch {
  const { extended } = batch;
  if (extended === null) return { ...batch, simple: query(sql) };
  const { body, bound } = extended;
  const types = body.subarray(body.indexOf(0) + 1);
  // One format stands for all columns, none for text; a text is the same in both.
  const count = bound.resultFormats.readUInt16BE(0);
  const resultFormats =
    count <= 1
      ? bound.resultFormats
      : Buffer.concat([uint16(count + moreColumns), bound.resultFormats.subarray(2), Buffer.alloc(2 * moreColumns)]);
  return {
    ...batch,
    extended: { ...extended, body: Buffer.concat([cstring(sql), types]), bound: { ...bound, resultFormats } },
  };
}

/** The whole answer to a command that gives no rows, up to ReadyForQuery. */
export function endMessages(batch: WriteBatch, tag: string): Buffer {
  const { extended } = batch;
  if (extended === null) return commandComplete(tag);
  const { parsed, described } = extended;
  const before = [parsed === null ? EMPTY : PARSE_COMPLETE, BIND_COMPLETE, described ? NO_DATA : EMPTY];
  return Buffer.concat([...before, commandComplete(tag), closing(batch)]);
}

/** What the client is told behind the tag of the command. */
export function closing({ extended }: WriteBatch): Buffer {
  return extended?.closed === true ? CLOSE_COMPLETE : EMPTY;
}

/** Whether the client waits for what a type of message says: only of one server, and only of what the client asked for. */
export function isAskedFor({ extended }: WriteBatch, answer: 'parse' | 'describe'): boolean {
  if (extended === null) return answer === 'describe';
  return answer === 'parse' ? extended.parsed !== null : extended.described;
}
