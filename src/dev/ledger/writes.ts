/** One task: say which statements make up each write of the ledger application. */
import { randomInt, randomUUID } from 'node:crypto';
import type { Statement, Style } from './session.js';

export interface Write {
  /** found again in exactly one row when the write took effect */
  readonly token: string;
  /** where that row is */
  readonly table: string;
  readonly style: Style;
  /** the answer to the last one says whether the write took effect */
  readonly statements: readonly Statement[];
}

export interface WriteMix {
  readonly accounts: number;
  /** how many of the tables `extra_1`, `extra_2`, … are written */
  readonly writtenTables: number;
}

const STYLES: readonly Style[] = ['simple', 'extended', 'prepared'];
const WIDE_EVERY = 20;
const WIDE_REPEATS = 500;
const NARROW_REPEATS = 5;

const BEGIN: Statement = { text: 'BEGIN', values: [], command: 'BEGIN' };
const COMMIT: Statement = { text: 'COMMIT', values: [], command: 'COMMIT' };

/** The write of turn `turn` (0, 1, …) of a writer: every kind in every style comes around. */
export function writeOfTurn(turn: number, writer: string, mix: WriteMix): Write {
  const token = randomUUID();
  const style = STYLES[turn % STYLES.length] ?? 'simple';
  const round = Math.floor(turn / STYLES.length);
  const kinds = mix.writtenTables > 0 ? 4 : 3;
  switch (round % kinds) {
    case 0:
      return { token, table: 'entries', style, statements: transfer(token, writer, mix.accounts) };
    case 1:
      return { token, table: 'entries', style, statements: [entry(token, writer, 0, 0, 0)] };
    case 2:
      return { token, table: 'documents', style, statements: [document(token, round % WIDE_EVERY === 2)] };
    default: {
      const table = `extra_${(1 + randomInt(mix.writtenTables)).toString()}`;
      return { token, table, style, statements: [extra(token, table)] };
    }
  }
}

/** Moves money between two accounts: lower account first, so that two transfers never wait for each other in a circle. */
function transfer(token: string, writer: string, accounts: number): readonly Statement[] {
  const lower = 1 + randomInt(accounts - 1);
  const higher = lower + 1 + randomInt(accounts - lower);
  const amount = 1 + randomInt(100);
  return [BEGIN, book(lower, -amount), book(higher, amount), entry(token, writer, lower, higher, amount), COMMIT];
}

function book(account: number, amount: number): Statement {
  const text = 'UPDATE accounts SET balance = balance + $1 WHERE id = $2';
  return { text, values: [amount, account], command: 'UPDATE', rowCount: 1 };
}

function entry(token: string, writer: string, debited: number, credited: number, amount: number): Statement {
  const text = 'INSERT INTO entries (token, writer, debited, credited, amount) VALUES ($1, $2, $3, $4, $5)';
  return { text, values: [token, writer, debited, credited, amount], command: 'INSERT', rowCount: 1 };
}

function document(token: string, wide: boolean): Statement {
  const text = 'INSERT INTO documents (token, body) VALUES ($1, $2)';
  return {
    text,
    values: [token, `${token} `.repeat(wide ? WIDE_REPEATS : NARROW_REPEATS)],
    command: 'INSERT',
    rowCount: 1,
  };
}

function extra(token: string, table: string): Statement {
  const text = `INSERT INTO ${table} (token) VALUES ($1)`;
  return { text, values: [token], command: 'INSERT', rowCount: 1 };
}
