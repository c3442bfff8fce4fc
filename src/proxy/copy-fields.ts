/**
 * One task: read one field of a row of COPY FROM STDIN, in text and CSV format, as PostgreSQL reads it
 * (CopyReadAttributesText and CopyReadAttributesCSV in copyfromparse.c).
 */

export interface FieldFormat {
  /** one byte each */
  readonly delimiter: number;
  readonly quote: number;
  readonly escape: number;
  /** what stands for NULL */
  readonly nullText: Buffer;
  /** of the key's column: quoted text that looks like NULL is NULL; what looks like NULL is text */
  readonly forceNull: boolean;
  readonly forceNotNull: boolean;
  /** index of the sharding column */
  readonly keyIndex: number;
}

const BACKSLASH = 0x5c;
/** b, f, n, r, t, v behind a backslash. */
const CONTROLS: ReadonlyMap<number, number> = new Map([
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
  [0x76, 0x0b],
]);
const HEX = 0x78;

type TextFormat = Pick<FieldFormat, 'delimiter' | 'nullText' | 'keyIndex'>;

/**
 * The field of the key.
 *
 * @param line without its end
 * @returns null: NULL; undefined: the row has no such field
 */
export function textField(line: Buffer, { delimiter, nullText, keyIndex }: TextFormat): Buffer | null | undefined {
  let start = 0;
  let at = 0;
  let escapes = false;
  for (let field = 0; ;) {
    const byte = at < line.length ? line[at] : delimiter;
    if (byte === BACKSLASH && at < line.length) {
      escapes = true;
      at += 2;
      continue;
    }
    if (byte === delimiter) {
      if (field === keyIndex) break;
      if (at >= line.length) return undefined;
      field += 1;
      start = at + 1;
      escapes = false;
    }
    at += 1;
  }
  const raw = line.subarray(start, at);
  if (raw.equals(nullText)) return null;
  return escapes ? unescaped(raw) : raw;
}

function unescaped(raw: Buffer): Buffer {
  const bytes = Buffer.alloc(raw.length);
  let length = 0;
  for (let at = 0; at < raw.length;) {
    const byte = raw[at] ?? 0;
    if (byte !== BACKSLASH) {
      bytes[length] = byte;
      at += 1;
    } else {
      const [value, used] = escapeAt(raw, at + 1);
      bytes[length] = value;
      at += 1 + used;
    }
    length += 1;
  }
  return bytes.subarray(0, length);
}

/** What stands behind a backslash: the byte it means, and how many bytes it takes. */
function escapeAt(raw: Buffer, at: number): readonly [value: number, used: number] {
  const digits = raw.toString('latin1', at, at + 3);
  const octal = /^[0-7]{1,3}/.exec(digits)?.[0];
  if (octal !== undefined) return [parseInt(octal, 8) & 0xff, octal.length];
  const hex = /^x([\da-f]{1,2})/i.exec(raw[at] === HEX ? digits : '')?.[1];
  if (hex !== undefined) return [parseInt(hex, 16), 1 + hex.length];
  const byte = raw[at] ?? 0;
  return [CONTROLS.get(byte) ?? byte, 1];
}

/** See {@link textField}; undefined also where a quote has no end. */
export function csvField(line: Buffer, format: FieldFormat): Buffer | null | undefined {
  const { delimiter, quote, keyIndex, nullText } = format;
  let start = 0;
  let at = 0;
  for (let field = 0; ; at += 1) {
    if (at >= line.length || line[at] === delimiter) {
      if (field === keyIndex) break;
      if (at >= line.length) return undefined;
      field += 1;
      start = at + 1;
    } else if (line[at] === quote) {
      at = closingQuote(line, at, format);
      if (at < 0) return undefined;
    }
  }
  const raw = line.subarray(start, at);
  if (!raw.includes(quote)) return raw.equals(nullText) && !format.forceNotNull ? null : raw;
  const value = unquoted(raw, format);
  return format.forceNull && value.equals(nullText) ? null : value;
}

/** @returns -1 where there is none */
function closingQuote(line: Buffer, from: number, { quote, escape }: Pick<FieldFormat, 'quote' | 'escape'>): number {
  for (let at = from + 1; at < line.length; at += 1) {
    const next = line[at + 1];
    if (line[at] === escape && at + 1 < line.length && (next === escape || next === quote)) at += 1;
    else if (line[at] === quote) return at;
  }
  return -1;
}

/** A field may be quoted in parts. */
function unquoted(raw: Buffer, { quote, escape }: Pick<FieldFormat, 'quote' | 'escape'>): Buffer {
  const bytes = Buffer.alloc(raw.length);
  let length = 0;
  let inside = false;
  for (let at = 0; at < raw.length; at += 1) {
    const byte = raw[at] ?? 0;
    const next = raw[at + 1];
    const escapes = inside && byte === escape && at + 1 < raw.length && (next === escape || next === quote);
    if (escapes) at += 1;
    else if (byte === quote) {
      inside = !inside;
      continue;
    }
    bytes[length] = raw[at] ?? 0;
    length += 1;
  }
  return bytes.subarray(0, length);
}
