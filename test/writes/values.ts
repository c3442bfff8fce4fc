/** One task: values of each type of the tables, ordinary ones and those at the edges of the type, as text and in binary. */
import { int16, int32 } from '../../src/wire/backend.js';
import type { Random } from '../history/random.js';
import type { Value } from './sql.js';

const OIDS = {
  ...{ bool: 16, bytea: 17, int8: 20, int2: 21, int4: 23, text: 25, float4: 700, float8: 701, varchar: 1043 },
  ...{ date: 1082, timestamptz: 1184, interval: 1186, numeric: 1700, uuid: 2950, jsonb: 3802 },
  ...{ _int4: 1007, _int8: 1016, _text: 1009 },
} as const;

export type TypeName = keyof typeof OIDS;

function value(type: TypeName, text: string, bytes: Buffer | null, constant = quoted(text)): Value {
  return { type, oid: OIDS[type], text, bytes, constant };
}

export function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

export function nothing(type: TypeName): Value {
  return { type, oid: OIDS[type], text: null, bytes: null, constant: 'NULL' };
}

const INTEGER_BYTES = { int2: 2, int4: 4, int8: 8 } as const;

/** @param spelling as a constant in quotes, where it is not written as a number */
export function integer(type: keyof typeof INTEGER_BYTES, number: bigint | number, spelling?: string): Value {
  const exact = BigInt(number);
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(exact);
  const constant = spelling === undefined ? exact.toString() : quoted(spelling);
  return value(type, exact.toString(), bytes.subarray(8 - INTEGER_BYTES[type]), constant);
}

/** The ways a client may spell an integer as text: PostgreSQL documentation, 4.1.2.6. */
export function spelled(number: bigint, random: Random): string | undefined {
  const size = number < 0n ? -number : number;
  const sign = number < 0n ? '-' : '';
  const digits = size.toString();
  return [
    undefined,
    undefined,
    undefined,
    undefined,
    digits,
    ` ${sign}${digits} `,
    `${sign}0x${size.toString(16)}`,
    `${sign}0${digits}`,
  ][random.below(8)]?.replace(/^(?=\d)/, sign);
}

export function text(characters: string, random: Random, type: 'text' | 'varchar' = 'text'): Value {
  return value(type, characters, Buffer.from(characters), spelledText(characters, random));
}

/** Each way a text may stand in SQL. */
function spelledText(characters: string, random: Random): string {
  const way = random.below(6);
  if (way === 0 && !/[$]|x$/.test(characters)) return `$x$${characters}$x$`;
  if (way === 1) return `E${quoted(characters).replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`;
  if (way === 2 && /^[ -[\]-~]*$/.test(characters))
    return `U&${quoted(characters).replace(/[a-f]/g, (letter) => `\\00${letter.charCodeAt(0).toString(16)}`)}`;
  return quoted(characters);
}

export function boolean(truth: boolean): Value {
  return value('bool', truth ? 't' : 'f', Buffer.from([truth ? 1 : 0]), truth ? 'true' : 'false');
}

export function uuid(hex: string): Value {
  const spelling = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
  return value('uuid', spelling, Buffer.from(hex, 'hex'));
}

/** The same value, spelled as a client may. */
export function oddUuid(hex: string): Value {
  return { ...uuid(hex), text: `{${hex.toUpperCase()}}`, constant: quoted(`{${hex.toUpperCase()}}`) };
}

export function numeric(digits: string): Value {
  return value(
    'numeric',
    digits,
    numericBytes(digits),
    /^-?\d+(\.\d+)?$/.test(digits) && !digits.startsWith('-') ? digits : quoted(digits),
  );
}

const NUMERIC_SPECIAL: Readonly<Record<string, number>> = { NaN: 0xc000, Infinity: 0xd000, '-Infinity': 0xf000 };

/** Groups of four digits around the point, as numeric_recv reads them; null for what is written with an exponent. */
function numericBytes(digits: string): Buffer | null {
  const special = NUMERIC_SPECIAL[digits];
  if (special !== undefined) return Buffer.concat([int16(0), int16(0), uint16(special), int16(0)]);
  const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(digits);
  if (match === null) return null;
  const [, sign = '', whole = '', fraction = ''] = match;
  const padded =
    whole.padStart(Math.ceil(whole.length / 4) * 4, '0') + fraction.padEnd(Math.ceil(fraction.length / 4) * 4, '0');
  const groups = Array.from({ length: padded.length / 4 }, (_, at) => Number(padded.slice(at * 4, at * 4 + 4)));
  const head = [groups.length, Math.ceil(whole.length / 4) - 1].map(int16);
  return Buffer.concat([...head, uint16(sign === '-' ? 0x4000 : 0), int16(fraction.length), ...groups.map(int16)]);
}

function uint16(number: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(number);
  return bytes;
}

function float(type: 'float4' | 'float8', number: number): Value {
  const bytes = Buffer.alloc(type === 'float4' ? 4 : 8);
  if (type === 'float4') bytes.writeFloatBE(number);
  else bytes.writeDoubleBE(number);
  const written = Object.is(number, -0) ? '-0' : number.toString();
  return value(type, written, bytes);
}

function long(type: 'timestamptz', written: string, number: bigint): Value {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(number);
  return value(type, written, bytes);
}

function bytea(hex: string): Value {
  return value('bytea', `\\x${hex}`, Buffer.from(hex, 'hex'));
}

function jsonb(document: string): Value {
  return value('jsonb', document, Buffer.concat([Buffer.from([1]), Buffer.from(document)]));
}

/** An array without NULL, in binary too. */
export function integers(type: '_int4' | '_int8', items: readonly bigint[]): Value {
  const element = type === '_int4' ? 'int4' : 'int8';
  const bytes = items.map((item) => integer(element, item).bytes ?? Buffer.alloc(0));
  const head = [items.length === 0 ? 0 : 1, 0, OIDS[element], ...(items.length === 0 ? [] : [items.length, 1])];
  const body = Buffer.concat([...head.map(int32), ...bytes.flatMap((item) => [int32(item.length), item])]);
  return { ...value(type, `{${items.join(',')}}`, body), type: `${element}[]` };
}

export function texts(items: readonly string[]): Value {
  const escaped = items.map((item) => `"${item.replace(/[\\"]/g, '\\$&')}"`);
  return { ...value('_text', `{${escaped.join(',')}}`, null), type: 'text[]' };
}

/** Tabs, quotes, ends of lines, what means something to COPY or to SQL, other scripts, and a pair of UTF-16 units. */
export const TEXTS: readonly [string, ...string[]] = [
  ...([
    'plain',
    '',
    ' ',
    "it's",
    '"quoted"',
    'a\tb\nc\r\nd',
    'back\\slash\\N',
    '\\.',
    '\\N',
    'NULL',
    ',;|',
    '$1',
    '$$',
    '--',
    '/* x',
  ] as const),
  ...['äöü ß', '日本', '😀 end', '%_', 'values (1), (2)', ') RETURNING (', 'x'.repeat(3000)],
];

/** Of each type, at its edges. */
export const EDGES: Readonly<Record<string, (random: Random) => Value>> = {
  i2: (random) => integer('int2', random.pick([0, 1, -1, 32767, -32768])),
  i4: (random) => integer('int4', random.pick([0, 1, -1, 2147483647, -2147483648])),
  i8: (random) => integer('int8', random.pick([0n, -1n, 2n ** 31n, 2n ** 63n - 1n, -(2n ** 63n)])),
  n: (random) =>
    numeric(
      random.pick([
        '0',
        '0.00',
        '1.50',
        '-0.0001',
        '12345678901234567890.123456789',
        '9999',
        '10000',
        'NaN',
        'Infinity',
        '-Infinity',
        '1e-300',
        '1e300',
      ]),
    ),
  f4: (random) => float('float4', random.pick([0, -0, 0.5, -1.25, NaN, Infinity, -Infinity])),
  f8: (random) => float('float8', random.pick([0, -0, 0.1, -1e308, 5e-324, NaN, Infinity, -Infinity, 2 ** 53])),
  b: (random) => boolean(random.below(2) === 0),
  t: (random) => text(random.pick([...TEXTS]), random),
  v: (random) => text(random.pick(['', 'short', 'twelve chars', '日本語', '  padded  ']), random, 'varchar'),
  y: (random) => bytea(random.pick(['', '00', 'ff00ff', '5c2e0a', '0d0a090b'.repeat(40)])),
  j: (random) =>
    jsonb(
      random.pick(['null', '{}', '[1, 2.50, "x"]', '{"a": {"b": [null, true]}, "é": "\\u00e9"}', '"\\"\\\\"', '1e400']),
    ),
  a: (random) => integers('_int4', random.pick<bigint[]>([[], [1n], [-1n, 2147483647n, 0n]])),
  s: (random) =>
    random.pick([
      long('timestamptz', '2000-01-01 00:00:00+00', 0n),
      long('timestamptz', 'infinity', 2n ** 63n - 1n),
      long('timestamptz', '-infinity', -(2n ** 63n)),
      long('timestamptz', '1999-12-31 23:59:59.999999+00', -1n),
      long('timestamptz', '2000-01-01 02:30:00.5+02:30', 500_000n),
      value('timestamptz', '4714-11-24 00:00:00+00 BC', null),
    ]),
  d: (random) =>
    random.pick([
      value('date', '2000-01-01', int32(0)),
      value('date', '1999-02-28', int32(-307)),
      value('date', 'infinity', int32(2147483647)),
      value('date', '0044-03-15 BC', null),
    ]),
  u: (random) => uuid(random.pick(['0'.repeat(32), 'f'.repeat(32), 'a0eebc999c0b4ef8bb6d6bb9bd380a11'])),
  i: (random) =>
    value('interval', random.pick(['0', '1 year -2 days 03:04:05.000006', '-178000000 years', '00:00:60']), null),
};
