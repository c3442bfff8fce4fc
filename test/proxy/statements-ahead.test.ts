/** One task: what has come of a batch is read the same in whatever pieces it comes, and its rest is told to the byte. */
import { expect, test } from 'vitest';
import { ClientStatements } from '../../src/proxy/client-statements.js';
import { StatementCache } from '../../src/proxy/statement-cache.js';
import { StatementsAhead, type Rest } from '../../src/proxy/statements-ahead.js';
import { cstring, frame } from '../../src/wire/backend.js';
import { query, SYNC } from '../../src/wire/frontend.js';

const PARSE = frame('P', cstring(''), cstring('SELECT $1'), Buffer.alloc(2));
/** One value, of three bytes. */
const BIND = frame('B', cstring(''), cstring(''), Buffer.from([0, 0, 0, 1, 0, 0, 0, 3, 0x61, 0x62, 0x63, 0, 0]));
const EXECUTE = frame('E', cstring(''), Buffer.alloc(4));

function readAll(unread: Buffer): { texts: string[]; values: string[]; rest: Rest | null } {
  const ahead = new StatementsAhead(unread, new ClientStatements(new StatementCache()));
  const texts: string[] = [];
  const values: string[] = [];
  for (let next = ahead.next(); next !== null; next = ahead.next()) {
    texts.push(next.text);
    for (const value of next.parameters.values) values.push(value?.toString() ?? 'null');
  }
  return { texts, values, rest: ahead.rest };
}

test('a batch that is whole has all its statements and no rest', () => {
  const batch = Buffer.concat([PARSE, BIND, EXECUTE, BIND, EXECUTE, SYNC, query('SELECT 2')]);
  expect(readAll(batch)).toEqual({ texts: ['SELECT $1', 'SELECT $1'], values: ['abc', 'abc'], rest: null });
  expect(readAll(query('SELECT 2'))).toEqual({ texts: ['SELECT 2'], values: [], rest: null });
});

test('cut anywhere, the rest leads to the end of the message that is cut, and never beyond it', () => {
  const messages = [PARSE, BIND, EXECUTE, SYNC];
  const batch = Buffer.concat(messages);
  const ends = messages.map((_, index) => Buffer.concat(messages.slice(0, index + 1)).length);
  for (let length = 0; length < batch.length; length += 1) {
    const { texts, rest } = readAll(batch.subarray(0, length));
    const whole = ends.filter((end) => end <= length);
    const cut = (whole.at(-1) ?? 0) < length;
    const end = ends.find((at) => at > length) ?? 0;
    expect(rest?.cut, length.toString()).toBe(cut);
    expect(rest?.neededBytes, length.toString()).toBeGreaterThan(length);
    expect(rest?.neededBytes, length.toString()).toBeLessThanOrEqual(end);
    expect(texts.length).toBe(whole.length >= 2 ? 1 : 0);
  }
});
