/**
 * One task: load PostgreSQL's own parser (libpg-query, WebAssembly) and ask it for the tree of a text.
 *
 * About 137 MB of memory once loaded, so nothing here is loaded before a sharded database is there.
 */
import { messageOf } from '../errors/errors.js';
import { asTree, child, list, number, type Tree } from './statement-tree.js';

export interface ParsedStatement {
  /** its kind in the parser's words: `SelectStmt`, `InsertStmt`, … */
  readonly kind: string;
  readonly body: Tree;
  /** where it stands in the text, in UTF-16 code units, the semicolon left out */
  readonly start: number;
  readonly end: number;
}

export interface Token {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

export interface StatementParser {
  /** @returns null when the text is no SQL this parser knows, with nothing said about why: the server says it better */
  parse(sql: string): readonly ParsedStatement[] | null;
  /** the words of a text that `parse` accepted, comments left out; positions in UTF-16 code units */
  tokens(sql: string): readonly Token[];
}

let loading: Promise<StatementParser> | null = null;

/** Loads the parser; called again it answers the same. Throws where WebAssembly cannot be had. */
export function loadStatementParser(): Promise<StatementParser> {
  loading ??= import('libpg-query').then(async (library) => {
    await library.loadModule();
    return {
      parse: (sql) => parseWith(library.parseSync, sql),
      tokens: (sql) => tokensWith(library.scanSync, sql),
    };
  });
  return loading;
}

function parseWith(parse: (sql: string) => unknown, sql: string): readonly ParsedStatement[] | null {
  // The parser takes an empty text for a mistake of its caller, and ends a text at its first zero byte.
  if (sql.trim() === '') return [];
  if (sql.includes('\0')) return null;
  const tree = parsedOrNull(parse, sql);
  if (tree === null) return null;
  const at = characterOffsets(sql);
  return list(tree, 'stmts').map((raw) => {
    const statement = child(raw, 'stmt') ?? {};
    const kind = Object.keys(statement)[0] ?? '';
    const start = number(raw, 'stmt_location');
    const bytes = number(raw, 'stmt_len');
    return {
      kind,
      body: asTree(statement[kind]) ?? {},
      start: at(start),
      end: bytes === 0 ? sql.length : at(start + bytes),
    };
  });
}

function parsedOrNull(parse: (sql: string) => unknown, sql: string): Tree | null {
  try {
    return asTree(parse(sql));
  } catch (error) {
    // Both are the text's doing: a syntax error, or nesting deeper than a stack holds.
    if (error instanceof Error && (error.name === 'SqlError' || error instanceof RangeError)) return null;
    throw new Error(`the SQL parser failed: ${messageOf(error)}`, { cause: error });
  }
}

function tokensWith(
  scan: (sql: string) => { readonly tokens: readonly (Token & { readonly tokenName: string })[] },
  sql: string,
): readonly Token[] {
  const at = characterOffsets(sql);
  return scan(sql)
    .tokens.filter(({ tokenName }) => tokenName !== 'SQL_COMMENT' && tokenName !== 'C_COMMENT')
    .map(({ start, end, text }) => ({ start: at(start), end: at(end), text }));
}

/** The parser counts bytes of UTF-8, JavaScript counts UTF-16 code units. */
export function characterOffsets(sql: string): (byte: number) => number {
  const bytes = Buffer.from(sql, 'utf8');
  if (bytes.length === sql.length) return (byte) => byte;
  return (byte) => bytes.subarray(0, byte).toString('utf8').length;
}
