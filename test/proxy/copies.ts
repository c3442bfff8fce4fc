/** One task: run COPY FROM STDIN by hand for tests, and write rows in each of its formats. */
import { cstring, errorField, frame, int16, int32, readCommandTag } from '../../src/wire/backend.js';
import { query } from '../../src/wire/frontend.js';
import type { RawClient } from './support.js';

export const DONE = frame('c');
export const data = (bytes: Buffer | string): Buffer => frame('d', Buffer.from(bytes));

/** What the server says in the end. */
export interface Copied {
  /** of the messages that came */
  readonly types: string;
  /** `COPY 3`; empty when it failed */
  readonly tag: string;
  /** SQLSTATE and message; null when it did not fail */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** Sends everything at once, as a client may, and takes the answers. */
export async function copyIn(client: RawClient, sql: string, chunks: readonly (Buffer | string)[]): Promise<Copied> {
  client.send(query(sql));
  for (const chunk of chunks) client.send(data(chunk));
  client.send(DONE);
  return copied(client);
}

/** Waits until a COPY has been answered. */
export async function copied(client: RawClient): Promise<Copied> {
  const messages = await client.until('Z');
  const failed = messages.find(({ type }) => type === 'E')?.bytes;
  const complete = messages.find(({ type }) => type === 'C')?.bytes;
  const field = (code: string): string => (failed && errorField(failed, 0, failed.length, code)) ?? '';
  return {
    types: client.types(messages),
    tag: complete === undefined ? '' : readCommandTag(complete, 0, complete.length),
    error: failed === undefined ? null : { code: field('C'), message: field('M') },
  };
}

export const copyFail = (reason: string): Buffer => frame('f', cstring(reason));

type Row = readonly (string | null)[];

export function textOf(rows: readonly Row[]): string {
  const escaped = (value: string): string =>
    value.replace(/[\\\n\r\t]/g, (found) => ({ '\n': '\\n', '\r': '\\r', '\t': '\\t' })[found] ?? `\\${found}`);
  return rows.map((row) => `${row.map((value) => (value === null ? '\\N' : escaped(value))).join('\t')}\n`).join('');
}

export function csvOf(rows: readonly Row[]): string {
  const quoted = (value: string): string => `"${value.replaceAll('"', '""')}"`;
  return rows.map((row) => `${row.map((value) => (value === null ? '' : quoted(value))).join(',')}\n`).join('');
}

export const BINARY_HEADER = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), int32(0), int32(0)]);
export const BINARY_TRAILER = int16(-1);

export function binaryOf(rows: readonly (readonly (Buffer | null)[])[]): Buffer {
  const tuples = rows.map((row) =>
    Buffer.concat([
      int16(row.length),
      ...row.flatMap((value) => (value === null ? [int32(-1)] : [int32(value.length), value])),
    ]),
  );
  return Buffer.concat([BINARY_HEADER, ...tuples, BINARY_TRAILER]);
}

/** The same bytes in pieces of so many. */
export function inPieces(bytes: Buffer | string, size: number): readonly Buffer[] {
  const whole = Buffer.from(bytes);
  return Array.from({ length: Math.ceil(whole.length / size) }, (_, at) => whole.subarray(at * size, (at + 1) * size));
}
