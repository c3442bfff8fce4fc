/** One task: say what a generated write is: one statement, one COPY, or a transaction of some. */
import type { Maker } from './maker.js';
import type { Sql } from './sql.js';

/** How a statement is sent. */
export type Form = 'simple' | 'extended' | 'prepared';

export interface Statement {
  readonly kind: 'statement';
  readonly sql: Sql;
  /** its rows have one order */
  readonly ordered?: boolean;
  /** by any of them otherwise */
  readonly form?: Form;
}

export interface Copy {
  readonly kind: 'copy';
  readonly text: string;
  /** what the client sends, however it cuts it; null: it says that it fails */
  readonly data: Buffer | null;
}

export type Step = Statement | Copy;

/** Steps that belong together: a transaction, when there are several. */
export type Unit = readonly Step[];

export type Make = (maker: Maker) => Unit;

export function one(sql: Sql, more: Omit<Statement, 'kind' | 'sql'> = {}): Unit {
  return [{ kind: 'statement', sql, ...more }];
}
