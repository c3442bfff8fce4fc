/**
 * One task: exchange two database names in the text of a configuration file.
 *
 * The characters of the names are replaced where they stand and nothing else moves, so comments, order, formatting, line
 * ends and a byte order mark survive. toml-patch finds the places; its own `patch` is not used, because it takes exchanged
 * names for moved elements and moves their comments along (seen with 3.3.0). smol-toml then reads the result, and it is accepted
 * only if it is exactly the intended object.
 */
import { isDeepStrictEqual } from 'node:util';
import { CutoverError, messageOf } from '../errors/errors.js';
import { BYTE_ORDER_MARK, positionsOf, type Path, type StringToken, type TomlPositions } from './document.js';
import { parseToml } from './source.js';
import { exchanged } from './swap.js';

export type FileKind = 'config' | 'users';

/** Every key of the two files that names a database; a list names one in each element. */
const NAMING_KEYS: Readonly<Record<FileKind, readonly string[]>> = {
  config: [
    'databases.name',
    'sharded_tables.database',
    'sharded_mappings.database',
    'sharded_schemas.database',
    'omnisharded_tables.database',
    'sharding.coordinator',
    'query_parsers.database',
    'mirroring.source_db',
    'mirroring.destination_db',
  ],
  users: ['users.database', 'users.databases'],
};

type Table = Record<string, unknown> & { database_name?: unknown };

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/**
 * The text with `a` and `b` exchanged. Where `[[databases]]` leaves `database_name` to default to `name`, the old name is
 * written down, as the server's database keeps its name. Pure; twice gives the same data as the first text.
 *
 * @throws CutoverError `configuration_not_saved` when the result would not read as intended; nothing was written
 */
export function swapText(text: string, kind: FileKind, a: string, b: string): string {
  const intended = tree(text);
  swapTree(intended, kind, a, b);
  const swapped = edited(text, kind, a, b);
  if (!isDeepStrictEqual(tree(swapped), intended)) {
    throw new CutoverError('configuration_not_saved', {
      problem: `the ${kind} file is written in a way that cannot be edited`,
    });
  }
  return swapped;
}

function tree(text: string): Table {
  return parseToml({ file: 'the file', text });
}

function edited(text: string, kind: FileKind, a: string, b: string): string {
  const { body, strings } = places(text);
  const named = new Set(
    strings.filter((token) => token.path[2] === 'database_name').map((token) => entryOf(token.path)),
  );
  const edits = strings
    .filter((token) => namesDatabase(token.path, kind) && exchanged(token.value, a, b) !== token.value)
    .flatMap((token) => {
      const rename = { start: token.start, end: token.end, text: quoted(body, token, exchanged(token.value, a, b)) };
      const keepsName = token.path[0] !== 'databases' || named.has(entryOf(token.path));
      return keepsName ? [rename] : [rename, databaseNameEdit(body, token)];
    });
  return (text.startsWith(BYTE_ORDER_MARK) ? BYTE_ORDER_MARK : '') + applied(body, edits);
}

function places(text: string): TomlPositions {
  try {
    return positionsOf(text);
  } catch (error) {
    // Only the first line: the others quote the file, which may hold a password.
    throw new CutoverError('configuration_not_saved', { problem: messageOf(error).split('\n')[0] ?? '' });
  }
}

/** `[[databases]]`, second element, key `name` has the path `['databases', 1, 'name']`; `[sharding]` has no elements. */
function namesDatabase(path: Path, kind: FileKind): boolean {
  const [table, index, key, element] = path;
  if (path.length === 2) return NAMING_KEYS[kind].includes(path.join('.'));
  if (typeof index !== 'number' || path.length > 4 || (element !== undefined && typeof element !== 'number'))
    return false;
  return NAMING_KEYS[kind].includes(`${String(table)}.${String(key)}`);
}

function entryOf(path: Path): string {
  return JSON.stringify(path.slice(0, 2));
}

/** `database_name` on a line of its own below the name, with the name's indent; behind a comma in an inline table. */
function databaseNameEdit(body: string, token: StringToken): Edit {
  const assignment = `database_name = ${body.slice(token.start, token.end)}`;
  if (token.lineEnd === null) return { start: token.end, end: token.end, text: `, ${assignment}` };
  const lineStart = body.lastIndexOf('\n', token.start) + 1;
  const indent = /^[ \t]*/.exec(body.slice(lineStart))?.[0] ?? '';
  const lineBreak = body.includes('\r\n') ? '\r\n' : '\n';
  return { start: token.lineEnd, end: token.lineEnd, text: `${lineBreak}${indent}${assignment}` };
}

/** The new value in the quotes of the old one where it fits into them (TOML 1.0, "String"). */
function quoted(body: string, token: StringToken, value: string): string {
  const literal = body[token.start] === "'" && body[token.start + 1] !== "'";
  if (literal && !/['\p{Cc}]/u.test(value)) return `'${value}'`;
  return JSON.stringify(value).replaceAll('\u007F', '\\u007F');
}

function applied(body: string, edits: readonly Edit[]): string {
  const ordered = [...edits].sort((x, y) => x.start - y.start || x.end - y.end);
  let result = '';
  let position = 0;
  for (const edit of ordered) {
    result += body.slice(position, edit.start) + edit.text;
    position = edit.end;
  }
  return result + body.slice(position);
}

/** The same exchange made on the parsed object itself: what the edited text has to read as. */
function swapTree(root: Table, kind: FileKind, a: string, b: string): void {
  for (const place of NAMING_KEYS[kind]) {
    const [table = '', key = ''] = place.split('.');
    const rows = root[table];
    if (typeof rows !== 'object' || rows === null) continue;
    for (const row of (Array.isArray(rows) ? rows : [rows]) as Table[])
      swapValue(row, key, a, b, table === 'databases');
  }
}

function swapValue(row: Table, key: string, a: string, b: string, isDatabase: boolean): void {
  const value = row[key];
  if (Array.isArray(value)) {
    row[key] = value.map((name: unknown) => (typeof name === 'string' ? exchanged(name, a, b) : name));
  } else if (typeof value === 'string' && exchanged(value, a, b) !== value) {
    row[key] = exchanged(value, a, b);
    if (isDatabase) row.database_name ??= value;
  }
}
