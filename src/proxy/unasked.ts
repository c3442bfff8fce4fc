/** One task: tell what a server may say without being asked from an answer, which belongs to nobody when nothing is owed. */
import { BACKEND } from '../wire/codes.js';
import { HEADER_BYTES } from '../wire/frames.js';

/** PostgreSQL documentation, 54.2.7; an error that is not fatal is no such message. */
const UNASKED = new Set<number>([
  BACKEND.noticeResponse,
  BACKEND.notificationResponse,
  BACKEND.parameterStatus,
  BACKEND.errorResponse,
]);

export function isUnasked(type: number): boolean {
  return UNASKED.has(type);
}

/** Whether all messages from `from` on, the last of which may be cut off, are such as a server may send at any time. */
export function endsWithUnasked(buffer: Buffer, from: number): boolean {
  for (let at = from; at < buffer.length;) {
    if (!isUnasked(buffer[at] ?? 0)) return false;
    if (at + HEADER_BYTES > buffer.length) return true;
    at += 1 + Math.max(HEADER_BYTES - 1, buffer.readUInt32BE(at + 1));
  }
  return true;
}
