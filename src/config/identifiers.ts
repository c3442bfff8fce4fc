/** One task: read names of tables, schemas and columns as SQL reads them. */

const IDENTIFIER_MAX_BYTES = 63;
/** One part: a bare word, or anything in double quotes with a quote doubled (PostgreSQL documentation, 4.1.1). */
const PART = /(?:"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_$]*))(\.|$)/uy;

/**
 * The parts of a dotted name: bare words in lower case (only A to Z, as PostgreSQL does in UTF-8), quoted ones as they stand.
 * Null when SQL would not accept it as a name. Longer names than a server keeps are refused, not cut.
 */
export function foldName(text: string): readonly string[] | null {
  const parts: string[] = [];
  PART.lastIndex = 0;
  let dotted = true;
  while (dotted) {
    const match = PART.exec(text);
    if (match === null) return null;
    const [, quoted, bare = '', dot] = match;
    const part = quoted?.replaceAll('""', '"') ?? bare.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
    if (part.includes('\0') || Buffer.byteLength(part) > IDENTIFIER_MAX_BYTES) return null;
    parts.push(part);
    dotted = dot === '.';
  }
  return parts;
}
