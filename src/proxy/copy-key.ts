/** One task: tell, from the sharding key of one row of a COPY, the shard of the row. */
import { parseKey } from '../config/key-values.js';
import { shardOf } from '../sharding/hash.js';
import type { KeyValue } from '../sharding/scheme.js';
import { isLonger } from '../sharding/statement-literals.js';
import type { CopyKey } from '../sharding/statement-verdict.js';

/** `unreadable`: it is no value of its column, or not surely one; `unmapped`: no shard is configured for it */
export type KeyPlace = number | 'unreadable' | 'unmapped';

const TEXT = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const INTEGER_BYTES: ReadonlyMap<string, number> = new Map([
  ['int2', 2],
  ['int4', 4],
  ['int8', 8],
]);
const UUID_BYTES = 16;

/** @param field as it stands in the row; null: NULL */
export function placeOfKey(key: CopyKey, field: Buffer | null, binary: boolean, shards: number): KeyPlace {
  const value = field === null ? null : valueOf(key, field, binary);
  if (value === undefined) return 'unreadable';
  return shardOf(key.rule, value, shards) ?? 'unmapped';
}

function valueOf({ rule, type, maxLength }: CopyKey, field: Buffer, binary: boolean): KeyValue | undefined {
  if (binary && rule.type === 'bigint') return integerOf(field, INTEGER_BYTES.get(type) ?? 0);
  if (binary && rule.type === 'uuid')
    return field.length === UUID_BYTES ? read('uuid', field.toString('hex')) : undefined;
  const text = textOf(field);
  // What is cut off a text that is too long, if it is only spaces, is for the server to say.
  if (text === undefined || isLonger(text, maxLength)) return undefined;
  return read(rule.type, text);
}

function read(type: CopyKey['rule']['type'], text: string): KeyValue | undefined {
  return parseKey(type, text) ?? undefined;
}

function integerOf(field: Buffer, bytes: number): bigint | undefined {
  if (field.length !== bytes) return undefined;
  if (bytes === 2) return BigInt(field.readInt16BE());
  return bytes === 4 ? BigInt(field.readInt32BE()) : field.readBigInt64BE();
}

function textOf(field: Buffer): string | undefined {
  try {
    return TEXT.decode(field);
  } catch {
    return undefined;
  }
}
