/** One task: cut the text of one SELECT into its clauses and their items, by the parser's own words. */
import type { Token } from './statement-parser.js';

/** In UTF-16 code units of the whole text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export interface SelectText {
  readonly start: number;
  readonly end: number;
  readonly targets: readonly Span[];
  /** of FROM and its table */
  readonly fromAt: number;
  readonly where: Span | null;
  readonly groups: readonly Span[];
  readonly having: Span | null;
  readonly sorts: readonly Span[];
  /** LIMIT, OFFSET and FETCH, to the end */
  readonly tail: Span | null;
}

const HEADS: ReadonlySet<string> = new Set(['WHERE', 'GROUP', 'HAVING', 'ORDER', 'LIMIT', 'OFFSET', 'FETCH']);
const TAILS: ReadonlySet<string> = new Set(['LIMIT', 'OFFSET', 'FETCH']);

interface Clause {
  readonly head: string;
  readonly words: readonly Token[];
}

/**
 * @param words of one statement that has one SELECT, whose only table begins at `tableAt`
 * @returns null where the words do not stand as expected
 */
export function cutSelect(words: readonly Token[], tableAt: number): SelectText | null {
  const outside = outsideParentheses(words);
  const first = words.findIndex((word, at) => outside[at] === true && word.text.toUpperCase() === 'SELECT');
  const table = words.findIndex(({ start }) => start === tableAt);
  const last = words.at(-1);
  if (first < 0 || table < first + 3 || words[table - 1]?.text.toUpperCase() !== 'FROM' || last === undefined)
    return null;
  const clauses = clausesOf(words, outside, table);
  const tail = clauses.findIndex(({ head }) => TAILS.has(head));
  const before = tail < 0 ? clauses : clauses.slice(0, tail);
  const whole = (head: string): Span | null => spanOf(wordsOf(before, head, 1));
  return {
    start: words[first]?.start ?? 0,
    end: last.end,
    targets: itemsOf(words.slice(first + 1, table - 1)),
    fromAt: words[table - 1]?.start ?? 0,
    where: whole('WHERE'),
    groups: itemsOf(wordsOf(before, 'GROUP', 2)),
    having: whole('HAVING'),
    sorts: itemsOf(wordsOf(before, 'ORDER', 2)),
    tail: tail < 0 ? null : { start: clauses[tail]?.words[0]?.start ?? 0, end: last.end },
  };
}

/** Where a call ends that begins at a word: behind its arguments and its FILTER. */
export interface CallText extends Span {
  /** with their parentheses */
  readonly args: Span;
  /** what FILTER asks of a row */
  readonly condition: Span | null;
}

/** The call whose name begins at `at`; null where the words are otherwise. */
export function callAt(words: readonly Token[], at: number): CallText | null {
  const first = words.findIndex(({ start }) => start === at);
  const open = words.findIndex((word, index) => index >= first && word.text === '(');
  const close = first < 0 || open < 0 ? null : closing(words, open);
  if (close === null) return null;
  const args = { start: words[open]?.start ?? 0, end: words[close]?.end ?? 0 };
  if (words[close + 1]?.text.toUpperCase() !== 'FILTER') return { start: at, end: args.end, args, condition: null };
  const filterEnd = closing(words, close + 2);
  if (filterEnd === null) return null;
  // Behind FILTER ( WHERE.
  const condition = spanOf(words.slice(close + 4, filterEnd));
  return { start: at, end: words[filterEnd]?.end ?? 0, args, condition };
}

/** The column whose name begins at `at`, of so many parts. */
export function nameAt(words: readonly Token[], at: number, parts: number): Span | null {
  const first = words.findIndex(({ start }) => start === at);
  return first < 0 ? null : spanOf(words.slice(first, first + 2 * parts - 1));
}

/** An item of SELECT without the name given to it. */
export function withoutName(words: readonly Token[], item: Span): Span | null {
  const inside = without(words, item, 1);
  return spanOf(inside.at(-1)?.text.toUpperCase() === 'AS' ? inside.slice(0, -1) : inside);
}

/** An item without its last words. */
export function withoutLast(words: readonly Token[], item: Span, count: number): Span | null {
  return spanOf(without(words, item, count));
}

function without(words: readonly Token[], item: Span, count: number): readonly Token[] {
  const inside = words.filter(({ start, end }) => start >= item.start && end <= item.end);
  return inside.slice(0, inside.length - count);
}

function clausesOf(words: readonly Token[], outside: readonly boolean[], from: number): readonly Clause[] {
  const heads = words.flatMap((word, at) => {
    const before = words[at - 1]?.text.toUpperCase() ?? '';
    const begins = at > from && outside[at] === true && HEADS.has(word.text.toUpperCase());
    return begins && before !== '.' && before !== 'AS' ? [at] : [];
  });
  return heads.map((at, index) => ({
    head: words[at]?.text.toUpperCase() ?? '',
    words: words.slice(at, heads[index + 1] ?? words.length),
  }));
}

/** @param skipped words of the head itself */
function wordsOf(clauses: readonly Clause[], head: string, skipped: number): readonly Token[] {
  return clauses.find((clause) => clause.head === head)?.words.slice(skipped) ?? [];
}

function itemsOf(words: readonly Token[]): readonly Span[] {
  const outside = outsideParentheses(words);
  const commas = words.flatMap((word, at) => (word.text === ',' && outside[at] === true ? [at] : []));
  return [...commas, words.length].flatMap((end, index) => {
    const span = spanOf(words.slice(index === 0 ? 0 : (commas[index - 1] ?? 0) + 1, end));
    return span === null ? [] : [span];
  });
}

function spanOf(words: readonly Token[]): Span | null {
  const [first] = words;
  const last = words.at(-1);
  return first === undefined || last === undefined ? null : { start: first.start, end: last.end };
}

/** For each word whether it stands outside of all parentheses; those themselves stand inside. */
function outsideParentheses(words: readonly Token[]): readonly boolean[] {
  let depth = 0;
  return words.map(({ text }) => {
    if (text === '(' || text === '[') depth += 1;
    const outside = depth === 0;
    if (text === ')' || text === ']') depth -= 1;
    return outside;
  });
}

/** Index of the parenthesis that ends the one at `open`. */
function closing(words: readonly Token[], open: number): number | null {
  if (words[open]?.text !== '(') return null;
  let depth = 0;
  for (let at = open; at < words.length; at += 1) {
    if (words[at]?.text === '(') depth += 1;
    if (words[at]?.text === ')') depth -= 1;
    if (depth === 0) return at;
  }
  return null;
}
