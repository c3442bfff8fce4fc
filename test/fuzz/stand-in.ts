/**
 * One task: be the PostgreSQL of the fuzzer: answer the messages of a few statements as a server does, and lie when told to.
 *
 * Every row has the mark of the client whose text asked for it. Statements and portals are kept by connection, so a proxy that mixes
 * up connections, names or answers gives one client the mark of another. Formats: PostgreSQL documentation, 54.7.
 */
import {
  AUTHENTICATION_OK,
  backendKeyData,
  BIND_COMPLETE,
  CLOSE_COMPLETE,
  commandComplete,
  cstring,
  dataRow,
  errorResponse,
  frame,
  int16,
  int32,
  NO_DATA,
  PARSE_COMPLETE,
  parameterStatus,
  rowDescription,
} from '../../src/wire/backend.js';
import { FrameScanner, frameRules } from '../../src/wire/frames.js';
import {
  readBind,
  readExecute,
  readExecuteLimit,
  readParse,
  readParseText,
  readQuery,
  readTarget,
} from '../../src/wire/frontend.js';
import type { MemorySocket } from './memory-net.js';
import { ANY_MARK } from './stream.js';

/** What is common to all connections of the server. */
export interface StandInContext {
  readonly running: Map<number, StandIn>;
  /** of the client that has this key */
  markWith(key: number): string | undefined;
  /**
   * What is sent in the place of these messages. `mark` is the client's they answer; null: a login. `late` is of one connection: what it is
   * yet to say to another client.
   */
  lie(messages: readonly Buffer[], mark: string | null, late: Buffer[]): readonly Buffer[] | 'close';
}

const RULES = frameRules([{ types: 'BCDEFHPQSXcdfp', lengthMax: 0x3fff_fffe }]);
const REPORTED = { server_version: '18.0', client_encoding: 'UTF8', standard_conforming_strings: 'on' };
const SLEEP_MS = 50;
const CANCEL = 80877102;
const COLUMN = rowDescription([{ name: 'mark', typeOid: 25, typeBytes: -1 }]);

interface Portal {
  readonly text: string;
  given: number;
}

type Status = 'I' | 'T' | 'E';

class Refused extends Error {
  readonly sqlstate: string;

  constructor(sqlstate: string, message: string) {
    super(message);
    this.sqlstate = sqlstate;
  }
}

export class StandIn {
  readonly #socket: MemorySocket;
  readonly #context: StandInContext;
  readonly #scanner = new FrameScanner(RULES);
  readonly #processId: number;
  readonly #statements = new Map<string, string>();
  readonly #portals = new Map<string, Portal>();
  readonly #channels = new Set<string>();
  #opening: Buffer | null = Buffer.alloc(0);
  #status: Status = 'I';
  #skipping = false;
  #copyIn: 'query' | 'execute' | null = null;
  #asleep: NodeJS.Timeout | null = null;
  #awake: (cancelled: boolean) => void = () => undefined;
  #mark: string | null = null;
  #out: Buffer[] = [];
  readonly #late: Buffer[] = [];

  constructor(socket: MemorySocket, context: StandInContext, processId: number) {
    this.#socket = socket;
    this.#context = context;
    this.#processId = processId;
    socket.on('error', () => undefined);
    socket.on('close', () => {
      context.running.delete(processId);
      if (this.#asleep !== null) clearTimeout(this.#asleep);
    });
    socket.on('data', (chunk: Buffer) => {
      if (this.#opening === null) this.#read(chunk);
      else this.#open(Buffer.concat([this.#opening, chunk]));
    });
  }

  #open(bytes: Buffer): void {
    this.#opening = bytes;
    if (bytes.length < 8 || bytes.length < bytes.readUInt32BE(0)) return;
    const length = bytes.readUInt32BE(0);
    const code = bytes.readUInt32BE(4);
    if (code === CANCEL) {
      this.#context.running.get(bytes.readInt32BE(8))?.cancel();
      this.#socket.destroySoon();
      return;
    }
    if (code === CANCEL + 1 || code === CANCEL + 2) {
      this.#socket.write('N');
      this.#open(bytes.subarray(length));
      return;
    }
    this.#opening = null;
    this.#context.running.set(this.#processId, this);
    this.#out.push(
      AUTHENTICATION_OK,
      ...Object.entries(REPORTED).map((pair) => parameterStatus(...pair)),
      backendKeyData(this.#processId, int32(this.#processId ^ 0x5a5a)),
      frame('Z', Buffer.from('I')),
    );
    this.#flush();
    if (length < bytes.length) this.#read(bytes.subarray(length));
  }

  /** What it was yet to say to another client it does not say. */
  forgetLate(): void {
    this.#late.length = 0;
  }

  cancel(): void {
    if (this.#asleep === null) return;
    clearTimeout(this.#asleep);
    this.#asleep = null;
    this.#awake(true);
  }

  #read(chunk: Buffer): void {
    this.#scanner.feed(chunk);
    this.#go();
  }

  #go(): void {
    const scanner = this.#scanner;
    try {
      while (this.#asleep === null && !this.#socket.destroyed && scanner.peek()) {
        const bytes = Buffer.from(scanner.buffer.subarray(scanner.start, scanner.end));
        const type = String.fromCharCode(scanner.type);
        scanner.consume();
        this.#message(type, bytes);
      }
    } catch {
      this.#out.push(errorResponse({ severity: 'FATAL', sqlstate: '08P01', message: 'invalid frontend message' }));
      this.#flush();
      this.#socket.destroySoon();
      return;
    }
    this.#flush();
  }

  #flush(): void {
    if (this.#out.length === 0) return;
    const messages = this.#context.lie(this.#out.splice(0), this.#mark, this.#late);
    if (messages === 'close') this.#socket.destroy();
    else if (!this.#socket.destroyed) this.#socket.write(Buffer.concat(messages));
  }

  #message(type: string, bytes: Buffer): void {
    if (type === 'X') {
      this.#socket.end();
      return;
    }
    if (this.#copyIn !== null) {
      this.#copying(this.#copyIn, type);
      return;
    }
    if (type === 'S') {
      this.#skipping = false;
      this.#ready();
      return;
    }
    if (this.#skipping || 'Hcdf'.includes(type)) return;
    try {
      if (type === 'Q') this.#query(readQuery(bytes, 0, bytes.length));
      else if (type === 'F') {
        this.#out.push(frame('V', int32(-1)));
        this.#ready();
      } else this.#extended(type, bytes);
    } catch (error) {
      this.#fail(error);
      if (type === 'Q' || type === 'F') this.#ready();
      else this.#skipping = true;
    }
  }

  #fail(error: unknown): void {
    const sqlstate = error instanceof Refused ? error.sqlstate : '08P01';
    const message = error instanceof Error ? error.message : 'unknown';
    if (this.#status === 'T') this.#status = 'E';
    this.#out.push(errorResponse({ severity: 'ERROR', sqlstate, message }));
  }

  #ready(): void {
    // Portals end with their transaction (PostgreSQL documentation, 54.2.3).
    if (this.#status === 'I') this.#portals.clear();
    this.#out.push(frame('Z', Buffer.from(this.#status)));
  }

  #copying(by: 'query' | 'execute', type: string): void {
    if (type === 'd' || type === 'H' || type === 'S') return;
    if (type !== 'c' && type !== 'f') {
      // Since 14 it is refused before its length is read, and what follows can no longer be told apart.
      this.#fail(new Refused('08P01', 'unexpected message type during COPY from stdin'));
      throw new Error('protocol synchronization was lost');
    }
    this.#copyIn = null;
    if (type === 'c') this.#out.push(commandComplete('COPY 1'));
    else this.#fail(new Refused('57014', 'COPY failed'));
    if (by === 'query') this.#ready();
    else if (type !== 'c') this.#skipping = true;
  }

  #query(text: string): void {
    this.#statements.delete('');
    const parts = text.split(';').map((part) => part.trim());
    const statements = parts.length > 1 ? parts.filter((part) => part !== '') : parts;
    this.#heed(text);
    this.#rest(statements.length === 0 ? [''] : statements);
  }

  /** Runs the statements of a query; a sleep or a COPY goes on later. */
  #rest(statements: readonly string[]): void {
    for (const [index, text] of statements.entries()) {
      if (/pg_sleep/i.test(text)) {
        this.#sleep(() => {
          this.#rest(statements.slice(index + 1));
        });
        return;
      }
      if (/^select|^fetch/i.test(text) && !/1 ?\/ ?0|fenced/.test(text)) this.#out.push(COLUMN);
      this.#run(text, 'query', { text, given: 0 }, 0);
      if (this.#copyIn !== null) return;
    }
    this.#ready();
  }

  #sleep(then: () => void): void {
    this.#awake = (cancelled) => {
      if (cancelled) {
        this.#fail(new Refused('57014', 'canceling statement due to user request'));
        this.#ready();
      } else {
        this.#out.push(COLUMN, dataRow([this.#mark]), commandComplete('SELECT 1'));
        then();
      }
      this.#go();
    };
    this.#asleep = setTimeout(() => {
      this.#asleep = null;
      this.#awake(false);
    }, SLEEP_MS);
  }

  #extended(type: string, bytes: Buffer): void {
    const end = bytes.length;
    if (type === 'P') {
      const { name, bodyAt } = readParse(bytes, 0, end);
      const text = readParseText(bytes, bodyAt, end);
      this.#heed(text);
      if (/^selec /i.test(text)) throw new Refused('42601', 'syntax error');
      if (name !== '' && this.#statements.has(name)) throw new Refused('42P05', `"${name}" already exists`);
      this.#statements.set(name, text);
      this.#out.push(PARSE_COMPLETE);
    } else if (type === 'B') {
      const { portalEnd, statementEnd } = readBind(bytes, 0, end);
      const prepared = this.#statements.get(bytes.toString('utf8', portalEnd + 1, statementEnd));
      if (prepared === undefined) throw new Refused('26000', 'no such prepared statement');
      const text = prepared.includes('$1') ? prepared.replace('$1', firstValue(bytes, statementEnd)) : prepared;
      this.#heed(text);
      this.#portals.set(bytes.toString('utf8', 5, portalEnd), { text, given: 0 });
      this.#out.push(BIND_COMPLETE);
    } else if (type === 'D') this.#describe(bytes);
    else if (type === 'C') {
      const { kind, name } = readTarget(bytes, 0, end);
      (kind === 0x53 ? this.#statements : this.#portals).delete(name);
      this.#out.push(CLOSE_COMPLETE);
    } else if (type === 'E') {
      const portal = this.#portals.get(readExecute(bytes, 0, end));
      if (portal === undefined) throw new Refused('34000', 'no such portal');
      this.#heed(portal.text);
      this.#run(portal.text, 'execute', portal, readExecuteLimit(bytes, 0, end));
    } else throw new Refused('08P01', 'unexpected message');
  }

  #describe(bytes: Buffer): void {
    const { kind, name } = readTarget(bytes, 0, bytes.length);
    const text = kind === 0x53 ? this.#statements.get(name) : this.#portals.get(name)?.text;
    if (text === undefined) throw new Refused(kind === 0x53 ? '26000' : '34000', 'nothing to describe');
    this.#heed(text);
    if (kind === 0x53) this.#out.push(frame('t', int16(0)));
    this.#out.push(/^select/i.test(text) ? COLUMN : NO_DATA);
  }

  #markIn(text: string): string | undefined {
    const key = /FROM keyed WHERE id = (\d+)/.exec(text)?.[1];
    return key === undefined ? text.match(ANY_MARK)?.[0] : this.#context.markWith(Number(key));
  }

  #heed(text: string): void {
    this.#mark = this.#markIn(text) ?? this.#mark;
  }

  #run(text: string, by: 'query' | 'execute', portal: Portal, limit: number): void {
    const words = text.toUpperCase().split(/\s+/);
    const [first = ''] = words;
    const mark = this.#markIn(text) ?? 'nobody';
    if (this.#status === 'E' && !/^(COMMIT|END|ROLLBACK)/.test(first))
      throw new Refused('25P02', `current transaction is aborted ${mark}`);
    if (/1 ?\/ ?0/.test(text)) throw new Refused('22012', `division by zero ${mark}`);
    if (text.includes('fenced')) throw new Refused('CUT01', `this side has moved away ${mark}`);
    switch (first) {
      case '':
        this.#out.push(frame('I'));
        return;
      case 'BEGIN':
        this.#status = 'T';
        break;
      case 'COMMIT':
      case 'ROLLBACK':
        this.#status = 'I';
        this.#portals.clear();
        break;
      case 'COPY':
        this.#copy(words, mark, by);
        return;
      case 'SELECT':
        this.#select(text, mark, portal, limit);
        return;
      case 'LISTEN':
        this.#channels.add(text.slice(7).trim());
        break;
      case 'UNLISTEN':
        this.#channels.clear();
        break;
      case 'NOTIFY':
        this.#out.push(frame('A', int32(this.#processId), cstring('channel'), cstring(mark)));
        break;
      case 'DO':
        this.#out.push(errorResponse({ severity: 'NOTICE', sqlstate: '00000', message: mark }));
        break;
      case 'SET':
        if (words[1] === 'APPLICATION_NAME') this.#out.push(parameterStatus('application_name', mark));
        break;
      case 'DISCARD':
      case 'DEALLOCATE':
        this.#statements.clear();
        if (first === 'DISCARD') this.#channels.clear();
        this.#out.push(commandComplete(`${first} ALL`));
        return;
    }
    this.#out.push(commandComplete(first === 'INSERT' ? 'INSERT 0 1' : first));
  }

  #copy(words: readonly string[], mark: string, by: 'query' | 'execute'): void {
    const formats = Buffer.concat([Buffer.from([0]), int16(1), int16(0)]);
    if (words.includes('FROM')) {
      this.#copyIn = by;
      this.#out.push(frame('G', formats));
      return;
    }
    const row = frame('d', Buffer.from(`${mark}\n`));
    this.#out.push(frame('H', formats), row, row, row, frame('c'), commandComplete('COPY 3'));
  }

  #select(text: string, mark: string, portal: Portal, limit: number): void {
    if (text.includes('pg_listening_channels')) {
      const state = JSON.stringify({ channels: [...this.#channels], bound: [] });
      this.#out.push(dataRow([Buffer.from(state).toString('hex')]), commandComplete('SELECT 1'));
      return;
    }
    const rows = Math.min(1_000, Number(/generate_series\(1, (\d+)\)/.exec(text)?.[1] ?? 1));
    const rest = rows - portal.given;
    const given = limit > 0 ? Math.min(limit, rest) : rest;
    const row = dataRow([mark]);
    for (let left = given; left > 0; left -= 1) this.#out.push(row);
    portal.given += given;
    // As PostgreSQL: it suspends a portal when the limit was reached, even at the last row.
    this.#out.push(limit > 0 && given === limit ? frame('s') : commandComplete(`SELECT ${given.toString()}`));
  }
}

/** Of a Bind whose parameters are all in one format, if in any; empty for NULL or none. */
function firstValue(bytes: Buffer, statementEnd: number): string {
  const countAt = statementEnd + 3 + 2 * bytes.readUInt16BE(statementEnd + 1);
  const valueBytes = bytes.readUInt16BE(countAt) === 0 ? 0 : Math.max(0, bytes.readInt32BE(countAt + 2));
  return bytes.toString('latin1', countAt + 6, countAt + 6 + valueBytes);
}
