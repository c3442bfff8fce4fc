/** One task: read one of the two files: TOML, known keys only, and an error that names file, line and key. */
import { parse, TomlError } from 'smol-toml';
import { z } from 'zod';
import { CutoverError, messageOf } from '../errors/errors.js';
import { positionsOf, withoutByteOrderMark, type Path } from './document.js';
import { suggest } from './suggest.js';

export interface Source {
  readonly file: string;
  readonly text: string;
}

/** A file that passed: its values, and where to point when something about them is wrong after all. */
export interface CheckedSource<T> {
  readonly file: string;
  readonly data: T;
  /** the error for a value at `path`; never quotes the value, it may be a password */
  invalid(path: Path, problem: string): CutoverError;
}

interface Problem {
  readonly path: Path;
  readonly text: string;
}

/**
 * Parses and validates.
 *
 * @throws CutoverError `configuration_invalid` for the first wrong line, saying how many more there are
 */
export function checkSource<T>(source: Source, schema: z.ZodType<T>): CheckedSource<T> {
  const tree = parseToml(source);
  const positions = lazy(() => positionsOf(source.text));
  const invalid = (path: Path, problem: string): CutoverError =>
    new CutoverError('configuration_invalid', {
      file: source.file,
      line: positions().lineOf(path),
      key: keyOf(path),
      problem,
    });
  const result = schema.safeParse(tree);
  if (result.success) return { file: source.file, data: result.data, invalid };
  const problems = result.error.issues.flatMap((issue) => problemsOf(issue, schema, tree));
  problems.sort((a, b) => positions().lineOf(a.path) - positions().lineOf(b.path));
  const [first, ...others] = problems;
  if (!first) throw new CutoverError('internal', { problem: 'a refusal without an issue' });
  throw invalid(first.path, others.length === 0 ? first.text : `${first.text} (and ${String(others.length)} more)`);
}

/** smol-toml's message quotes the lines around the mistake, and they may hold a password: only its first line is used. */
export function parseToml(source: Source): Record<string, unknown> {
  try {
    return parse(withoutByteOrderMark(source.text), { integersAsBigInt: 'asNeeded', unsafeKeyBehaviour: 'throw' });
  } catch (error) {
    const problem = (messageOf(error).split('\n')[0] ?? '').replace('Invalid TOML document: ', 'not valid TOML: ');
    const line = error instanceof TomlError ? error.line : 1;
    throw new CutoverError('configuration_invalid', { file: source.file, line, problem });
  }
}

function problemsOf(issue: z.core.$ZodIssue, schema: z.ZodType, tree: unknown): Problem[] {
  const path = issue.path.filter((step) => typeof step !== 'symbol');
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(schema, path);
    return issue.keys.map((key) => ({ path: [...path, key], text: unknownKey(path, key, known) }));
  }
  const key = `"${path.findLast((step) => typeof step === 'string') ?? ''}"`;
  const value = valueAt(tree, path);
  if (value === undefined) return [{ path, text: `${key} is missing in ${tableOf(path.slice(0, -1))}` }];
  const reason = issue.message
    .replace(/^Invalid (input|option): /, '')
    .replace('received bigint', 'received one too large');
  const meant =
    issue.code === 'invalid_value' && typeof value === 'string' ? suggest(value, issue.values.map(String)) : null;
  return [{ path, text: `${key}: ${reason}${didYouMean(meant)}` }];
}

function unknownKey(path: Path, key: string, known: readonly string[]): string {
  const what = path.length === 0 ? `unknown table or key "${key}"` : `unknown key "${key}" in ${tableOf(path)}`;
  return what + didYouMean(suggest(key, known));
}

function didYouMean(word: string | null): string {
  return word === null ? '' : `, did you mean "${word}"?`;
}

/** `[general]` or `[[databases]]`, as it is written in the file. */
function tableOf(path: Path): string {
  const name = String(path[0] ?? 'the file');
  return typeof path[1] === 'number' ? `[[${name}]]` : `[${name}]`;
}

/** `databases[1].host` */
function keyOf(path: Path): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === 'number') return `${text}[${String(step)}]`;
    return text === '' ? step : `${text}.${step}`;
  }, '');
}

function valueAt(tree: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (value, step) =>
      typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[step] : undefined,
    tree,
  );
}

function knownKeys(schema: z.ZodType, path: Path): readonly string[] {
  let current: unknown = schema;
  for (const step of path) {
    current = unwrapped(current);
    if (current instanceof z.ZodObject) current = (current.shape as Record<string, unknown>)[step];
    else if (current instanceof z.ZodArray) current = current.element;
  }
  current = unwrapped(current);
  return current instanceof z.ZodObject ? Object.keys(current.shape) : [];
}

function unwrapped(schema: unknown): unknown {
  return schema instanceof z.ZodOptional ? schema.unwrap() : schema;
}

function lazy<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}
