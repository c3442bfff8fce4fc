/**
 * One task: tell whether what a client has sent is one statement, whole, with nothing behind it, and what is known of its text.
 *
 * `Query`, or `Parse`? `Bind` `Describe`? `Execute` `Sync` of the unnamed portal to its end. Everything else, which is allowed just the
 * same, is not looked at here.
 */
import { FRONTEND } from '../../wire/codes.js';
import { HEADER_BYTES, type FrameScanner } from '../../wire/frames.js';
import {
  readBind,
  readExecuteLimit,
  readParse,
  readParseText,
  readParseTypes,
  readQuery,
} from '../../wire/frontend.js';
import { STATEMENTS_MAX, type ClientStatements } from '../client-statements.js';
import type { ReadTemplate, TemplateSearch } from './read-templates.js';

const BATCH_BYTES_MAX = 8_192;
/** OIDs of what a user has defined begin here (src/include/access/transam.h: FirstNormalObjectId). */
const OWN_OID_MIN = 16_384;
const PORTAL = 0x50;
const LOWER = 0x20;
const SELECT = Buffer.from('select');

const MESSAGES = { parse: 0, bind: 1, describe: 2, execute: 3, sync: 4 } as const;

/** What is known of the one statement that stands unread in the scanner; null: it is something else, or not shared. @throws FrameError */
export function readTemplateOf(
  scanner: FrameScanner,
  statements: ClientStatements,
  templates: TemplateSearch,
): ReadTemplate | null {
  const { buffer, position } = scanner;
  const bytes = buffer.length - position;
  if (scanner.awaitsRest || bytes < HEADER_BYTES || bytes > BATCH_BYTES_MAX) return null;
  if (buffer[position] === FRONTEND.query) return ofQuery(buffer, position, templates);
  const text = extendedText(buffer, position, statements);
  return text === null ? null : templates.of(text);
}

function ofQuery(buffer: Buffer, at: number, templates: TemplateSearch): ReadTemplate | null {
  const end = at + 1 + buffer.readUInt32BE(at + 1);
  if (end !== buffer.length || !beginsAsRead(buffer, at + HEADER_BYTES)) return null;
  return templates.ofQuery(buffer, at, end) ?? templates.of(readQuery(buffer, at, end));
}

function extendedText(buffer: Buffer, from: number, statements: ClientStatements): string | null {
  const type = buffer[from];
  if (type !== FRONTEND.parse && type !== FRONTEND.bind) return null;
  let parsed: Parsed | null = null;
  let text: string | null = null;
  let next: number = MESSAGES.parse;
  let at = from;
  while (at + HEADER_BYTES <= buffer.length) {
    const end = at + 1 + buffer.readUInt32BE(at + 1);
    if (end > buffer.length || end < at + HEADER_BYTES) return null;
    const place = placeOf(buffer[at] ?? 0);
    if (place < next) return null;
    next = place + 1;
    if (place === MESSAGES.parse) parsed = readParsed(buffer, at, end, statements);
    if (place === MESSAGES.parse && parsed === null) return null;
    if (place === MESSAGES.bind) text = boundText(buffer, at, end, statements, parsed);
    if (place > MESSAGES.parse && text === null) return null;
    if (place === MESSAGES.describe && (buffer[at + HEADER_BYTES] !== PORTAL || buffer[at + HEADER_BYTES + 1] !== 0))
      return null;
    if (place === MESSAGES.execute && (buffer[at + HEADER_BYTES] !== 0 || readExecuteLimit(buffer, at, end) !== 0))
      return null;
    if (place === MESSAGES.sync && (end !== buffer.length || end - at !== HEADER_BYTES)) return null;
    at = end;
  }
  return next > MESSAGES.sync && at === buffer.length ? text : null;
}

function placeOf(type: number): number {
  switch (type) {
    case FRONTEND.parse:
      return MESSAGES.parse;
    case FRONTEND.bind:
      return MESSAGES.bind;
    case FRONTEND.describe:
      return MESSAGES.describe;
    case FRONTEND.execute:
      return MESSAGES.execute;
    case FRONTEND.sync:
      return MESSAGES.sync;
    default:
      return -1;
  }
}

interface Parsed {
  readonly name: string;
  readonly text: string;
}

/** Null where the server has to say something to it, or where a type of somebody's own would be read. */
function readParsed(buffer: Buffer, at: number, end: number, statements: ClientStatements): Parsed | null {
  const { name, bodyAt } = readParse(buffer, at, end);
  if (name !== '' && (statements.get(name) !== undefined || statements.count >= STATEMENTS_MAX)) return null;
  if (!beginsAsRead(buffer, bodyAt) || hasOwnTypes(readParseTypes(buffer.subarray(bodyAt, end)))) return null;
  return { name, text: readParseText(buffer, bodyAt, end) };
}

function boundText(
  buffer: Buffer,
  at: number,
  end: number,
  statements: ClientStatements,
  parsed: Parsed | null,
): string | null {
  const { portalEnd, statementEnd } = readBind(buffer, at, end);
  if (portalEnd !== at + HEADER_BYTES) return null;
  const name = buffer.toString('utf8', portalEnd + 1, statementEnd);
  if (parsed?.name === name) return parsed.text;
  if (name === '') {
    const { unnamed } = statements;
    return unnamed === null || hasOwnTypes(readParseTypes(unnamed)) ? null : readParseText(unnamed, 0, unnamed.length);
  }
  const statement = statements.get(name);
  return statement === undefined || hasOwnTypes(statement.types) ? null : statement.text;
}

function hasOwnTypes(types: readonly number[]): boolean {
  return types.some((oid) => oid >= OWN_OID_MIN);
}

/** Most of what is none is told by its first letters. */
function beginsAsRead(buffer: Buffer, from: number): boolean {
  for (let index = 0; index < SELECT.length; index += 1)
    if (((buffer[from + index] ?? 0) | LOWER) !== SELECT[index]) return false;
  return true;
}
