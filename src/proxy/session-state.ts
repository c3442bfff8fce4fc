/**
 * One task: tell what of a client lives in its server's session beyond a transaction, so that it keeps that server.
 *
 * Words and command tags only raise the suspicion; the server itself is asked, between two transactions, and what it says counts. Settings
 * and statements prepared by the protocol are not among it: they follow the session to any server (settings.ts, statement-cache.ts).
 */
import { CutoverError } from '../errors/errors.js';
import { quoteIdentifier } from '../postgres/connection.js';

export interface SessionState {
  /** channels it listens to: they can be listened to on another server */
  readonly channels: readonly string[];
  /** what cannot be had on another server, in words; empty for nothing */
  readonly bound: readonly string[];
}

/**
 * One row with one column, in characters that every client_encoding has. Session-level locks alone are left between two transactions
 * (PostgreSQL documentation, 13.3.5); `from_sql` leaves out what was prepared by the protocol.
 */
export const STATE_SQL = `SELECT pg_catalog.encode(pg_catalog.convert_to(pg_catalog.json_build_object(
  'channels', ARRAY(SELECT pg_catalog.pg_listening_channels()),
  'bound', pg_catalog.array_remove(ARRAY[
    CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
      THEN 'temporary tables' END,
    CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND locktype OPERATOR(pg_catalog.=) 'advisory')
      THEN 'advisory locks' END,
    CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) THEN 'statements of PREPARE' END,
    CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 'cursors WITH HOLD' END
  ], NULL))::text, 'UTF8'), 'hex')`;

/** What is thought of a session whose server could not say. */
export const UNREADABLE: SessionState = { channels: [], bound: ['what its server did not tell'] };

/** @param answer the text of {@link STATE_SQL}'s row; null: the server refused to say @returns null where the session has nothing there */
export function readState(answer: string | null): SessionState | null {
  if (answer === null) return UNREADABLE;
  const state = JSON.parse(Buffer.from(answer, 'hex').toString('utf8')) as SessionState;
  return state.channels.length + state.bound.length === 0 ? null : state;
}

/** What a client reads whose server it can no longer use. */
export function stateLost(database: string, { channels, bound }: SessionState): CutoverError {
  const state = [...bound, ...(channels.length > 0 ? ['LISTEN'] : [])].join(', ');
  return new CutoverError('session_state_lost', { database, state });
}

/** Listens to the same channels on another server; in ASCII, whatever the client's encoding is. */
export function listenSql(channels: readonly string[]): string {
  return channels.map((channel) => `LISTEN ${asciiIdentifier(channel)}`).join(';');
}

/** PostgreSQL documentation, 4.1.1: U&"…" */
function asciiIdentifier(name: string): string {
  const quoted = quoteIdentifier(name.replaceAll('\\', '\\\\'));
  return `U&${quoted.replace(/[^\x20-\x7e]/gu, (character) => `\\+${(character.codePointAt(0) ?? 0).toString(16).padStart(6, '0')}`)}`;
}

/** A longer text is not looked into. */
const MENTION_BYTES_MAX = 65_536;
const LOWER = 0x20;
const WORDS = ['temp', 'advisory', 'hold'].map((word) => Buffer.from(word));
/** By the first letter of a word, small or capital: its second one. */
const SECOND_LETTERS = new Uint8Array(256);
for (const [first = 0, second = 0] of WORDS) SECOND_LETTERS[first] = SECOND_LETTERS[first & ~LOWER] = second;

/** Whether a text has a word of those statements that leave something in the session without a command tag of their own. */
export function mentionsState(buffer: Buffer, start: number, end: number): boolean {
  const last = Math.min(end, start + MENTION_BYTES_MAX);
  for (let at = start; at < last; at += 1) {
    const second = SECOND_LETTERS[buffer[at] ?? 0];
    if (second === 0 || ((buffer[at + 1] ?? 0) | LOWER) !== second) continue;
    if (WORDS.some((word) => isAt(word, buffer, at, last))) return true;
  }
  return false;
}

function isAt(word: Buffer, buffer: Buffer, at: number, end: number): boolean {
  if (at + word.length > end) return false;
  for (let index = 0; index < word.length; index += 1)
    if (((buffer[at + index] ?? 0) | LOWER) !== word[index]) return false;
  return true;
}
