/** One task: keep one client of the ledger application connected and busy until it is told to end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../errors/errors.js';
import type { Endpoint } from '../../postgres/endpoint.js';
import { nowMs, type Book } from './book.js';
import { Session, sqlstateOf } from './session.js';

export interface ClientContext {
  readonly name: string;
  readonly endpoint: Endpoint;
  readonly book: Book;
  /** pause after each turn */
  readonly thinkMs: number;
  /** true once the client is to end; it finishes the turn it is in */
  readonly ended: () => boolean;
}

/** What a client does in one turn; what it throws is noted as a refusal. */
export type Turn = (session: Session, turn: number) => Promise<void>;

/** A client gives up after this many errors: a list of a thousand refusals says all there is to say. */
const ERRORS_MAX = 1_000;
const WAIT_AFTER_ERROR_MS = 50;

export class Client {
  readonly #context: ClientContext;
  readonly #turn: Turn;
  #session: Session | undefined;
  #errors = 0;

  constructor(context: ClientContext, turn: Turn) {
    this.#context = context;
    this.#turn = turn;
  }

  /** The first login; a failure is the caller's, since then there is nothing to measure. */
  async connect(): Promise<void> {
    await this.#connected();
  }

  /** Takes turns until the end. A lost connection is noted as a refusal and made again. Never rejects. */
  async run(): Promise<void> {
    const { ended, thinkMs } = this.#context;
    for (let turn = 0; !ended() && this.#errors < ERRORS_MAX; turn += 1) {
      const errorsBefore = this.#errors;
      try {
        await this.#turn(await this.#connected(), turn);
      } catch (error) {
        this.refuse(error);
      }
      if (this.#errors > errorsBefore) await sleep(WAIT_AFTER_ERROR_MS);
      else if (thinkMs > 0) await sleep(thinkMs);
    }
    await this.#session?.end();
  }

  /** Notes an error that a person behind this client would have seen. */
  refuse(error: unknown, token?: string): void {
    this.#errors += 1;
    const { name, book } = this.#context;
    const sqlstate = sqlstateOf(error);
    book.refused.push({
      atMs: nowMs(),
      client: name,
      message: messageOf(error),
      ...(token === undefined ? {} : { token }),
      ...(sqlstate === undefined ? {} : { sqlstate }),
    });
  }

  async #connected(): Promise<Session> {
    if (this.#session === undefined || this.#session.broken) {
      this.#session = await Session.connect(this.#context.endpoint, this.#context.name);
    }
    return this.#session;
  }

  /** Drops the connection of a client that doesn't end by itself. */
  destroy(): void {
    this.#session?.destroy();
  }
}
