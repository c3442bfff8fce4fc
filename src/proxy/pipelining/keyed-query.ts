/**
 * One task: put a Query that reads by one integer key into the messages that run it as a prepared statement, with the key as its parameter.
 */
import { cstring, frame, int16, int32 } from '../../wire/backend.js';
import { DESCRIBE_PORTAL, EXECUTE, SYNC } from '../../wire/frontend.js';
import type { Statement, StatementCache } from '../statement-cache.js';

/** The type of a literal of at most nine digits (PostgreSQL documentation, 4.1.2.6), in which the key is given. */
const INT4_OID = 23;
const DIGIT_0 = 0x30;
/** In text. */
const TEXT_COLUMNS = int16(0);
const ONE_PARAMETER = Buffer.concat([int16(0), int16(1)]);
const BEHIND_BIND = Buffer.concat([DESCRIBE_PORTAL, EXECUTE, SYNC]);

export class KeyedQuery {
  /** its text has $1 in the place of the literal */
  readonly statement: Statement;
  /** Bind, Describe, Execute and Sync, with the key of the last bind() */
  messages: Buffer;
  /** by the digits of the key */
  readonly #messages: Buffer[] = [];
  readonly #valueAt: number;

  /** @param start where the literal begins in the text */
  constructor(statements: StatementCache, sql: string, start: number, end: number) {
    const text = `${sql.slice(0, start)}$1${sql.slice(end)}`;
    this.statement = statements.shared(Buffer.concat([cstring(text), int16(1), int32(INT4_OID)]));
    this.#valueAt = bindOf(this.statement, 0).length - TEXT_COLUMNS.length;
    this.messages = this.bind(0);
  }

  /** Puts a key into the messages, which are good until this is called again. @param key of nine digits at most */
  bind(key: number): Buffer {
    let digits = 1;
    for (let rest = key; rest >= 10; rest = Math.floor(rest / 10)) digits += 1;
    const messages = (this.#messages[digits] ??= Buffer.concat([bindOf(this.statement, digits), BEHIND_BIND]));
    let rest = key;
    for (let at = this.#valueAt + digits - 1; at >= this.#valueAt; at -= 1) {
      messages[at] = DIGIT_0 + (rest % 10);
      rest = Math.floor(rest / 10);
    }
    this.messages = messages;
    return messages;
  }
}

/** With room for so many digits. */
function bindOf({ name }: Statement, digits: number): Buffer {
  return frame('B', cstring(''), cstring(name), ONE_PARAMETER, int32(digits), Buffer.alloc(digits), TEXT_COLUMNS);
}
