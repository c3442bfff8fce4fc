/**
 * One task: tell whether what a statement writes may depend on the order in which a server finds rows, which is another one on each server:
 * then the same statement on every shard would not write the same.
 */
import { list, strings, type Tree } from './statement-tree.js';

/** Aggregates whose result is in the order of their rows, where they are not given one (PostgreSQL documentation, 9.21). */
const ORDERED = /^(array_agg|string_agg|xmlagg|(json|jsonb)_(agg|object_agg)\w*|any_value|range_agg)$/;

export function dependsOnOrder(tree: unknown): boolean {
  if (Array.isArray(tree)) return tree.some(dependsOnOrder);
  if (typeof tree !== 'object' || tree === null) return false;
  const node = tree as Tree;
  return Object.entries(node).some(([kind, body]) => isOrdered(kind, body) || dependsOnOrder(body));
}

function isOrdered(kind: string, body: unknown): boolean {
  if (typeof body !== 'object' || body === null) return false;
  const node = body as Tree;
  switch (kind) {
    case 'limitCount':
    case 'limitOffset':
    case 'over':
      return true;
    case 'distinctClause':
      // DISTINCT ON keeps the first row of each group; DISTINCT alone has one empty entry.
      return Array.isArray(body) && body.some((entry) => Object.keys(entry as object).length > 0);
    case 'UpdateStmt':
      // Of several rows that match, any one is used (PostgreSQL documentation, UPDATE).
      return list(node, 'fromClause').length > 0;
    case 'InsertStmt':
      return node.onConflictClause !== undefined && !isValues(node);
    case 'FuncCall':
      return ORDERED.test(strings(node, 'funcname').at(-1) ?? '') && list(node, 'agg_order').length === 0;
    default:
      return false;
  }
}

function isValues(insert: Tree): boolean {
  const select = (insert.selectStmt as { SelectStmt?: Tree } | undefined)?.SelectStmt;
  return select === undefined || list(select, 'valuesLists').length > 0;
}
