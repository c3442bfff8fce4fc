/**
 * One task: cut the output of pg_dump into statements, each with the entry it belongs to.
 *
 * Lexical rules: PostgreSQL documentation, 4.1 (constants, dollar quoting, nested comments) and CREATE FUNCTION (a body of
 * BEGIN ATOMIC … END holds semicolons of its own). `standard_conforming_strings` is on, as pg_dump sets it.
 */
import type { Turns } from './turns.js';

/** What pg_dump says about an object in the comment above it. */
export interface DumpEntry {
  /** counts up; statements of one entry belong together */
  readonly number: number;
  /** `TABLE`, `FK CONSTRAINT`, `COMMENT`, …; empty for the settings at the head */
  readonly type: string;
  /** null where the object lies in no schema */
  readonly schema: string | null;
  /** not quoted; a function has its argument types, a constraint its table before it */
  readonly name: string;
}

export interface DumpedStatement {
  readonly entry: DumpEntry;
  /** without the comments before it, with its semicolon */
  readonly text: string;
}

const TOKEN = new RegExp(
  [
    String.raw`(?<lineComment>--[^\n]*)`,
    String.raw`(?<blockComment>/\*)`,
    String.raw`(?<escapeString>[eE]')`,
    String.raw`(?<quoted>'[^']*'|"[^"]*")`,
    String.raw`(?<dollarQuote>\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$)`,
    String.raw`(?<word>[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)`,
    // psql's own commands (\restrict), on lines of their own
    String.raw`(?<psqlCommand>\\[^\n]*)`,
    String.raw`(?<punctuation>[();])`,
  ].join('|'),
  'g',
);

const HEADER = /^-- Name: (?<name>.*); Type: (?<type>.*); Schema: (?<schema>.*); Owner: .*$/;
const BEFORE_FIRST_ENTRY: DumpEntry = { number: 0, type: '', schema: null, name: '' };

/**
 * All statements of `dump`, in order. Comments between statements and psql's commands are left out.
 *
 * @throws Error when the text ends inside a statement: then it is not the whole dump
 */
export async function splitStatements(dump: string, turns: Turns): Promise<readonly DumpedStatement[]> {
  const statements: DumpedStatement[] = [];
  const tokens = new RegExp(TOKEN);
  let entry = BEFORE_FIRST_ENTRY;
  let start: number | undefined;
  let depth = new Depth();
  for (let match = tokens.exec(dump); match; match = tokens.exec(dump)) {
    const { lineComment, blockComment, escapeString, dollarQuote, word, psqlCommand, punctuation } = match.groups ?? {};
    if (lineComment !== undefined && start === undefined) entry = entryOf(lineComment, entry);
    if (blockComment !== undefined) tokens.lastIndex = endOfBlockComment(dump, match.index);
    if (escapeString !== undefined) tokens.lastIndex = endOfEscapeString(dump, match.index + escapeString.length);
    if (dollarQuote !== undefined) tokens.lastIndex = endAfter(dump, dollarQuote, tokens.lastIndex);
    const isText = lineComment === undefined && blockComment === undefined && psqlCommand === undefined;
    if (isText && punctuation !== ';') start ??= match.index;
    if (word !== undefined) depth.word(word);
    if (punctuation !== undefined) depth.punctuation(punctuation);
    if (punctuation !== ';' || start === undefined || !depth.isOutside) continue;
    statements.push({ entry, text: dump.slice(start, match.index + 1) });
    start = undefined;
    depth = new Depth();
    if (turns.over) await turns.next();
  }
  if (start !== undefined) throw unfinished(start);
  return statements;
}

function entryOf(comment: string, current: DumpEntry): DumpEntry {
  const groups = HEADER.exec(comment)?.groups;
  if (!groups) return current;
  const { name = '', type = '', schema = '-' } = groups;
  return { number: current.number + 1, type, schema: schema === '-' ? null : schema, name };
}

/** Whether a semicolon ends the statement: not inside parentheses (CREATE RULE), not inside BEGIN ATOMIC … END. */
class Depth {
  #parentheses = 0;
  #blocks = 0;
  /** the first words decide whether BEGIN opens a body */
  readonly #head: string[] = [];

  get isOutside(): boolean {
    return this.#parentheses === 0 && this.#blocks === 0;
  }

  punctuation(character: string): void {
    if (character === '(') this.#parentheses += 1;
    if (character === ')') this.#parentheses -= 1;
  }

  word(text: string): void {
    const word = text.toUpperCase();
    if (this.#head.length < 4) this.#head.push(word);
    if (this.#parentheses > 0 || !this.#makesRoutine()) return;
    // CASE … END inside a body ends with the same word as the body.
    if (word === 'BEGIN' || (word === 'CASE' && this.#blocks > 0)) this.#blocks += 1;
    if (word === 'END' && this.#blocks > 0) this.#blocks -= 1;
  }

  #makesRoutine(): boolean {
    return /^CREATE (OR REPLACE )?(FUNCTION|PROCEDURE)\b/.test(this.#head.join(' '));
  }
}

function endOfBlockComment(text: string, start: number): number {
  const edges = /\/\*|\*\//g;
  edges.lastIndex = start;
  let depth = 0;
  for (let edge = edges.exec(text); edge; edge = edges.exec(text)) {
    depth += edge[0] === '/*' ? 1 : -1;
    if (depth === 0) return edges.lastIndex;
  }
  throw unfinished(start);
}

function endOfEscapeString(text: string, start: number): number {
  for (let at = start; at < text.length; at++) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === "'") return at + 1;
  }
  throw unfinished(start);
}

function endAfter(text: string, closing: string, from: number): number {
  const at = text.indexOf(closing, from);
  if (at < 0) throw unfinished(from);
  return at + closing.length;
}

function unfinished(at: number): Error {
  return new Error(`the dump ends inside the statement or comment at character ${at.toString()}`);
}
