/**
 * One task: tell from a message's type whether a server may say it now: by the answer that it owes next, or by itself at any time.
 *
 * Which message answers which: PostgreSQL documentation, 54.2.2 to 54.2.7. Where two answers are alike, nobody can tell whose one is.
 */
import { BACKEND } from '../wire/codes.js';
import { HEADER_BYTES } from '../wire/frames.js';
import { REPLY, type Reply } from './reply-queue.js';

const ANY_TIME = 0xffff;
const { query, setup, parse, injectedParse, bind, injectedBind, describe, execute, close, injectedClose, sync } = REPLY;

/** What is owed when a message comes; what is not told here no server says to a session. */
const OWED: readonly (readonly [type: number, owed: 'anything' | readonly Reply[]])[] = [
  // An error that is not fatal is an answer too: when nothing is owed, its text tells.
  [BACKEND.errorResponse, 'anything'],
  [BACKEND.noticeResponse, 'anything'],
  [BACKEND.notificationResponse, 'anything'],
  [BACKEND.parameterStatus, 'anything'],
  [BACKEND.parseComplete, [parse, injectedParse]],
  [BACKEND.bindComplete, [bind, injectedBind]],
  [BACKEND.closeComplete, [close, injectedClose]],
  [BACKEND.parameterDescription, [describe]],
  [BACKEND.noData, [describe]],
  [BACKEND.rowDescription, [query, setup, describe]],
  [BACKEND.dataRow, [query, setup, execute]],
  [BACKEND.commandComplete, [query, setup, execute]],
  [BACKEND.emptyQueryResponse, [query, setup, execute]],
  [BACKEND.portalSuspended, [execute]],
  [BACKEND.functionCallResponse, [query]],
  [BACKEND.copyInResponse, [query, execute]],
  [BACKEND.copyOutResponse, [query, execute]],
  [BACKEND.copyBothResponse, [query]],
  [BACKEND.copyData, [query, execute]],
  [BACKEND.copyDone, [query, execute]],
  [BACKEND.readyForQuery, [query, setup, sync]],
];

/** By type: one bit for each answer that may be owed. */
const BITS = new Uint16Array(256);
for (const [type, owed] of OWED)
  BITS[type] = owed === 'anything' ? ANY_TIME : owed.reduce<number>((bits, reply) => bits | (1 << reply), 0);

/** Whether a server that owes `head` next may send a message of this type. */
export function mayCome(type: number, head: Reply): boolean {
  return (((BITS[type] ?? 0) >> head) & 1) === 1;
}

/** Whether all messages from `from` on, the last of which may be cut off, are such as a server may send at any time. */
export function endsWithUnasked(buffer: Buffer, from: number): boolean {
  for (let at = from; at < buffer.length;) {
    if (!mayCome(buffer[at] ?? 0, REPLY.none)) return false;
    if (at + HEADER_BYTES > buffer.length) return true;
    at += 1 + Math.max(HEADER_BYTES - 1, buffer.readUInt32BE(at + 1));
  }
  return true;
}
