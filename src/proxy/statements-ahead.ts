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
}

/** What has not come of a batch. */
export interface Rest {
  /** unread bytes that there must be before looking again */
  readonly neededBytes: number;
  /** the last message has come in part */
  readonly cut: boolean;
}

/**
 * Each statement that is run, in order.
 *
 * @param unread begins where a message begins
 * @returns null when the batch has come to its end
 * @throws FrameError
 */
export function* statementsAhead(unread: Buffer, statements: ClientStatements): Generator<StatementAhead, Rest | null> {
  const scanner = new FrameScanner(CLIENT_RULES);
  scanner.feed(unread);
  const bodies = new Map<string, Buffer>();
  let position = 0;
  while (scanner.peek()) {
    const { type, buffer, start, end, length } = scanner;
    if (end - start < length) return { neededBytes: start + length, cut: true };
    if (type === FRONTEND.query) {
      yield { text: readQuery(buffer, start, end), parameters: NO_PARAMETERS };
      return null;
    }
    if (type === FRONTEND.parse) {
      const { name, bodyAt } = readParse(buffer, start, end);
      bodies.set(name, buffer.subarray(bodyAt, end));
    } else if (type === FRONTEND.bind) {
      const bound = boundTo(buffer, start, end, statements, bodies);
      if (bound !== null) yield bound;
    } else if (ENDS.has(type)) return null;
    scanner.consume();
    position = end;
  }
  const cut = position < unread.length;
  return { neededBytes: cut ? position + scanner.neededBytes : unread.length + 1, cut };
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
