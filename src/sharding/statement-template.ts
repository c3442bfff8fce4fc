/**
 * One task: tell apart, in the text of a statement, its literals from everything else, so that texts that differ in values alone are one
 * template.
 *
 * Only what PostgreSQL's scanner reads the same whatever the values are: `'…'`, `123`, `1.5`. A text with anything else that holds a
 * value (`E'…'`, `$$…$$`, `0x1F`, `1e3`, a string that goes on behind a line's end) has no template, and is looked at whole. Lexical
 * rules: PostgreSQL documentation, 4.1.
 */

/** By the token and node that the parser makes of it: `ICONST`, `FCONST` of an integer beyond 32 bits, `FCONST` otherwise, `SCONST`. */
export type LiteralKind = 'integer' | 'wide' | 'decimal' | 'string';

/** A text's literals, in order. */
export interface Template {
  /** the text with a mark of its kind in the place of each literal; no text of a client is like it, since it has zero characters */
  readonly text: string;
  readonly sql: string;
  readonly kinds: readonly LiteralKind[];
  /** where each begins and ends in `sql`, in UTF-16 code units, quotes included */
  readonly starts: readonly number[];
  readonly ends: readonly number[];
}

/** A longer text is seldom sent with other values. */
const TEXT_MAX_LENGTH = 65_536;
const INTEGER_MAX = 2 ** 31 - 1;
const MARKS: Readonly<Record<LiteralKind, string>> = {
  integer: '\0i',
  wide: '\0w',
  decimal: '\0d',
  string: '\0s',
};

const [PLAIN, WORD, DIGIT, SPECIAL, SPACE] = [0, 1, 2, 3, 4];
const CLASSES = new Uint8Array(128);
for (const character of 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_') CLASSES[code(character)] = WORD;
for (const character of '0123456789') CLASSES[code(character)] = DIGIT;
for (const character of '\'"$-/&.') CLASSES[code(character)] = SPECIAL;
for (const character of ' \t\n\r\f\v') CLASSES[code(character)] = SPACE;
const QUOTE = code("'");
const DOUBLE_QUOTE = code('"');
const DOLLAR = code('$');
const MINUS = code('-');
const SLASH = code('/');
const STAR = code('*');
const AND = code('&');
const DOT = code('.');

/** The template of a text; null where it has none, or no literal. */
export function templateOf(sql: string): Template | null {
  if (sql.length > TEXT_MAX_LENGTH || sql.includes('\0')) return null;
  const scan = new Scan(sql);
  return scan.run() && scan.kinds.length > 0 ? scan : null;
}

/** The value of a string literal, which is written with its quotes. */
export function unquoted(literal: string): string {
  return literal.slice(1, -1).replaceAll("''", "'");
}

class Scan implements Template {
  text = '';
  readonly kinds: LiteralKind[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  readonly sql: string;
  #at = 0;

  constructor(sql: string) {
    this.sql = sql;
  }

  /** @returns false when the text has no template */
  run(): boolean {
    const { sql } = this;
    while (this.#at < sql.length) {
      switch (classAt(sql, this.#at)) {
        case WORD:
          if (!this.#word()) return false;
          break;
        case DIGIT:
          if (!this.#number()) return false;
          break;
        case SPECIAL:
          if (!this.#special()) return false;
          break;
        default:
          this.#at += 1;
      }
    }
    this.text += sql.slice(this.ends.at(-1) ?? 0);
    return true;
  }

  /** A letter before a quote makes another kind of string of it. */
  #word(): boolean {
    this.#at = wordEnd(this.sql, this.#at);
    return this.sql.charCodeAt(this.#at) !== QUOTE;
  }

  #number(): boolean {
    const { sql } = this;
    const start = this.#at;
    let end = digitsEnd(sql, start);
    const decimal = sql.charCodeAt(end) === DOT;
    if (decimal) {
      const fraction = end + 1;
      end = digitsEnd(sql, fraction);
      if (end === fraction || sql.charCodeAt(end) === DOT) return false;
    }
    // 1e3, 0x1F, 1_000, and what only looks like a number.
    if (wordEnd(sql, end) > end) return false;
    const integer = Number(sql.slice(start, end)) <= INTEGER_MAX ? 'integer' : 'wide';
    this.#add(start, end, decimal ? 'decimal' : integer);
    return true;
  }

  #special(): boolean {
    const { sql } = this;
    const next = sql.charCodeAt(this.#at + 1);
    switch (sql.charCodeAt(this.#at)) {
      case QUOTE:
        return this.#string();
      case DOUBLE_QUOTE:
        return this.#name();
      case DOLLAR:
        return this.#parameter();
      case MINUS:
        this.#at = next === MINUS ? lineEnd(sql, this.#at) : this.#at + 1;
        return true;
      case SLASH:
        if (next === STAR) return this.#comment();
        break;
      case AND:
        // U&'…'
        if (next === QUOTE || next === DOUBLE_QUOTE) return false;
        break;
      case DOT:
        if (classAt(sql, this.#at + 1) === DIGIT) return false;
        break;
    }
    this.#at += 1;
    return true;
  }

  #string(): boolean {
    const { sql } = this;
    const start = this.#at;
    let end = sql.indexOf("'", start + 1) + 1;
    while (end > 0 && sql.charCodeAt(end) === QUOTE) end = sql.indexOf("'", end + 1) + 1;
    if (end === 0) return false;
    let behind = end;
    while (classAt(sql, behind) === SPACE) behind += 1;
    // It may go on in the next line.
    if (sql.charCodeAt(behind) === QUOTE || sql.startsWith('--', behind)) return false;
    this.#add(start, end, 'string');
    return true;
  }

  /** `$1`; every other `$` outside of a word begins a string. */
  #parameter(): boolean {
    const end = digitsEnd(this.sql, this.#at + 1);
    if (end === this.#at + 1 || wordEnd(this.sql, end) > end) return false;
    this.#at = end;
    return true;
  }

  /** Comments may be inside comments. */
  #comment(): boolean {
    const { sql } = this;
    let at = this.#at + 2;
    for (let depth = 1; depth > 0;) {
      const end = sql.indexOf('*/', at);
      if (end < 0) return false;
      const inner = sql.indexOf('/*', at);
      depth += inner >= 0 && inner < end ? 1 : -1;
      at = (inner >= 0 && inner < end ? inner : end) + 2;
    }
    this.#at = at;
    return true;
  }

  #name(): boolean {
    const end = this.sql.indexOf('"', this.#at + 1);
    this.#at = end + 1;
    return end >= 0;
  }

  #add(start: number, end: number, kind: LiteralKind): void {
    this.text += this.sql.slice(this.ends.at(-1) ?? 0, start) + MARKS[kind];
    this.kinds.push(kind);
    this.starts.push(start);
    this.ends.push(end);
    this.#at = end;
  }
}

function code(character: string): number {
  return character.charCodeAt(0);
}

/** Characters beyond ASCII are letters; there is nothing behind the end. */
function classAt(sql: string, at: number): number {
  const character = sql.charCodeAt(at);
  return character < 128 ? (CLASSES[character] ?? PLAIN) : character >= 128 ? WORD : PLAIN;
}

function digitsEnd(sql: string, at: number): number {
  let end = at;
  while (classAt(sql, end) === DIGIT) end += 1;
  return end;
}

/** Where the letters, digits and `$` end that are one word with what stands before `at`. */
function wordEnd(sql: string, at: number): number {
  let end = at;
  for (;;) {
    const kind = classAt(sql, end);
    if (kind !== WORD && kind !== DIGIT && sql.charCodeAt(end) !== DOLLAR) return end;
    end += 1;
  }
}

function lineEnd(sql: string, at: number): number {
  let end = at;
  while (end < sql.length && sql[end] !== '\n' && sql[end] !== '\r') end += 1;
  return end;
}
