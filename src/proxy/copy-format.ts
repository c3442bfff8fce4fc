/** One task: read from the options of a COPY FROM STDIN how its rows are written; whatever is not known for sure is refused. */
import type { CopyFrom, CopyKey } from '../sharding/statement-verdict.js';
import type { KeyType } from '../sharding/scheme.js';
import { CopyTuples, type BinaryFormat } from './copy-binary.js';
import { CopyLines, type CopyRows, type LineFormat } from './copy-rows.js';

export type CopyFormat = Omit<LineFormat, 'csvMarker'> | BinaryFormat;

/** The types of columns whose values are read as the key's type reads them. */
const COLUMN_TYPES: Readonly<Record<KeyType, readonly string[]>> = {
  bigint: ['int2', 'int4', 'int8'],
  varchar: ['text', 'varchar'],
  uuid: ['uuid'],
};
const UTF8 = /^(utf-?_?8|unicode)$/i;
/** They change neither how rows are cut nor where they belong. */
const IGNORED = new Set(['freeze', 'log_verbosity']);
const READ = new Set([
  ...['format', 'header', 'delimiter', 'null', 'quote', 'escape', 'force_null', 'force_not_null', 'encoding'],
  // Without an effect on what is read.
  'force_quote',
]);
const ON = new Set(['true', 'on', '1', 'match']);
const OFF = new Set(['false', 'off', '0']);

/** Why a COPY cannot be run on several shards, whatever its rows are; null when it can. */
export function copyProblem({ options, filtered }: CopyFrom): string | null {
  if (filtered) return 'COPY on several shards with WHERE, which is not implemented';
  const unknown = Object.entries(options).find(
    ([name, value]) => !READ.has(name) && !IGNORED.has(name) && !(name === 'on_error' && value === 'stop'),
  );
  return unknown === undefined
    ? null
    : `COPY on several shards with ${unknown[0].toUpperCase()}, which is not implemented`;
}

/** How the rows of a sharded table are written; a text: why they cannot be told apart. */
export function copyFormatOf({ options, columns }: CopyFrom, key: CopyKey): CopyFormat | string {
  const { rule, type, index } = key;
  if (!COLUMN_TYPES[rule.type].includes(type))
    return `its sharding column is of type ${type}, which COPY does not divide`;
  if (options.encoding !== undefined && !UTF8.test(options.encoding)) return 'COPY in another encoding than UTF-8';
  const { format = 'text', header = 'off' } = options;
  if (format === 'binary') return { kind: 'binary', keyIndex: index, columns: columns.length };
  if (format !== 'text' && format !== 'csv') return `COPY in the format ${format}`;
  const csv = format === 'csv';
  const { delimiter = csv ? ',' : '\t', quote = '"', escape = quote } = options;
  const marks = [delimiter, quote, escape].map((mark) => Buffer.from(mark));
  if (marks.some((mark) => mark.length !== 1)) return 'a delimiter, quote or escape of COPY is not one byte';
  if (csv && quote === '\\') return 'COPY with a backslash for a quote';
  const headed = header.toLowerCase();
  if (!ON.has(headed) && !OFF.has(headed)) return `COPY with HEADER ${header}`;
  const [delimiterByte = 0, quoteByte = 0, escapeByte = 0] = marks.map((mark) => mark[0]);
  return {
    ...{ kind: format, header: ON.has(headed), keyIndex: index },
    ...{ delimiter: delimiterByte, quote: quoteByte, escape: escapeByte },
    nullText: Buffer.from(options.null ?? (csv ? '' : '\\N')),
    forceNull: names(options.force_null, rule.column),
    forceNotNull: names(options.force_not_null, rule.column),
  };
}

/** Whether a list of columns, `*` or `"a", "b"`, has one. */
function names(list: string | undefined, column: string): boolean {
  if (list === undefined) return false;
  const quoted = `"${column.replaceAll('"', '""')}"`;
  return list === '*' || Array.from(list.matchAll(/"(?:[^"]|"")*"/g), ([name]) => name).includes(quoted);
}

/** The version in which `\.` in CSV became a row like any other. */
const CSV_MARKER_IS_A_ROW = 18;

/** @param versions of the servers, as they report them */
export function copyRowsOf(format: CopyFormat, versions: readonly string[]): CopyRows {
  if (format.kind === 'binary') return new CopyTuples(format);
  const newer = versions.map((version) => Number.parseInt(version, 10) >= CSV_MARKER_IS_A_ROW);
  const [first = false] = newer;
  const csvMarker = newer.every((each) => each === first) ? (first ? 'row' : 'end') : 'unclear';
  return new CopyLines({ ...format, csvMarker });
}
