/** One task: send a step to one server in a form of the protocol, and read the answer in a form that can be compared. */
import { errorField, readCommandTag, cstring, frame, int32, uint16 } from '../../src/wire/backend.js';
import { bind, DESCRIBE_PORTAL, describeStatement, EXECUTE, parse, query, SYNC } from '../../src/wire/frontend.js';
import { copyFail, data, DONE } from '../proxy/copies.js';
import type { Message, RawClient } from '../proxy/support.js';
import type { Form } from './unit.js';

/** A step as it is sent: the same bytes to each server. */
export interface Sent {
  readonly form: Form | 'copy';
  readonly text: string;
  readonly values: readonly (Buffer | null)[];
  readonly formats: readonly number[];
  readonly types: readonly number[];
  readonly binaryRows: boolean;
  /** a Parse with a Describe of its own before the rest, as many drivers do */
  readonly apart: boolean;
  readonly pieces: readonly Buffer[] | null;
  readonly ordered: boolean;
}

export interface Answer {
  /** what came, in order: compared as a whole */
  readonly lines: readonly string[];
  /** a Parse was good: told apart, for a proxy may know that before the server is asked */
  readonly parsed: boolean;
  /** I, T or E: PostgreSQL documentation, 54.7, ReadyForQuery */
  readonly status: string;
  /** SQLSTATE and message of the first error */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** One connection, with what it has prepared. */
export class Exchange {
  readonly #client: RawClient;
  readonly #prepared = new Map<string, string>();

  constructor(client: RawClient) {
    this.#client = client;
  }

  async run(text: string): Promise<Answer> {
    this.#client.send(query(text));
    return read(await this.#client.until('Z'), true);
  }

  async send(sent: Sent): Promise<Answer> {
    switch (sent.form) {
      case 'simple':
        return read(await this.#answers(query(sent.text)), sent.ordered);
      case 'copy': {
        const pieces = sent.pieces === null ? [copyFail('no more')] : [...sent.pieces.map(data), DONE];
        return read(await this.#answers(query(sent.text), ...pieces), true);
      }
      case 'extended':
        if (sent.apart) return this.#described(sent, '');
        return read(await this.#answers(parse('', bodyOf(sent)), ...bound(sent, '')), sent.ordered);
      case 'prepared':
        return this.#named(sent);
    }
  }

  /** Prepares what the other side has prepared before it refused to run it: later both are asked alike. */
  async learn(sent: Sent): Promise<void> {
    const key = keyOf(sent);
    if (sent.form !== 'prepared' || this.#prepared.has(key)) return;
    const name = `s${this.#prepared.size.toString()}`;
    if (read(await this.#answers(parse(name, bodyOf(sent)), SYNC), true).parsed) this.#prepared.set(key, name);
  }

  async #named(sent: Sent): Promise<Answer> {
    const key = keyOf(sent);
    const known = this.#prepared.get(key);
    if (known !== undefined) return read(await this.#answers(...bound(sent, known)), sent.ordered);
    const name = `s${this.#prepared.size.toString()}`;
    if (sent.apart) {
      const answer = await this.#described(sent, name);
      if (answer.parsed) this.#prepared.set(key, name);
      return answer;
    }
    const answer = read(await this.#answers(parse(name, bodyOf(sent)), ...bound(sent, name)), sent.ordered);
    // What fails behind the Parse leaves the statement prepared.
    if (answer.parsed) this.#prepared.set(key, name);
    return answer;
  }

  async #described(sent: Sent, name: string): Promise<Answer> {
    const first = read(await this.#answers(parse(name, bodyOf(sent)), describeStatement(name), SYNC), true);
    if (first.error) return first;
    const second = read(await this.#answers(...bound(sent, name)), sent.ordered);
    return { ...second, lines: [...first.lines, ...second.lines], parsed: true };
  }

  async #answers(...messages: readonly Buffer[]): Promise<readonly Message[]> {
    this.#client.send(...messages);
    return this.#client.until('Z');
  }
}

function keyOf({ text, types }: Sent): string {
  return `${text}\0${types.join()}`;
}

function bodyOf({ text, types }: Sent): Buffer {
  return Buffer.concat([cstring(text), uint16(types.length), ...types.map((oid) => int32(oid))]);
}

function bound({ values, formats, binaryRows }: Sent, name: string): readonly Buffer[] {
  const resultFormats = binaryRows ? Buffer.concat([uint16(1), uint16(1)]) : uint16(0);
  return [named(bind({ formats, values, resultFormats }), name), DESCRIBE_PORTAL, EXECUTE, SYNC];
}

/** The same Bind, of a statement with a name. */
function named(unnamed: Buffer, name: string): Buffer {
  // Behind the type and the length stand the names of the portal, which is empty, and of the statement.
  return frame('B', cstring(''), cstring(name), unnamed.subarray(7));
}

const FIRST_OF_USERS = 16_384;
/** What a server says beside the answer. */
const BESIDE = new Set(['N', 'S', 'A', '1']);

function read(messages: readonly Message[], ordered: boolean): Answer {
  const lines: string[] = [];
  let rows: string[] = [];
  let error: Answer['error'] = null;
  let parsed = false;
  for (const { type, bytes } of messages) {
    if (type === '1') parsed = true;
    if (BESIDE.has(type)) continue;
    if (type === 'D') {
      rows.push(`D ${bytes.toString('latin1', 5)}`);
      continue;
    }
    const failed = type === 'E' ? errorOf(bytes) : null;
    error ??= failed;
    if (failed === null) lines.push(...(ordered ? rows : rows.sort()));
    // What a client was told before of the statement that fails is void; shards may have told it more or less than one server.
    else while (/^[TDnC2]/.test(lines.at(-1) ?? '')) lines.pop();
    rows = [];
    lines.push(
      failed === null ? `${type} ${lineOf(type, bytes)}`.trim() : `E ${failed.code} ${failed.constraint}`.trim(),
    );
  }
  return { lines, error, parsed, status: lines.at(-1)?.at(-1) ?? '' };
}

function lineOf(type: string, bytes: Buffer): string {
  if (type === 'C') return readCommandTag(bytes, 0, bytes.length);
  if (type === 'Z') return bytes.toString('latin1', 5);
  if (type === 'T') return columnsOf(bytes).join(', ');
  if (type === 't') return oidsOf(bytes).join(', ');
  return type === 'G' ? bytes.toString('hex', 5) : '';
}

function errorOf(bytes: Buffer): { readonly code: string; readonly message: string; readonly constraint: string } {
  const field = (code: string): string => errorField(bytes, 0, bytes.length, code) ?? '';
  return { code: field('C'), message: field('M'), constraint: field('n') };
}

/** Name, type, modifier and format; tables and columns have other numbers in each database. */
function columnsOf(bytes: Buffer): readonly string[] {
  const columns: string[] = [];
  let at = 7;
  for (let left = bytes.readUInt16BE(5); left > 0; left -= 1) {
    const end = bytes.indexOf(0, at);
    const name = bytes.toString('utf8', at, end);
    const [oid, modifier, format] = [
      bytes.readUInt32BE(end + 7),
      bytes.readInt32BE(end + 13),
      bytes.readInt16BE(end + 17),
    ];
    columns.push(`${name} ${typeName(oid)} ${modifier.toString()} ${format.toString()}`);
    at = end + 19;
  }
  return columns;
}

function oidsOf(bytes: Buffer): readonly string[] {
  return Array.from({ length: bytes.readUInt16BE(5) }, (_, at) => typeName(bytes.readUInt32BE(7 + at * 4)));
}

function typeName(oid: number): string {
  return oid < FIRST_OF_USERS ? oid.toString() : 'own';
}
