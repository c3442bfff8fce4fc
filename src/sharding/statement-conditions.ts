/** One task: read expressions: what they call, which subqueries they hold, and which of their conditions tie a column to a value. */
import { type Analysis, type Environment, type Output } from './statement-analysis.js';
import { addEquality, addPin, type ColumnNode, type Site } from './statement-graph.js';
import { keyArray, keyExpression, keyList } from './statement-keys.js';
import { resolve } from './statement-scope.js';
import {
  child,
  columnName,
  kindOf,
  list,
  number,
  operatorName,
  strings,
  text,
  walk,
  type Tree,
} from './statement-tree.js';
import type { KeyList } from './statement-verdict.js';

const QUERY_KINDS = new Set(['SelectStmt', 'InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt']);
/** Differ between two servers, or between two moments; the rest of SQLValueFunction is about the session. */
const TIME = /TIME|DATE/;

/** Reads everything an expression (or a list of them) does, except what its conditions prove. */
export function readExpression(analysis: Analysis, value: unknown, environment: Environment): void {
  walk(value, (kind, body) => {
    switch (kind) {
      case 'SubLink':
        readExpression(analysis, body.testexpr, environment);
        subqueryOf(analysis, body, environment);
        return true;
      case 'ColumnRef':
        noteColumn(analysis, { ColumnRef: body }, environment);
        return true;
      case 'FuncCall':
        analysis.noteFunction(strings(body, 'funcname'), child(body, 'over') !== null, environment.level);
        return false;
      case 'ParamRef':
        analysis.countParameter(number(body, 'number'));
        return true;
      case 'A_Expr':
        if (analysis.context.catalogue.unsafeOperators.has(strings(body, 'name').at(-1) ?? ''))
          analysis.reasons.add('operator');
        return false;
      case 'A_Indirection':
        // (t).f calls a function f(t) where the row type has no such field.
        if (strings(body, 'indirection').some((field) => field !== '')) analysis.reasons.add('unknown-column');
        return false;
      case 'SQLValueFunction':
        if (TIME.test(text(body, 'op') ?? '')) analysis.varies = true;
        return false;
      case 'CurrentOfExpr':
        analysis.refusals.add('current-of');
        return false;
      default:
        if (!QUERY_KINDS.has(kind)) return false;
        analysis.query(analysis, kind, body, environment);
        return true;
    }
  });
}

function noteColumn(analysis: Analysis, reference: Tree, { scope }: Environment): void {
  const name = columnName(reference);
  if (name === null) return;
  const found = resolve(scope, name);
  if (found.kind === 'physical') analysis.physical = true;
  if (found.kind === 'unknown') analysis.reasons.add('unknown-column');
}

function subqueryOf(analysis: Analysis, sublink: Tree, environment: Environment): readonly Output[] | null {
  const known = analysis.subqueries.get(sublink);
  if (known !== undefined) return known.outputs;
  const [kind, body] = kindOf(child(sublink, 'subselect') ?? {});
  const result = analysis.query(analysis, kind, body, environment);
  analysis.subqueries.set(sublink, result);
  return result.outputs;
}

/** The linkable column an expression is, or null: only a bare column is equal to itself on every shard. */
export function columnOf(node: Tree | null, { scope }: Environment): ColumnNode | null {
  const name = columnName(node);
  if (name === null) return null;
  const found = resolve(scope, name);
  return found.kind === 'column' ? found.column : null;
}

/**
 * Reads a WHERE or ON: every part joined by AND that ties a column to a value or to another column counts, nothing below OR, NOT or
 * in a larger expression does.
 */
export function readConditions(analysis: Analysis, node: Tree | null, site: Site, environment: Environment): void {
  if (node === null) return;
  const conjunction = child(node, 'BoolExpr');
  if (text(conjunction, 'boolop') === 'AND_EXPR') {
    for (const part of list(conjunction, 'args')) readConditions(analysis, part, site, environment);
    return;
  }
  readExpression(analysis, node, environment);
  const comparison = child(node, 'A_Expr');
  if (comparison !== null && operatorName(comparison) === '=') readComparison(analysis, comparison, site, environment);
  const sublink = child(node, 'SubLink');
  if (sublink !== null) readMembership(analysis, sublink, site, environment);
}

function readComparison(analysis: Analysis, comparison: Tree, site: Site, environment: Environment): void {
  const left = child(comparison, 'lexpr');
  const right = child(comparison, 'rexpr');
  switch (text(comparison, 'kind')) {
    case 'AEXPR_OP':
      readEquality(analysis, left, right, site, environment);
      return;
    case 'AEXPR_NOT_DISTINCT':
      tie(analysis, left, right, site, environment, 'unproven');
      tie(analysis, right, left, site, environment, 'unproven');
      return;
    case 'AEXPR_IN':
    case 'AEXPR_OP_ANY': {
      const column = columnOf(left, environment);
      const type = column?.type ?? null;
      if (column === null || type === null) return;
      const read = text(comparison, 'kind') === 'AEXPR_IN' ? keyList : keyArray;
      const keys = read(right, analysis.keyContext(type));
      if (keys !== null) addPin(site, column, { keys, onNull: 'nothing' });
      return;
    }
    default:
      return;
  }
}

function readEquality(
  analysis: Analysis,
  left: Tree | null,
  right: Tree | null,
  site: Site,
  environment: Environment,
): void {
  const leftRow = child(left, 'RowExpr');
  const rightRow = child(right, 'RowExpr');
  if (leftRow !== null && rightRow !== null) {
    const rights = list(rightRow, 'args');
    list(leftRow, 'args').forEach((entry, index) => {
      readEquality(analysis, entry, rights[index] ?? null, site, environment);
    });
    return;
  }
  const a = columnOf(left, environment);
  const b = columnOf(right, environment);
  if (a !== null && b !== null) addEquality(site, a, b);
  tie(analysis, left, right, site, environment, 'nothing');
  tie(analysis, right, left, site, environment, 'nothing');
}

function tie(
  analysis: Analysis,
  column: Tree | null,
  value: Tree | null,
  site: Site,
  environment: Environment,
  onNull: KeyList['onNull'],
): void {
  const node = columnOf(column, environment);
  const type = node?.type ?? null;
  if (node === null || type === null) return;
  const key = keyExpression(value, analysis.keyContext(type));
  if (key === null || (onNull === 'unproven' && key.kind === 'constant' && key.value === null)) return;
  addPin(site, node, { keys: [key], onNull });
}

/** `column IN (SELECT other …)`: a row that passes has a partner there with an equal value. */
function readMembership(analysis: Analysis, sublink: Tree, site: Site, environment: Environment): void {
  const operator = strings(sublink, 'operName');
  if (text(sublink, 'subLinkType') !== 'ANY_SUBLINK' || (operator.length > 0 && operator.join('.') !== '=')) return;
  const column = columnOf(child(sublink, 'testexpr'), environment);
  const outputs = subqueryOf(analysis, sublink, environment);
  const other = outputs?.length === 1 ? (outputs[0]?.column ?? null) : null;
  if (column === null || other === null) return;
  addEquality(site, column, other);
  const result = analysis.subqueries.get(sublink);
  // The other way: rows of the subquery that no surviving row of this level asks for do not matter.
  const own = result?.restrictable === true && other.block === result.level && column.block === site.block;
  if (own && column.type === other.type) other.equals.push(column);
}
