/** One task: make of an UPDATE that sets the sharding column one that also tells, of each row, where it lies and its new key. */
import { quoteIdentifier } from '../postgres/connection.js';
import type { StatementParser } from './statement-parser.js';
import type { MovedTable } from './statement-verdict.js';

/** What stands at the end of each row of RETURNING: the place of the row, the table or partition it is in, the key; as texts. */
export const TOLD_COLUMNS = 3;

/** @param sql one statement that the parser accepted as an UPDATE, with or without a semicolon and comments behind it */
export function movingText(
  parser: StatementParser,
  sql: string,
  { shownAs, returning }: MovedTable,
  keyColumn: string,
): string {
  const last = parser.tokens(sql).findLast(({ text }) => text !== ';');
  const key = `${shownAs}.${quoteIdentifier(keyColumn)}`;
  const told = `${shownAs}.ctid::pg_catalog.text, ${shownAs}.tableoid::pg_catalog.text, ${key}::pg_catalog.text`;
  return `${sql.slice(0, last?.end ?? sql.length)}${returning ? ',' : ' RETURNING'} ${told}`;
}
