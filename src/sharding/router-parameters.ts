/** One task: read the values of a statement's parameters as sharding keys, in text and binary format. */
import { parseKey } from '../config/key-values.js';
import type { KeyType, KeyValue } from './scheme.js';
import { isLonger } from './statement-literals.js';
import type { ParameterKey } from './statement-verdict.js';

/** What Parse and Bind said. */
export interface StatementParameters {
  readonly values: readonly (Buffer | null)[];
  /** 0 text, 1 binary: none (all text), one for all, or one for each (PostgreSQL documentation, 55.7, Bind) */
  readonly formats: readonly number[];
  /** OIDs of Parse; 0 or absent where the server shall infer the type */
  readonly types: readonly number[];
  /** whether the session's client_encoding is that of the hash, UTF-8 */
  readonly utf8: boolean;
}

export const NO_PARAMETERS: StatementParameters = { values: [], formats: [], types: [], utf8: true };

/** OIDs of the types of src/include/catalog/pg_type.dat, which never change: single values, and arrays of them. */
const SINGLE: ReadonlyMap<number, KeyType> = new Map([
  [21, 'bigint'],
  [23, 'bigint'],
  [20, 'bigint'],
  [25, 'varchar'],
  [1043, 'varchar'],
  [2950, 'uuid'],
]);
const ARRAYS: ReadonlyMap<number, KeyType> = new Map([
  [1005, 'bigint'],
  [1007, 'bigint'],
  [1016, 'bigint'],
  [1009, 'varchar'],
  [1015, 'varchar'],
  [2951, 'uuid'],
]);
const INTEGER_BYTES: ReadonlyMap<number, number> = new Map([
  [21, 2],
  [23, 4],
  [20, 8],
]);
const BINARY = 1;
const UUID_BYTES = 16;

/** The key a parameter is; undefined when it cannot be told for sure, and the server or the coordinator must. */
export function parameterKey(key: ParameterKey, parameters: StatementParameters): KeyValue | null | undefined {
  const at = key.number - 1;
  const value = parameters.values[at];
  if (value === undefined) return undefined;
  return valueKey(key, parameters.types[at] ?? 0, value, formatOf(parameters, at) === BINARY, parameters.utf8);
}

/**
 * As {@link parameterKey}, of its value alone.
 *
 * @param declared OID of Parse, 0 where the server shall infer the type
 * @param value as it stands in a Bind; null: NULL
 */
export function valueKey(
  key: ParameterKey,
  declared: number,
  value: Buffer | null,
  binary: boolean,
  utf8: boolean,
): KeyValue | null | undefined {
  const type = readAs(key, declared);
  if (type === null) return undefined;
  if (value === null) return null;
  return readValue(value, type, key, declared, binary, utf8) ?? undefined;
}

/** The keys that the elements of an array are; null when they cannot be told for sure. */
export function arrayParameterKeys(
  key: ParameterKey,
  parameters: StatementParameters,
): readonly (KeyValue | null)[] | null {
  const at = key.number - 1;
  const value = parameters.values[at];
  const type = readAs(key, parameters.types[at] ?? 0);
  if (value === undefined || type === null) return null;
  if (value === null) return [null];
  const binary = formatOf(parameters, at) === BINARY;
  const elements = binary ? binaryElements(value) : textElements(value);
  if (elements === null) return null;
  const keys = elements.map((element) => readValue(element.bytes, type, key, element.type, binary, parameters.utf8));
  return keys.every((entry) => entry !== null) ? keys : null;
}

function formatOf({ formats }: StatementParameters, index: number): number {
  return (formats.length === 1 ? formats[0] : formats[index]) ?? 0;
}

/** How the bytes are to be read; null where the server would compare them as something else. */
function readAs(key: ParameterKey, declared: number): KeyType | null {
  if (declared === 0) return key.inferred ? key.type : null;
  const type = (key.kind === 'parameter' ? SINGLE : ARRAYS).get(declared) ?? null;
  if (type === key.type) return type;
  // A cast from text runs the input function of the key's type.
  return key.cast && type === 'varchar' && key.kind === 'parameter' ? 'varchar' : null;
}

function readValue(
  bytes: Buffer,
  type: KeyType,
  key: ParameterKey,
  oid: number,
  binary: boolean,
  utf8: boolean,
): KeyValue | null {
  if (binary && type === 'bigint') return readInteger(bytes, INTEGER_BYTES.get(oid) ?? bytes.length);
  if (binary && type === 'uuid') return bytes.length === UUID_BYTES ? parseKey('uuid', bytes.toString('hex')) : null;
  const text = readText(bytes, utf8);
  if (text === null || isLonger(text, key.maxLength)) return null;
  return parseKey(key.type, text);
}

function readInteger(bytes: Buffer, length: number): bigint | null {
  if (bytes.length !== length) return null;
  switch (length) {
    case 2:
      return BigInt(bytes.readInt16BE());
    case 4:
      return BigInt(bytes.readInt32BE());
    case 8:
      return bytes.readBigInt64BE();
    default:
      return null;
  }
}

/** A key most often is, and decoding it takes less than asking the decoder to. */
const SHORT_BYTES = 64;
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** In another encoding only ASCII has the bytes that are hashed. */
function readText(bytes: Buffer, utf8: boolean): string | null {
  if (bytes.length <= SHORT_BYTES && isAscii(bytes)) return bytes.toString('latin1');
  if (!utf8 && !isAscii(bytes)) return null;
  try {
    return UTF8.decode(bytes);
  } catch {
    return null;
  }
}

function isAscii(bytes: Buffer): boolean {
  for (const byte of bytes) if (byte > 0x7f) return false;
  return true;
}

interface Element {
  readonly bytes: Buffer;
  /** OID, where the array says it; else 0 */
  readonly type: number;
}

/**
 * The elements of an array in binary format (array_send): dimensions, a flag, the type, then length and lower bound of the dimension,
 * then each element with its length. NULL elements are left out: nothing equals them. Null for what is not one dimension.
 */
function binaryElements(value: Buffer): readonly Element[] | null {
  if (value.length < 12) return null;
  const dimensions = value.readInt32BE(0);
  const type = value.readInt32BE(8);
  if (dimensions === 0) return [];
  if (dimensions !== 1 || value.length < 20) return null;
  const count = value.readInt32BE(12);
  const elements: Element[] = [];
  let offset = 20;
  for (let index = 0; index < count; index += 1) {
    if (offset + 4 > value.length) return null;
    const length = value.readInt32BE(offset);
    offset += 4;
    if (length < 0) continue;
    if (offset + length > value.length) return null;
    elements.push({ bytes: value.subarray(offset, offset + length), type });
    offset += length;
  }
  return elements;
}

const ARRAY_TEXT = /^\{(.*)\}$/s;
/** Quoted with backslash escapes, or bare without what would need quotes (PostgreSQL documentation, 8.15.2). */
const ARRAY_ELEMENT = /\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",{}\\][^",{}\\]*))\s*(,|$)/sy;

/** The elements of an array's text form; null for nested arrays, bounds and whatever is not plain. */
function textElements(value: Buffer): readonly Element[] | null {
  const inside = ARRAY_TEXT.exec(value.toString('latin1'))?.[1];
  if (inside === undefined) return null;
  if (inside.trim() === '') return [];
  const elements: Element[] = [];
  const pattern = new RegExp(ARRAY_ELEMENT);
  for (;;) {
    const match = pattern.exec(inside);
    if (match === null) return null;
    const [, quoted, bare, end] = match;
    const text = quoted?.replace(/\\(.)/gs, '$1') ?? bare?.trimEnd() ?? '';
    if (quoted !== undefined || text.toUpperCase() !== 'NULL')
      elements.push({ bytes: Buffer.from(text, 'latin1'), type: 0 });
    if (end !== ',') return elements;
    // A comma at the end is an error of the server's.
    if (pattern.lastIndex >= inside.length) return null;
  }
}
