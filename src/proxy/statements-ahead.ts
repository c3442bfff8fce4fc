/** One task: read, from what a client has sent and no server has got yet, the statements up to the end of the batch. */
import { NO_PARAMETERS, type StatementParameters } from '../sharding/router-parameters.js';
import { CLIENT_RULES, FRONTEND } from '../wire/codes.js';
import { FrameScanner } from '../wire/frames.js';
import { readParse, readQuery } from '../wire/frontend.js';
import { boundTo } from './bound-statement.js';
import type { ClientStatements } from './client-statements.js';

export interface StatementAhead {
  readonly text: string;
  readonly parameters: StatementParameters;
  /** by which its rows can be asked for later; empty for a simple query */
  readonly portal: string;
  /** where its Query or Bind begins */
  readonly start: number;
  /** of what is bound, as it stands in a Parse behind the name; null: it is a Query */
  readonly body: Buffer | null;
}

/** What has not come of a batch. */
export interface Rest {
  /** unread bytes that there must be before looking again */
  readonly neededBytes: number;
  /** the last message has come in part */
  readonly cut: boolean;
}

/** Each statement that is run, in order. Not a generator: it is made for each batch, and most have one statement. */
export class StatementsAhead {
  /** once there is no next one: what has not come of the batch; null when it has come to its end */
  rest: Rest | null = null;
  /** once there is no next one: nothing behind it belongs to the batch: it is a Query, or ends with its Sync */
  complete = false;
  readonly #statements: ClientStatements;
  readonly #scanner = new FrameScanner(CLIENT_RULES);
  readonly #unreadBytes: number;
  /** those that are not the client's yet */
  #bodies: Map<string, Buffer> | undefined;
  #ended = false;

  /** @param unread begins where a message begins */
  constructor(unread: Buffer, statements: ClientStatements) {
    this.#statements = statements;
    this.#unreadBytes = unread.length;
    this.#scanner.feed(unread);
  }

  /** @throws FrameError */
  next(): StatementAhead | null {
    const scanner = this.#scanner;
    while (!this.#ended && scanner.peek()) {
      const { type, buffer, start, end, length } = scanner;
      if (end - start < length) return this.#end({ neededBytes: start + length, cut: true });
      if (type === FRONTEND.query) {
        this.#ended = true;
        this.complete = true;
        return { text: readQuery(buffer, start, end), parameters: NO_PARAMETERS, portal: '', start, body: null };
      }
      if (ENDS.has(type)) {
        this.complete = type === FRONTEND.sync;
        return this.#end(null);
      }
      scanner.consume();
      if (type === FRONTEND.parse) {
        const { name, bodyAt } = readParse(buffer, start, end);
        this.#bodies ??= new Map();
        this.#bodies.set(name, buffer.subarray(bodyAt, end));
      } else if (type === FRONTEND.bind) {
        const bound = boundTo(buffer, start, end, this.#statements, this.#bodies);
        if (bound !== null) return bound;
      }
    }
    if (this.#ended) return null;
    const { position, neededBytes, awaitsRest } = scanner;
    const read = awaitsRest ? this.#unreadBytes - scanner.unreadBytes : position;
    const cut = read < this.#unreadBytes;
    return this.#end({ neededBytes: cut ? read + neededBytes : this.#unreadBytes + 1, cut });
  }

  #end(rest: Rest | null): null {
    this.#ended = true;
    this.rest = rest;
    return null;
  }
}

/** Behind these the server may answer without more from the client, or the client is waiting. */
const ENDS: ReadonlySet<number> = new Set([
  FRONTEND.sync,
  FRONTEND.flush,
  FRONTEND.functionCall,
  FRONTEND.terminate,
  FRONTEND.copyData,
  FRONTEND.copyDone,
  FRONTEND.copyFail,
]);
