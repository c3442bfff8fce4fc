/**
 * One task: build and read the messages a server sends, as far as pg-protocol does not.
 *
 * Contract: builders return one complete frame; texts are UTF-8; nothing here keeps state. Readers get the bounds of one whole
 * frame, never read beyond them, and answer undefined where a field is absent.
 * Formats: PostgreSQL documentation, 54.7 (messages) and 54.8 (error fields).
 */
import type { CutoverError } from '../errors/errors.js';
import { HEADER_BYTES } from './frames.js';

/** Version 3.0 as the protocol writes it; a minor version is added to it. */
export const PROTOCOL_MAJOR = 0x0003_0000;

/** One frame from a type byte and the parts of its body. */
export function frame(type: string, ...parts: readonly Buffer[]): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header.write(type, 0, 'latin1');
  const bodyBytes = parts.reduce((sum, part) => sum + part.length, 0);
  header.writeUInt32BE(bodyBytes + 4, 1);
  return Buffer.concat([header, ...parts], HEADER_BYTES + bodyBytes);
}

export function cstring(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'utf8');
}

export function int16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeInt16BE(value);
  return bytes;
}

/** A count of two bytes, as of parameters: up to 65,535. */
export function uint16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function int32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeInt32BE(value);
  return bytes;
}

export const PARSE_COMPLETE = frame('1');
export const CLOSE_COMPLETE = frame('3');
export const BIND_COMPLETE = frame('2');
export const NO_DATA = frame('n');
export const READY_IDLE = frame('Z', Buffer.from('I'));
export const READY_IN_TRANSACTION = frame('Z', Buffer.from('T'));
export const READY_FAILED = frame('Z', Buffer.from('E'));
export const AUTHENTICATION_OK = frame('R', int32(0));
export const AUTHENTICATION_CLEARTEXT = frame('R', int32(3));

export function authenticationMd5(salt: Buffer): Buffer {
  return frame('R', int32(5), salt);
}

/** AuthenticationSASL: the list of mechanisms offered. */
export function authenticationSasl(mechanisms: readonly string[]): Buffer {
  return frame('R', int32(10), ...mechanisms.map(cstring), Buffer.from([0]));
}

export function authenticationSaslContinue(data: string): Buffer {
  return frame('R', int32(11), Buffer.from(data));
}

export function authenticationSaslFinal(data: string): Buffer {
  return frame('R', int32(12), Buffer.from(data));
}

export function parameterStatus(name: string, value: string): Buffer {
  return frame('S', cstring(name), cstring(value));
}

export function backendKeyData(processId: number, secret: Buffer): Buffer {
  return frame('K', int32(processId), secret);
}

/**
 * NegotiateProtocolVersion: the version to go on with and the options not understood.
 *
 * The documentation calls the first field a minor version; PostgreSQL sends the whole version, and libpq refuses what is below 3.0.
 */
export function negotiateProtocolVersion(minor: number, options: readonly string[]): Buffer {
  return frame('v', int32(PROTOCOL_MAJOR + minor), int32(options.length), ...options.map(cstring));
}

/** True when a NegotiateProtocolVersion answers what was asked for: protocol 3, no newer than `minor`, no option left out. */
export function negotiatedDownTo(bytes: Buffer, minor: number): boolean {
  if (bytes.length < HEADER_BYTES + 8) return false;
  const offered = bytes.readUInt32BE(HEADER_BYTES);
  return offered >= PROTOCOL_MAJOR && offered <= PROTOCOL_MAJOR + minor && bytes.readInt32BE(HEADER_BYTES + 4) === 0;
}

export interface ErrorText {
  readonly severity: 'ERROR' | 'FATAL' | 'NOTICE';
  readonly sqlstate: string;
  readonly message: string;
  readonly hint?: string;
}

/** ErrorResponse, or NoticeResponse when the severity is NOTICE. */
export function errorResponse(error: ErrorText): Buffer {
  const field = (code: string, text: string): Buffer => cstring(code + text.replaceAll('\0', ''));
  const fields = [
    field('S', error.severity),
    field('V', error.severity),
    field('C', error.sqlstate),
    field('M', error.message),
  ];
  if (error.hint !== undefined && error.hint !== '') fields.push(field('H', error.hint));
  return frame(error.severity === 'NOTICE' ? 'N' : 'E', ...fields, Buffer.from([0]));
}

/** The ErrorResponse of an error of the table, with its remedy as the hint. */
export function errorResponseOf(error: CutoverError, severity: 'ERROR' | 'FATAL'): Buffer {
  return errorResponse({ severity, sqlstate: error.sqlstate, message: error.message, hint: error.remedy });
}

export interface ColumnDescription {
  readonly name: string;
  readonly typeOid: number;
  /** bytes of a fixed-size type, -1 for others */
  readonly typeBytes: number;
}

/** RowDescription of columns in text format that belong to no table. */
export function rowDescription(columns: readonly ColumnDescription[]): Buffer {
  const parts = columns.flatMap((column) => [
    cstring(column.name),
    int32(0),
    int16(0),
    int32(column.typeOid),
    int16(column.typeBytes),
    int32(-1),
    int16(0),
  ]);
  return frame('T', int16(columns.length), ...parts);
}

/** DataRow in text format; null is SQL NULL. */
export function dataRow(values: readonly (string | null)[]): Buffer {
  const parts = values.flatMap((value) => {
    if (value === null) return [int32(-1)];
    const bytes = Buffer.from(value);
    return [int32(bytes.length), bytes];
  });
  return frame('D', int16(values.length), ...parts);
}

export function commandComplete(tag: string): Buffer {
  return frame('C', cstring(tag));
}

/** Value of one field of an ErrorResponse or NoticeResponse; `C` is the SQLSTATE, `M` the message. */
export function errorField(buffer: Buffer, start: number, end: number, code: string): string | undefined {
  const wanted = code.charCodeAt(0);
  let at = start + HEADER_BYTES;
  while (at < end && buffer[at] !== 0) {
    const zero = buffer.indexOf(0, at + 1);
    if (zero < 0 || zero >= end) return undefined;
    if (buffer[at] === wanted) return buffer.toString('utf8', at + 1, zero);
    at = zero + 1;
  }
  return undefined;
}

/** The same ErrorResponse with `from` replaced by `to` in every text field. */
export function renameInError(message: Buffer, from: string, to: string): Buffer {
  const body = message.toString('utf8', HEADER_BYTES).replaceAll(from, to);
  return frame('E', Buffer.from(body));
}

/** The same ErrorResponse without the place in the statement's text that it points to. */
export function withoutPosition(message: Buffer): Buffer {
  const fields = message.toString('latin1', HEADER_BYTES).split('\0');
  return frame('E', Buffer.from(fields.filter((field) => !field.startsWith('P')).join('\0'), 'latin1'));
}

/** Name and value of a ParameterStatus. */
export function readParameterStatus(buffer: Buffer, start: number, end: number): { name: string; value: string } {
  const [name = '', value = ''] = buffer.toString('utf8', start + HEADER_BYTES, end).split('\0');
  return { name, value };
}

/** Tag of a CommandComplete. */
export function readCommandTag(buffer: Buffer, start: number, end: number): string {
  return buffer.toString('latin1', start + HEADER_BYTES, end - 1);
}
