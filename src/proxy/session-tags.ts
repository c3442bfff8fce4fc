/** One task: tell by its tag whether a command may have changed what a session is made of. */
import { HEADER_BYTES } from '../wire/frames.js';

/** Commands after which a session may not be what it was. RESET counts as SET; `state`: see session-state.ts; `schema`: it may have changed it. */
export const SESSION_TAG = { set: 1, rollback: 2, discardAll: 4, deallocateAll: 8, state: 16, schema: 32 } as const;

const TAG_BITS: ReadonlyMap<string, number> = new Map([
  ['SET', SESSION_TAG.set],
  ['RESET', SESSION_TAG.set],
  ['ROLLBACK', SESSION_TAG.rollback],
  ['DISCARD ALL', SESSION_TAG.set | SESSION_TAG.discardAll | SESSION_TAG.state],
  ['DEALLOCATE ALL', SESSION_TAG.deallocateAll | SESSION_TAG.state],
  ...[
    'LISTEN',
    'UNLISTEN',
    'PREPARE',
    'DEALLOCATE',
    'DISCARD TEMP',
    'DROP TABLE',
    'CLOSE CURSOR',
    'CLOSE CURSOR ALL',
  ].map((tag) => [tag, SESSION_TAG.state] as const),
]);
const SCHEMA_TAG = /^(?:CREATE|ALTER|DROP|DO|CALL)\b/;
/** By their first letter: the second, where a commoner command begins with the same; 0: no such command. */
const SECOND_LETTERS = new Uint8Array(256);
const ANY_LETTER = 255;
for (const [first, second] of ['S', 'R', 'D', 'L', 'P', 'UN', 'C', 'AL'].map((letters) => Buffer.from(letters)))
  if (first !== undefined) SECOND_LETTERS[first] = second ?? ANY_LETTER;

/** False for nearly all commands, by three letters of the tag in a CommandComplete: the others are looked at whole. */
export function mayChangeSession(buffer: Buffer, start: number): boolean {
  const at = start + HEADER_BYTES;
  const first = buffer[at] ?? 0;
  const second = SECOND_LETTERS[first];
  if (second === 0 || (second !== ANY_LETTER && second !== buffer[at + 1])) return false;
  // INSERT, UPDATE and BEGIN are gone; SELECT, the commonest that is left, and COMMIT and COPY go here.
  if (first === 0x43) return buffer[at + 1] !== 0x4f;
  return first !== 0x53 || buffer[at + 2] === 0x54;
}

/** Bits of {@link SESSION_TAG}; 0: nothing changes. */
export function sessionTagOf(tag: string): number {
  return (TAG_BITS.get(tag) ?? 0) | (SCHEMA_TAG.test(tag) ? SESSION_TAG.schema : 0);
}
