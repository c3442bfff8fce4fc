/**
 * One task: find the values that a table's sharding column must have in every row that matters to a statement.
 *
 * A node is one column of one table in FROM. An edge a → b says: in a row combination that can reach the result, where `a` is not
 * null, `b` equals it. A pin says the same of given values. So whatever is reachable from a column pins it. Edges have a direction because
 * an outer join's condition binds only the side that may be missing, and a subquery's condition binds only the subquery.
 *
 * Why a row x outside the pin's values can be taken away without changing the answer, outer joins included: each link is a strict
 * equality. A combination with x in it fails at the highest condition on the way from x to the pin, or below. Where x had kept a
 * row from being extended with nulls, the extended row fails the same condition, either because its columns there are null or because
 * the rest of the way still contradicts the pin.
 */
import type { KeyType } from './scheme.js';
import type { KeyList } from './statement-verdict.js';

export interface ColumnNode {
  /** the query level (`Block`) it belongs to */
  readonly block: object;
  /** the joins on whose missing side its table is */
  readonly missingSideOf: ReadonlySet<object>;
  /** null: a type whose equality is not that of any sharding key */
  readonly type: KeyType | null;
  readonly equals: ColumnNode[];
  readonly pins: KeyList[];
}

export function columnNode(block: object, missingSideOf: ReadonlySet<object>, type: KeyType | null): ColumnNode {
  return { block, missingSideOf, type, equals: [], pins: [] };
}

/** Where a condition stands: in a block's WHERE or inner joins, or in the ON of an outer join. */
export interface Site {
  readonly block: object;
  readonly outerJoin: object | null;
}

/** Whether a condition at `site` may be used to restrict the rows of this column's table. */
function binds(site: Site, node: ColumnNode): boolean {
  if (node.block !== site.block) return false;
  return site.outerJoin === null || node.missingSideOf.has(site.outerJoin);
}

export function addEquality(site: Site, a: ColumnNode, b: ColumnNode): void {
  if (a.type === null || a.type !== b.type) return;
  if (binds(site, a)) a.equals.push(b);
  if (binds(site, b)) b.equals.push(a);
}

export function addPin(site: Site, node: ColumnNode, keys: KeyList): void {
  if (binds(site, node)) node.pins.push(keys);
}

/** A statement's tables and conditions are few; more than this is not searched, which only proves less. */
const VISITED_MAX = 2_000;

/** Every pin that holds for the column: each alone restricts the rows that matter. */
export function pinsOf(start: ColumnNode): readonly KeyList[] {
  const visited = reachable(start);
  return [...visited].flatMap((node) => node.pins);
}

/** Whether in every row that matters `from` equals `to`. */
export function follows(from: ColumnNode, to: ColumnNode): boolean {
  return reachable(from).has(to);
}

function reachable(start: ColumnNode): ReadonlySet<ColumnNode> {
  const visited = new Set([start]);
  for (const node of visited) {
    if (visited.size > VISITED_MAX) break;
    for (const next of node.equals) visited.add(next);
  }
  return visited;
}
