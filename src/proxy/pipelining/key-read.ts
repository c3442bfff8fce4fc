/**
 * One task: say of the tree of a text whether it asks one table for columns of the one row that a key names, and how the key is given.
 *
 * The plan of such a read is the same whatever the value: so a server may prepare it once and run it for all, where of another statement
 * a plan without the value can be far worse (PostgreSQL documentation, PREPARE, "Notes").
 */
import type { ParsedStatement } from '../../sharding/statement-parser.js';
import { child, columnName, list, number, operatorName, text, type Tree } from '../../sharding/statement-tree.js';
import type { ReadFacts } from './read-facts.js';

/** `WHERE id = 7`, or `WHERE id = $1`. */
export type KeyValue = 'integer' | 'parameter';

/** All that such a statement has; `limitOption` and `op` have one value of theirs without a LIMIT and a UNION. */
const FIELDS: ReadonlySet<string> = new Set(['targetList', 'fromClause', 'whereClause', 'limitOption', 'op']);

/** @param statements of a text that may be shared (read-verdict.ts) @returns null where it is another read */
export function keyValueOf(statements: readonly ParsedStatement[] | null, facts: ReadFacts): KeyValue | null {
  const body = statements?.[0]?.body ?? {};
  if (Object.keys(body).some((field) => !FIELDS.has(field)) || text(body, 'op') !== 'SETOP_NONE') return null;
  if (
    !list(body, 'targetList').every((target) => child(child(child(target, 'ResTarget'), 'val'), 'ColumnRef') !== null)
  )
    return null;
  const [table, ...others] = list(body, 'fromClause');
  const keys = facts.keys.get(text(child(table ?? null, 'RangeVar'), 'relname') ?? '');
  if (keys === undefined || others.length > 0) return null;
  const comparison = child(child(body, 'whereClause'), 'A_Expr');
  if (comparison === null || text(comparison, 'kind') !== 'AEXPR_OP' || operatorName(comparison) !== '=') return null;
  const column = columnName(child(comparison, 'lexpr'))?.at(-1);
  return column !== undefined && keys.has(column) ? valueOf(child(comparison, 'rexpr')) : null;
}

function valueOf(node: Tree | null): KeyValue | null {
  if (number(child(node, 'ParamRef'), 'number') === 1) return 'parameter';
  const integer = child(child(node, 'A_Const'), 'ival');
  // `-7` is a constant too, and its sign none of the literal's.
  return integer !== null && number(integer, 'ival') >= 0 ? 'integer' : null;
}
