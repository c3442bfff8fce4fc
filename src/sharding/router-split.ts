/** One task: make of an INSERT with several rows one INSERT for each shard, with only that shard's rows and parameters. */
import type { RowPart } from './router-binding.js';
import type { StatementParser, Token } from './statement-parser.js';

export interface InsertPart extends RowPart {
  readonly sql: string;
  /** of the statement's `$n`, those that this part uses, in the order of its own `$1`, `$2`, … */
  readonly parameters: readonly number[];
}

/**
 * Splits `INSERT … VALUES (…), (…)`; everything before and after the rows stays in each part. Parameters are numbered anew: a
 * server cannot infer the type of one that is not used.
 *
 * @param sql one statement that the parser accepted as an INSERT with rows
 * @param parts rows of each shard, as bound
 * @returns null when the text's rows cannot be told apart; the statement must then be refused
 */
export function splitInsert(
  parser: StatementParser,
  sql: string,
  parts: readonly RowPart[],
): readonly InsertPart[] | null {
  const tokens = parser.tokens(sql);
  const rows = rowSpans(tokens);
  const [first] = rows;
  const last = rows.at(-1);
  if (first === undefined || last === undefined) return null;
  if (Math.max(...parts.flatMap((part) => part.rows)) !== rows.length - 1) return null;
  return parts.map((part) => {
    const kept = part.rows.flatMap((row) => rows[row] ?? []);
    const inPart = ({ start }: Token): boolean =>
      start < first.start || start >= last.end || kept.some((row) => start >= row.start && start < row.end);
    const numbered = renumber(sql, tokens.filter(inPart));
    const written = (start: number, end: number): string => numbered.write(start, end);
    const text = [
      written(0, first.start),
      kept.map((row) => written(row.start, row.end)).join(', '),
      written(last.end, sql.length),
    ].join('');
    return { ...part, sql: text, parameters: numbered.parameters };
  });
}

interface Span {
  readonly start: number;
  readonly end: number;
}

/** The parentheses after the statement's own VALUES; those of a WITH or a subquery stand deeper. */
function rowSpans(tokens: readonly Token[]): readonly Span[] {
  const values = topLevelValues(tokens);
  const rows: Span[] = [];
  let depth = 0;
  let start = 0;
  for (const token of values < 0 ? [] : tokens.slice(values + 1)) {
    if (token.text === '(') {
      if (depth === 0) start = token.start;
      depth += 1;
    } else if (token.text === ')') {
      depth -= 1;
      if (depth === 0) rows.push({ start, end: token.end });
    } else if (depth === 0 && token.text !== ',') break;
  }
  return rows;
}

function topLevelValues(tokens: readonly Token[]): number {
  let depth = 0;
  return tokens.findIndex(({ text }) => {
    if (text === '(') depth += 1;
    if (text === ')') depth -= 1;
    return depth === 0 && text.toLowerCase() === 'values';
  });
}

function renumber(
  sql: string,
  tokens: readonly Token[],
): { readonly parameters: readonly number[]; readonly write: (start: number, end: number) => string } {
  const used = tokens.filter(({ text }) => /^\$\d+$/.test(text));
  const parameters = [...new Set(used.map(({ text }) => Number(text.slice(1))))].sort((a, b) => a - b);
  const write = (from: number, to: number): string => {
    let text = '';
    let position = from;
    for (const token of used) {
      if (token.start < from || token.end > to) continue;
      const own = (parameters.indexOf(Number(token.text.slice(1))) + 1).toString();
      text += `${sql.slice(position, token.start)}$${own}`;
      position = token.end;
    }
    return text + sql.slice(position, to);
  };
  return { parameters, write };
}
