/** One task: do to the answers of a server what a broken or hostile one does: cut, flipped, doubled, swapped, left out, made up. */
import { errorResponse, frame, int32, READY_IDLE } from '../../src/wire/backend.js';
import { HEADER_BYTES } from '../../src/wire/frames.js';
import type { Lie } from './stream.js';

const LENGTHS = [0, 3, 4, 5, 0x3fff_fffe, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
const TYPES = Buffer.from('123CDEGHIKNARSTVWZcdnstv\0~');
const EXTRAS = [
  READY_IDLE,
  frame('Z', Buffer.from('T')),
  frame('Z', Buffer.from('?')),
  frame('Z'),
  frame('D', Buffer.from([0, 1, 0, 0, 0, 1, 65])),
  frame('C', Buffer.from('SELECT 1\0')),
  frame('1'),
  frame('3'),
  frame('W', Buffer.from([0, 0, 0])),
  frame('G', Buffer.from([0, 0, 0])),
  frame('v', int32(0), int32(0)),
  frame('S', Buffer.from('no end')),
  frame('R', int32(3)),
  errorResponse({ severity: 'FATAL', sqlstate: '57P01', message: 'terminating' }),
  errorResponse({ severity: 'ERROR', sqlstate: 'CUT01', message: 'fenced' }),
];

/** Said when the connection was lent again. Either is found out there: what it stands in the place of begins otherwise, or is the same. */
const LATE = [READY_IDLE, frame('3')];

/** What a lie has the server say to whom it answers next; null: nothing. */
export function saidLateBy({ kind, value }: Lie): Buffer | null {
  return kind === 'late' ? (LATE[value % LATE.length] ?? null) : null;
}

/** The messages as the lie leaves them; `close`: the server goes away. */
export function toldBy({ kind, at, value }: Lie, messages: readonly Buffer[]): readonly Buffer[] | 'close' {
  const index = at % messages.length;
  const message = messages[index] ?? Buffer.alloc(0);
  if (message.length === 0) return messages;
  const put = (...instead: readonly Buffer[]): readonly Buffer[] => [
    ...messages.slice(0, index),
    ...instead,
    ...messages.slice(index + 1),
  ];
  switch (kind) {
    case 'flip':
      return put(
        changed(
          message,
          (copy) => (copy[value % copy.length] = (copy[value % copy.length] ?? 0) ^ (1 + (value % 255))),
        ),
      );
    case 'length':
      return put(
        changed(
          message,
          (copy) => copy.length >= HEADER_BYTES && copy.writeUInt32BE(LENGTHS[value % LENGTHS.length] ?? 0, 1),
        ),
      );
    case 'type':
      return put(changed(message, (copy) => (copy[0] = TYPES[value % TYPES.length] ?? 0)));
    case 'drop':
      return put();
    case 'double':
      return put(message, message);
    case 'swap':
      return index === 0
        ? messages
        : [...messages.slice(0, index - 1), message, ...messages.slice(index - 1, index), ...messages.slice(index + 1)];
    case 'cut':
      return put(message.subarray(0, value % message.length));
    case 'garbage':
      return put(message, Buffer.alloc(1 + (value % 40), value & 0xff));
    case 'extra':
      return put(message, EXTRAS[value % EXTRAS.length] ?? READY_IDLE);
    case 'close':
      return 'close';
    case 'late':
      return messages;
  }
}

function changed(message: Buffer, change: (copy: Buffer) => unknown): Buffer {
  const copy = Buffer.from(message);
  change(copy);
  return copy;
}
