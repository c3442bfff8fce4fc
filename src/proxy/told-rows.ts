/** One task: cut from what an UPDATE answers the columns that only the proxy asked for, which stand at the end of each row. */
import { invariant } from '../errors/invariant.js';
import { frame, uint16 } from '../wire/backend.js';
import { HEADER_BYTES } from '../wire/frames.js';

const COUNT_BYTES = 2;
const LENGTH_BYTES = 4;
/** Of one column of a RowDescription, behind its name (PostgreSQL documentation, 54.7). */
const DESCRIPTION_BYTES = 18;

export interface ToldRow {
  /** for the client */
  readonly row: Buffer;
  /** for the proxy; null: NULL */
  readonly told: readonly (string | null)[];
}

/** @param row a DataRow, whole @param told how many columns are the proxy's; texts */
export function cutRow(row: Buffer, told: number): ToldRow {
  const count = row.readUInt16BE(HEADER_BYTES);
  let at = HEADER_BYTES + COUNT_BYTES;
  const value = (): string | null => {
    const bytes = row.readInt32BE(at);
    const from = at + LENGTH_BYTES;
    at = from + Math.max(0, bytes);
    return bytes < 0 ? null : row.toString('utf8', from, at);
  };
  for (let left = count - told; left > 0; left -= 1) at += LENGTH_BYTES + Math.max(0, row.readInt32BE(at));
  const end = at;
  const values = Array.from({ length: told }, value);
  invariant(at === row.length, 'a row ends with its last value');
  const kept = row.subarray(HEADER_BYTES + COUNT_BYTES, end);
  return { row: frame('D', uint16(count - told), kept), told: values };
}

/** @param description a RowDescription, whole */
export function cutDescription(description: Buffer, told: number): Buffer {
  const kept = description.readUInt16BE(HEADER_BYTES) - told;
  let at = HEADER_BYTES + COUNT_BYTES;
  for (let left = kept; left > 0; left -= 1) at = description.indexOf(0, at) + 1 + DESCRIPTION_BYTES;
  return frame('T', uint16(kept), description.subarray(HEADER_BYTES + COUNT_BYTES, at));
}
