/** One task: cut an admin command into words. */
import { CutoverError } from '../errors/errors.js';

export interface Token {
  readonly kind: 'word' | 'identifier' | 'string';
  /** without quotes; case kept */
  readonly text: string;
}

const LENGTH_MAX = 100_000;
/** White space, comments and `;` between tokens (PostgreSQL documentation, 4.1.5; comments do not nest here). */
const GAP = /(?:\s|--[^\n]*|\/\*[\s\S]*?\*\/)+/y;
const IDENTIFIER = /"((?:[^"]|"")*)"/y;
const STRING = /'((?:[^']|'')*)'/y;
/** What a literal with a backslash becomes (PostgreSQL documentation, 4.1.2.2); only the backslash and the quote are escaped. */
const ESCAPE_STRING = /[eE]'((?:[^'\\]|''|\\[\\'])*)'/y;
/** Anything else up to a gap: names with dashes and dots and connection URLs need no quotes. A comma stands alone. */
const WORD = /,|[^\s;"',]+/y;

/**
 * The tokens of one command; one `;` may end it.
 *
 * @throws CutoverError `admin_syntax` for an open quote or a second command
 */
export function tokensOf(statement: string): readonly Token[] {
  if (statement.length > LENGTH_MAX) throw syntax('the command is too long');
  const scanner = new Scanner(statement);
  const tokens: Token[] = [];
  for (scanner.skip(GAP); !scanner.done; scanner.skip(GAP)) {
    if (scanner.skip(/;/y)) break;
    tokens.push(scanner.token());
  }
  while (scanner.skip(GAP) || scanner.skip(/;/y));
  if (!scanner.done) throw syntax('one command at a time');
  return tokens;
}

class Scanner {
  readonly #text: string;
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get done(): boolean {
    return this.#position === this.#text.length;
  }

  skip(pattern: RegExp): boolean {
    return this.#match(pattern) !== null;
  }

  token(): Token {
    const identifier = this.#match(IDENTIFIER);
    if (identifier !== null) return { kind: 'identifier', text: (identifier[1] ?? '').replaceAll('""', '"') };
    const string = this.#match(STRING);
    if (string !== null) return { kind: 'string', text: (string[1] ?? '').replaceAll("''", "'") };
    const escaped = this.#match(ESCAPE_STRING);
    if (escaped !== null) return { kind: 'string', text: (escaped[1] ?? '').replace(/'(')|\\(.)/g, '$1$2') };
    const word = this.#match(WORD);
    if (word !== null) return { kind: 'word', text: word[0] };
    throw syntax('a quote is not closed');
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#position;
    const match = pattern.exec(this.#text);
    if (match !== null) this.#position = pattern.lastIndex;
    return match;
  }
}

function syntax(problem: string): CutoverError {
  return new CutoverError('admin_syntax', { problem, usage: 'End a command with one ";".' });
}
