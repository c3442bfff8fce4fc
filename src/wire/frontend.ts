/**
 * One task: build and read the messages a client sends, as far as the proxy must name or rewrite what is in them.
 *
 * Contract: readers get the bounds of a frame (its whole, or of a streamed frame at least the first 64 KiB) and throw a
 * FrameError when a name does not end inside them. Rewriters copy the header and names only; the rest of a
 * frame stays where it is. Formats: PostgreSQL documentation, 54.7.
 */
import { Buffer } from 'node:buffer';
import { cstring, frame, int32, PROTOCOL_MAJOR, uint16 } from './backend.js';
import { FrameError, HEADER_BYTES } from './frames.js';

export const SYNC = frame('S');
export const TERMINATE = frame('X');
const CANCEL_REQUEST_CODE = 80877102;
/** Asks for TLS before the StartupMessage. */
export const SSL_REQUEST = Buffer.concat([int32(8), int32(80877103)]);

export function query(text: string): Buffer {
  return frame('Q', cstring(text));
}

export function passwordMessage(text: string): Buffer {
  return frame('p', cstring(text));
}

export function saslInitialResponse(mechanism: string, data: string): Buffer {
  const bytes = Buffer.from(data);
  return frame('p', cstring(mechanism), int32(bytes.length), bytes);
}

export function saslResponse(data: string): Buffer {
  return frame('p', Buffer.from(data));
}

/** Parse of a statement under `name`; `body` is what follows the name: text and parameter types. */
export function parse(name: string, body: Buffer): Buffer {
  return frame('P', cstring(name), body);
}

/** Close of a prepared statement. */
export function closeStatement(name: string): Buffer {
  return frame('C', Buffer.from('S'), cstring(name));
}

export function describeStatement(name: string): Buffer {
  return frame('D', Buffer.from('S'), cstring(name));
}

/** StartupMessage of protocol 3. */
export function startupMessage(parameters: Readonly<Record<string, string>>, minor = 0): Buffer {
  const pairs = Object.entries(parameters).flatMap(([name, value]) => [cstring(name), cstring(value)]);
  const body = Buffer.concat([int32(PROTOCOL_MAJOR + minor), ...pairs, Buffer.from([0])]);
  return Buffer.concat([int32(body.length + 4), body]);
}

export function cancelRequest(processId: number, secret: Buffer): Buffer {
  return Buffer.concat([int32(12 + secret.length), int32(CANCEL_REQUEST_CODE), int32(processId), secret]);
}

const NAME_BYTES = 32;

/** Index of the zero byte that ends the string at `at`. */
function endOfString(buffer: Buffer, at: number, end: number): number {
  // Names are short, and many are empty: asking the runtime takes longer than looking.
  const near = Math.min(end, at + NAME_BYTES);
  for (let byte = at; byte < near; byte += 1) if (buffer[byte] === 0) return byte;
  const zero = buffer.indexOf(0, near);
  if (zero < 0 || zero >= end) throw new FrameError('a name in a message has no end');
  return zero;
}

function nameIn(buffer: Buffer, start: number, end: number): string {
  return start === end ? '' : buffer.toString('utf8', start, end);
}

/** The statement name of a Parse and where its text begins. */
export function readParse(buffer: Buffer, start: number, end: number): { name: string; bodyAt: number } {
  const zero = endOfString(buffer, start + HEADER_BYTES, end);
  return { name: nameIn(buffer, start + HEADER_BYTES, zero), bodyAt: zero + 1 };
}

/** The SQL text of a Parse whose name is known to end before `bodyAt`. */
export function readParseText(buffer: Buffer, bodyAt: number, end: number): string {
  return buffer.toString('utf8', bodyAt, endOfString(buffer, bodyAt, end));
}

/** The SQL text of a Query that has arrived whole. */
export function readQuery(buffer: Buffer, start: number, end: number): string {
  return buffer.toString('utf8', start + HEADER_BYTES, endOfString(buffer, start + HEADER_BYTES, end));
}

export interface BindNames {
  readonly portalEnd: number;
  readonly statementEnd: number;
}

/** Where the portal name and the statement name of a Bind end. */
export function readBind(buffer: Buffer, start: number, end: number): BindNames {
  const portalEnd = endOfString(buffer, start + HEADER_BYTES, end);
  return { portalEnd, statementEnd: endOfString(buffer, portalEnd + 1, end) };
}

/** The beginning of a Bind with another statement name; what follows `statementEnd` is to be sent after it unchanged. */
export function rebindHead(buffer: Buffer, start: number, length: number, names: BindNames, statement: string): Buffer {
  const name = Buffer.from(statement);
  const growth = name.length - (names.statementEnd - names.portalEnd - 1);
  const head = Buffer.allocUnsafe(names.portalEnd + 1 - start + name.length);
  buffer.copy(head, 0, start, names.portalEnd + 1);
  name.copy(head, names.portalEnd + 1 - start);
  head.writeUInt32BE(length - 1 + growth, 1);
  return head;
}

/** Bind of the unnamed statement to the unnamed portal. */
export function bind({ formats, values, resultFormats }: BoundValues): Buffer {
  const bytes = values.flatMap((value) => (value === null ? [int32(-1)] : [int32(value.length), value]));
  const head = [cstring(''), cstring(''), uint16(formats.length), ...formats.map(uint16), uint16(values.length)];
  return frame('B', ...head, ...bytes, resultFormats);
}

export const DESCRIBE_PORTAL = frame('D', Buffer.from('P'), cstring(''));
/** Execute of the unnamed portal, to its end. */
export const EXECUTE = frame('E', cstring(''), int32(0));

/** Bind of the unnamed statement, which takes no parameters, to a portal. */
export function bindUnnamed(portal: string): Buffer {
  return frame('B', cstring(portal), cstring(''), Buffer.alloc(6));
}

/** The parameter types that follow the text of a statement's body: OIDs, 0 where the server shall infer one. */
export function readParseTypes(body: Buffer): readonly number[] {
  const at = endOfString(body, 0, body.length) + 1;
  const types: number[] = [];
  for (let left = countAt(body, at, body.length, 4), from = at + 2; left > 0; left -= 1, from += 4)
    types.push(body.readUInt32BE(from));
  return types;
}

export interface BoundValues {
  readonly formats: readonly number[];
  readonly values: readonly (Buffer | null)[];
  /** count and format codes of the result's columns, as they stand in the message */
  readonly resultFormats: Buffer;
}

/** Formats and values of a Bind that has arrived whole; views, not copies. */
export function readBoundValues(buffer: Buffer, names: BindNames, end: number): BoundValues {
  const formatsAt = names.statementEnd + 1;
  const formats: number[] = [];
  let at = formatsAt + 2;
  for (let left = countAt(buffer, formatsAt, end, 2); left > 0; left -= 1, at += 2)
    formats.push(buffer.readUInt16BE(at));
  const values: (Buffer | null)[] = [];
  let left = countAt(buffer, at, end, 4);
  at += 2;
  for (; left > 0; left -= 1) {
    const bytes = at + 4 <= end ? buffer.readInt32BE(at) : Number.POSITIVE_INFINITY;
    const from = at + 4;
    at = from + Math.max(0, bytes);
    if (at > end) throw new FrameError('a value in a Bind has no end');
    values.push(bytes < 0 ? null : buffer.subarray(from, at));
  }
  return { formats, values, resultFormats: buffer.subarray(at, end) };
}

export interface ValuePlace {
  /** 0 text, 1 binary */
  readonly format: number;
  readonly from: number;
  /** below `from` where the value is NULL */
  readonly to: number;
}

/** Where the value of a parameter stands in a Bind that has arrived whole; null: it has fewer. @param index of the parameter, from 0 */
export function readBoundValue(buffer: Buffer, names: BindNames, end: number, index: number): ValuePlace | null {
  const formatsAt = names.statementEnd + 1;
  const formats = countAt(buffer, formatsAt, end, 2);
  const valuesAt = formatsAt + 2 + 2 * formats;
  if (index >= countAt(buffer, valuesAt, end, 4)) return null;
  const formatAt = formatsAt + 2 + 2 * (formats === 1 ? 0 : index);
  const format = formats === 1 || index < formats ? buffer.readUInt16BE(formatAt) : 0;
  for (let before = index, at = valuesAt + 2; ; before -= 1) {
    const bytes = at + 4 <= end ? buffer.readInt32BE(at) : Number.POSITIVE_INFINITY;
    const from = at + 4;
    at = from + Math.max(0, bytes);
    if (at > end) throw new FrameError('a value in a Bind has no end');
    if (before === 0) return { format, from, to: bytes < 0 ? -1 : at };
  }
}

/** How many things a count of two bytes announces, each of at least `bytes` bytes. */
function countAt(buffer: Buffer, at: number, end: number, bytes: number): number {
  const count = at + 2 <= end ? buffer.readUInt16BE(at) : Number.POSITIVE_INFINITY;
  if (at + 2 + count * bytes > end) throw new FrameError('a count in a message is larger than the message');
  return count;
}

export interface Target {
  /** 0x53 `S` for a statement, 0x50 `P` for a portal */
  readonly kind: number;
  readonly name: string;
}

/** What a Describe or a Close is about. */
export function readTarget(buffer: Buffer, start: number, end: number): Target {
  const at = start + HEADER_BYTES;
  if (at + 1 >= end) throw new FrameError('a Describe or Close without a name');
  return { kind: buffer[at] ?? 0, name: nameIn(buffer, at + 1, endOfString(buffer, at + 1, end)) };
}

/** The row limit of an Execute; 0: none. */
export function readExecuteLimit(buffer: Buffer, start: number, end: number): number {
  const at = endOfString(buffer, start + HEADER_BYTES, end) + 1;
  if (at + 4 > end) throw new FrameError('an Execute without a limit');
  return buffer.readUInt32BE(at);
}

/** The portal name of an Execute. */
export function readExecute(buffer: Buffer, start: number, end: number): string {
  return buffer.toString('utf8', start + HEADER_BYTES, endOfString(buffer, start + HEADER_BYTES, end));
}
