/** One task: serve one client of the admin database: simple queries in, rows or an error out. */
import type { Socket } from 'node:net';
import { CutoverError, messageOf } from '../errors/errors.js';
import * as backend from '../wire/backend.js';
import { CLIENT_RULES, FRONTEND } from '../wire/codes.js';
import { FrameError, FrameScanner } from '../wire/frames.js';
import { readQuery } from '../wire/frontend.js';
import type { AdminColumn, AdminHandler, AdminResult } from './contract.js';
import type { Guest, Journal } from './journal.js';
import type { Logger } from './logger.js';

/** Object ids and sizes of the types used (PostgreSQL, pg_type.dat). */
const TYPES: Readonly<Record<AdminColumn['type'], { readonly oid: number; readonly bytes: number }>> = {
  text: { oid: 25, bytes: -1 },
  bigint: { oid: 20, bytes: 8 },
  numeric: { oid: 1700, bytes: -1 },
  bool: { oid: 16, bytes: 1 },
};

export class AdminSession {
  readonly #socket: Socket;
  readonly #handler: AdminHandler;
  readonly #logger: Logger;
  readonly #journal: Journal;
  readonly #guest: Guest;
  readonly #scanner = new FrameScanner(CLIENT_RULES);
  #busy = false;
  /** a message of the extended protocol was refused: what follows is skipped up to Sync */
  #skipping = false;

  constructor(
    socket: Socket,
    unread: Buffer,
    handler: AdminHandler,
    { logger, journal }: { readonly logger: Logger; readonly journal: Journal },
    guest: Guest,
  ) {
    this.#socket = socket;
    this.#handler = handler;
    this.#logger = logger;
    this.#journal = journal;
    this.#guest = guest;
    this.#scanner.feed(unread);
    socket.on('data', (chunk: Buffer) => {
      this.#scanner.feed(chunk);
      void this.#serve();
    });
    socket.resume();
    void this.#serve();
  }

  terminate(error: CutoverError): void {
    this.#socket.end(this.#journal.answer(error, 'FATAL', this.#guest));
  }

  /** Answers one message after the other; while one is answered the socket waits. */
  async #serve(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    this.#socket.pause();
    try {
      // Ends with what was received; more comes only once the socket is read again.
      while (this.#scanner.peek() && !this.#socket.destroyed) {
        await this.#message();
        this.#scanner.consume();
      }
    } catch (error) {
      const problem = messageOf(error);
      if (!(error instanceof FrameError)) this.#logger.error({}, `admin session failed: ${problem}`);
      this.terminate(new CutoverError('protocol_violation', { problem }));
    } finally {
      this.#busy = false;
      this.#socket.resume();
    }
  }

  async #message(): Promise<void> {
    const { type, start, end, length, buffer } = this.#scanner;
    if (type === FRONTEND.terminate) {
      this.#socket.end();
    } else if (type === FRONTEND.sync) {
      this.#skipping = false;
      this.#socket.write(backend.READY_IDLE);
    } else if (type === FRONTEND.query && !this.#skipping) {
      if (end - start < length) throw new FrameError('statement too long');
      await this.#answer(readQuery(buffer, start, end));
    } else if (type !== FRONTEND.flush && !this.#skipping) {
      this.#skipping = true;
      this.#socket.write(this.#journal.answer(new CutoverError('admin_simple_only'), 'ERROR', this.#guest));
    }
  }

  async #answer(statement: string): Promise<void> {
    let answer: Buffer;
    try {
      answer = encode(await this.#handler.execute(statement));
    } catch (error) {
      if (!(error instanceof CutoverError)) this.#logger.error({}, `admin command failed: ${messageOf(error)}`);
      const known =
        error instanceof CutoverError
          ? error
          : new CutoverError('internal', { problem: messageOf(error) }, { cause: error });
      answer = this.#journal.answer(known, 'ERROR', this.#guest);
    }
    this.#socket.write(Buffer.concat([answer, backend.READY_IDLE]));
  }
}

function encode(result: AdminResult): Buffer {
  const notices = (result.notices ?? []).map((message) =>
    backend.errorResponse({ severity: 'NOTICE', sqlstate: '00000', message }),
  );
  const columns = result.columns.map(({ name, type }) => ({
    name,
    typeOid: TYPES[type].oid,
    typeBytes: TYPES[type].bytes,
  }));
  const rows = columns.length === 0 ? [] : [backend.rowDescription(columns), ...result.rows.map(backend.dataRow)];
  return Buffer.concat([...notices, ...rows, backend.commandComplete(result.tag)]);
}
