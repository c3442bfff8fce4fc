/** One task: what is sent for a COPY is cut into the same rows, with the same keys, wherever its messages end. */
import { describe, expect, test } from 'vitest';
import { CopyTuples } from '../../src/proxy/copy-binary.js';
import { copyRowsOf, type CopyFormat } from '../../src/proxy/copy-format.js';
import { CopyLines, ROW_BYTES_MAX, type CopyPiece, type CopyRows, type LineFormat } from '../../src/proxy/copy-rows.js';
import { int16, int32 } from '../../src/wire/backend.js';
import { BINARY_HEADER, binaryOf, csvOf, inPieces, textOf } from './copies.js';

const TEXT: LineFormat = {
  ...{ kind: 'text', header: false, delimiter: 9, quote: 34, escape: 34, nullText: Buffer.from('\\N') },
  ...{ forceNull: false, forceNotNull: false, keyIndex: 1, csvMarker: 'row' },
};
const CSV: LineFormat = { ...TEXT, kind: 'csv', delimiter: 44, nullText: Buffer.alloc(0) };
const BINARY = { kind: 'binary', keyIndex: 1, columns: 2 } as const;

function cut(rows: CopyRows, chunks: readonly Buffer[]): readonly CopyPiece[] {
  return [...chunks.flatMap((chunk) => rows.push(chunk)), ...rows.end()];
}

/** Keys in short: what is no row is `#`, what cannot be placed `!`. */
function keysOf(pieces: readonly CopyPiece[]): readonly (string | null)[] {
  return pieces.map((piece) =>
    piece.kind === 'row' ? (piece.key?.toString('latin1') ?? null) : piece.kind === 'all' ? '#' : '!',
  );
}

const textKeys = (text: string, format = {}): readonly (string | null)[] =>
  keysOf(cut(new CopyLines({ ...TEXT, ...format }), [Buffer.from(text)]));
const csvKeys = (text: string, format = {}): readonly (string | null)[] =>
  keysOf(cut(new CopyLines({ ...CSV, ...format }), [Buffer.from(text)]));

const ROWS = [
  ['a', 'plain'],
  ['b', null],
  ['', 'tab\tnewline\nreturn\rback\\slash'],
  ['"quo"ted', 'a "quote", and\n\nmore'],
  ['c', 'ünïcödé \u{1f600}'],
  ['d', ''],
] as const;
const bytesOf = (rows: readonly (readonly (string | null)[])[]): Buffer =>
  binaryOf(rows.map((row) => row.map((value) => (value === null ? null : Buffer.from(value)))));

describe.each([
  ['text', Buffer.from(textOf(ROWS)), () => new CopyLines(TEXT)],
  ['text, CR and LF', Buffer.from(textOf(ROWS).replaceAll('\n', '\r\n')), () => new CopyLines(TEXT)],
  ['text, CR', Buffer.from(textOf(ROWS).replaceAll('\n', '\r')), () => new CopyLines(TEXT)],
  [
    'text with an end and a header',
    Buffer.from(`x\ty\n${textOf(ROWS)}\\.\nmore`),
    () => new CopyLines({ ...TEXT, header: true }),
  ],
  ['text without a last newline', Buffer.from(textOf(ROWS).slice(0, -1)), () => new CopyLines(TEXT)],
  ['CSV', Buffer.from(csvOf(ROWS)), () => new CopyLines({ ...CSV, header: true })],
  ['CSV with backslashes', Buffer.from('a,"b\\"c"\n"\\\\",d\n'), () => new CopyLines({ ...CSV, escape: 92 })],
  ['binary', bytesOf(ROWS), () => new CopyTuples(BINARY)],
] as const)('%s', (_, bytes, rows) => {
  test('cut at every byte, or into single bytes, it is the same', () => {
    const whole = cut(rows(), [bytes]);
    expect(whole.length).toBeGreaterThan(1);
    expect(keysOf(whole)).not.toContain('!');
    expect(cut(rows(), inPieces(bytes, 1))).toEqual(whole);
    for (let at = 1; at < bytes.length; at += 1)
      expect(cut(rows(), [bytes.subarray(0, at), bytes.subarray(at)])).toEqual(whole);
  });
});

test('nothing of the rows is lost, and each is whole', () => {
  const pieces = cut(new CopyLines(TEXT), [Buffer.from(textOf(ROWS))]);
  expect(pieces.map(({ bytes }) => bytes.toString())).toEqual(ROWS.map((row) => textOf([row])));
  expect(keysOf(pieces)).toEqual(ROWS.map(([, key]) => (key === null ? null : Buffer.from(key).toString('latin1'))));
  const csv = cut(new CopyLines(CSV), [Buffer.from(csvOf(ROWS))]);
  expect(csv.map(({ bytes }) => bytes.toString())).toEqual(ROWS.map((row) => csvOf([row])));
  expect(keysOf(csv)).toEqual(keysOf(pieces));
  const tuples = cut(new CopyTuples(BINARY), [bytesOf(ROWS)]);
  expect(Buffer.concat(tuples.map(({ bytes }) => bytes))).toEqual(bytesOf(ROWS));
  expect(keysOf(tuples)).toEqual(['#', ...keysOf(pieces), '#']);
});

test('a field of text format means what PostgreSQL reads in it', () => {
  const cases: readonly (readonly [string, string | null])[] = [
    ['\\101\\x42\\x4Z', 'AB\x04Z'],
    ['\\b\\f\\n\\r\\t\\v', '\b\f\n\r\t\v'],
    ['\\q\\x\\\\N', 'qx\\N'],
    ['\\\t', '\t'],
    ['\\\n', '\n'],
    ['\\7779', '\xff9'],
    ['\\N', null],
    ['\\NN', 'NN'],
    ['', ''],
  ];
  for (const [written, key] of cases) expect(textKeys(`x\t${written}\ty\n`)).toEqual([key]);
  expect(textKeys('x\tnil\n', { nullText: Buffer.from('nil') })).toEqual([null]);
});

test('a field of CSV means what PostgreSQL reads in it', () => {
  const cases: readonly (readonly [string, string | null])[] = [
    ['a"b,c"d""', 'ab,cd'],
    ['"a""b"', 'a"b'],
    ['""', ''],
    ['', null],
    [' "a" ', ' a '],
  ];
  for (const [written, key] of cases) expect(csvKeys(`x,${written},y\n`)).toEqual([key]);
  expect(csvKeys('x,""\n', { forceNull: true })).toEqual([null]);
  expect(csvKeys('x,\n', { forceNotNull: true })).toEqual(['']);
  expect(csvKeys('x,\nx,""\n', { forceNotNull: true, forceNull: true })).toEqual(['', null]);
  expect(csvKeys("x,'a\\'b\n'\n", { quote: 39, escape: 92 })).toEqual(["a'b\n"]);
});

test('what cannot be cut for sure ends it', () => {
  expect(textKeys('a\n')).toEqual(['!']);
  expect(textKeys('a\tb\r\nc\td\n')).toEqual(['b', '!']);
  expect(textKeys('a\tb\nc\td\r\n')).toEqual(['b', '!']);
  expect(textKeys('a\tb\rc\td\n')).toEqual(['b', '!']);
  expect(textKeys('a\tb\nc\td\\.\ne\tf\n')).toEqual(['b', '!']);
  expect(textKeys('a\tb\\')).toEqual(['!']);
  expect(csvKeys('a,"b')).toEqual(['!']);
  expect(csvKeys('a,b\n\\.\nc,d\n', { csvMarker: 'unclear' })).toEqual(['b', '!']);
  expect(csvKeys('a,b\n\\.\nc,d\n', { csvMarker: 'end' })).toEqual(['b']);
  expect(csvKeys('a,b\n\\.\nc,d\n')).toEqual(['b', '!']);
  const binary = (...parts: readonly Buffer[]): readonly (string | null)[] =>
    keysOf(cut(new CopyTuples(BINARY), [Buffer.concat(parts)]));
  expect(binary(Buffer.from('PGCOPX\n\xff\r\n\0', 'latin1'), int32(0), int32(0))).toEqual(['!']);
  expect(binary(BINARY_HEADER, int16(3))).toEqual(['#', '!']);
  expect(binary(BINARY_HEADER, int16(2), int32(-2))).toEqual(['#', '!']);
  expect(binary(BINARY_HEADER, int16(2), int32(1))).toEqual(['#', '!']);
  expect(binary(BINARY_HEADER, int16(-1), int16(-1))).toEqual(['#', '#', '!']);
  expect(binary(BINARY_HEADER)).toEqual(['#']);
});

test('a row that is too long is not kept, in any format', () => {
  const long = Buffer.alloc(1024 * 1024, 'x');
  const formats: readonly (readonly [CopyFormat, Buffer])[] = [
    [TEXT, Buffer.alloc(0)],
    [CSV, Buffer.from('"')],
    [BINARY, Buffer.concat([BINARY_HEADER, int16(2), int32(1 << 30)])],
  ];
  for (const [format, begin] of formats) {
    const rows = copyRowsOf(format, ['18.4']);
    const pieces = [...rows.push(begin)];
    for (let sent = 0; sent <= ROW_BYTES_MAX; sent += long.length) pieces.push(...rows.push(long));
    expect(pieces.at(-1)).toMatchObject({
      kind: 'unreadable',
      problem: expect.stringMatching(/longer than/) as unknown,
    });
    expect([...rows.push(long), ...rows.end()]).toEqual([]);
  }
});
