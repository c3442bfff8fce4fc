/**
 * One task: say of the tree of a text whether it is one read that any session of the same user may run for another: no locks, no state of
 * the session, no code but PostgreSQL's own without effects, and so no harm where it runs twice.
 *
 * Only kinds of nodes that are known to be harmless pass. What is not understood is not shared.
 */
import type { ParsedStatement } from '../../sharding/statement-parser.js';
import { asTree, list, strings, text, type Tree } from '../../sharding/statement-tree.js';
import type { ReadFacts } from './read-facts.js';

const HARMLESS: ReadonlySet<string> = new Set([
  ...['SelectStmt', 'ResTarget', 'RangeVar', 'Alias', 'JoinExpr', 'RangeSubselect', 'RangeFunction', 'SubLink'],
  ...['ColumnRef', 'A_Star', 'String', 'Integer', 'Float', 'Boolean', 'BitString', 'A_Const', 'ParamRef', 'List'],
  ...['A_Expr', 'BoolExpr', 'NullTest', 'BooleanTest', 'FuncCall', 'TypeCast', 'SortBy', 'CaseExpr', 'CaseWhen'],
  ...['CoalesceExpr', 'MinMaxExpr', 'A_ArrayExpr', 'RowExpr', 'A_Indirection', 'A_Indices', 'WindowDef'],
  ...['GroupingSet', 'GroupingFunc', 'SQLValueFunction', 'CollateClause'],
]);
/** Fields of a statement that are not nodes of their own kind. WITH may hide a table behind a name. */
const BARRED_FIELDS: ReadonlySet<string> = new Set(['lockingClause', 'intoClause', 'withClause']);
/** Stable or immutable by their word, and yet about the session, its transaction or its server, or they read what a text names. */
const ABOUT_THE_SESSION =
  /^(pg_|txid_|lo_|inet_(client|server)|binary_upgrade_|ts_(stat|rewrite)$|current_(setting|query)$|(curr|last)val$|.*_to_xml|mxid_age$)|xid|snapshot/;

/** @param statements of a text; null: it could not be parsed */
export function isShareable(statements: readonly ParsedStatement[] | null, facts: ReadFacts): boolean {
  const [only, ...others] = statements ?? [];
  if (only?.kind !== 'SelectStmt' || others.length > 0 || facts.ownOperators) return false;
  return isHarmless(only.body, facts);
}

/** A stack of its own: a tree may be deep. */
function isHarmless(root: unknown, facts: ReadFacts): boolean {
  const left: unknown[] = [root];
  for (let value = left.pop(); value !== undefined; value = left.pop()) {
    if (Array.isArray(value)) {
      left.push(...(value as unknown[]));
      continue;
    }
    const tree = asTree(value);
    if (tree === null) continue;
    for (const [key, inside] of Object.entries(tree)) {
      if (BARRED_FIELDS.has(key)) return false;
      // Kinds of nodes begin with a capital letter, fields do not.
      if (/^[A-Z]/.test(key) && !(HARMLESS.has(key) && passes(key, asTree(inside) ?? {}, facts))) return false;
      if (inside !== undefined) left.push(inside);
    }
  }
  return true;
}

function passes(kind: string, body: Tree, facts: ReadFacts): boolean {
  switch (kind) {
    case 'RangeVar':
      return text(body, 'catalogname') === null && facts.tables.has(text(body, 'relname') ?? '');
    case 'FuncCall':
      return isOwnFunction(strings(body, 'funcname'), facts);
    case 'TypeCast':
      return strings(asTree(body.typeName), 'names').every((name) => !facts.own.has(name));
    case 'ColumnRef':
      // `t.f` may be a call of f(t).
      return strings(body, 'fields').every((name) => !facts.own.has(name) && !ABOUT_THE_SESSION.test(name));
    case 'A_Indirection':
      return list(body, 'indirection').every((entry) => asTree(entry.A_Indices) !== null);
    default:
      return true;
  }
}

/** Whether it is PostgreSQL's own, and harmless. */
function isOwnFunction(name: readonly string[], facts: ReadFacts): boolean {
  const bare = name.at(-1) ?? '';
  const qualified = name.length === 2 && name[0] === 'pg_catalog';
  return (name.length === 1 || qualified) && facts.functions.has(bare) && !ABOUT_THE_SESSION.test(bare);
}
