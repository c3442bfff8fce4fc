/**
 * One task: tell whether an expression over one table means the same where it stands in another statement over the same columns, and
 * what of it matters there: its aggregates, its parameters, its exact type.
 *
 * Everything that is not on a list here is not understood.
 */
import { findFunction, type CatalogueColumn } from './catalogue.js';
import { isDivisible, type ExactType } from './partial-aggregates.js';
import type { RoutingContext } from './statement-analysis.js';
import {
  asTree,
  child,
  columnName,
  flag,
  kindOf,
  list,
  number,
  operatorName,
  strings,
  text,
  type Tree,
} from './statement-tree.js';

export interface PartialScope {
  readonly context: RoutingContext;
  /** by which the statement names its table */
  readonly alias: string;
  readonly columns: ReadonlyMap<string, CatalogueColumn>;
}

const KINDS: ReadonlySet<string> = new Set([
  ...[
    'A_Const',
    'ParamRef',
    'A_Expr',
    'BoolExpr',
    'NullTest',
    'BooleanTest',
    'TypeCast',
    'TypeName',
    'String',
    'Integer',
  ],
  ...[
    'CaseExpr',
    'CaseWhen',
    'CoalesceExpr',
    'MinMaxExpr',
    'List',
    'A_ArrayExpr',
    'SQLValueFunction',
    'ColumnRef',
    'FuncCall',
  ],
]);

/** @param aggregates whether one may stand here, outside of another */
export function isUnderstood(scope: PartialScope, value: unknown, aggregates: boolean): boolean {
  if (Array.isArray(value)) return value.every((entry) => isUnderstood(scope, entry, aggregates));
  const tree = asTree(value);
  if (tree === null) return true;
  return Object.entries(tree).every(([key, inside]) => {
    // Node kinds begin with a capital letter, fields do not.
    if (!/^[A-Z]/.test(key)) return isUnderstood(scope, inside, aggregates);
    if (!KINDS.has(key)) return false;
    if (key === 'ColumnRef') return columnOf(scope, tree) !== null;
    if (key !== 'FuncCall') return isUnderstood(scope, inside, aggregates);
    return isCallUnderstood(scope, asTree(inside) ?? {}, aggregates);
  });
}

const NEVER = ['over', 'agg_order', 'agg_distinct', 'agg_within_group', 'func_variadic'];

function isCallUnderstood(scope: PartialScope, call: Tree, aggregates: boolean): boolean {
  const found = functionOf(scope, call);
  if (found === null || found.volatility === 'volatile' || found.window || found.set) return false;
  if (NEVER.some((field) => call[field] !== undefined)) return false;
  if (!found.aggregate) return !flag(call, 'agg_star') && isUnderstood(scope, [call.args, call.agg_filter], aggregates);
  const known = found.builtIn && isDivisible(strings(call, 'funcname').at(-1) ?? '');
  return known && aggregates && isUnderstood(scope, [call.args, call.agg_filter], false);
}

function functionOf({ context }: PartialScope, call: Tree): ReturnType<typeof findFunction> {
  const name = strings(call, 'funcname');
  return findFunction(context.catalogue, context.searchPath, name.at(-2) ?? null, name.at(-1) ?? '');
}

export function isAggregate(scope: PartialScope, node: Tree): boolean {
  const call = child(node, 'FuncCall');
  return call !== null && functionOf(scope, call)?.aggregate === true;
}

/** The table's column that a node names; null for everything else. */
export function columnOf({ alias, columns }: PartialScope, node: Tree): CatalogueColumn | null {
  const name = columnName(node);
  if (name === null || name.length > 2 || (name.length === 2 && name[0] !== alias)) return null;
  return columns.get(name.at(-1) ?? '') ?? null;
}

const CONDITIONS: ReadonlySet<string> = new Set(['BoolExpr', 'NullTest', 'BooleanTest']);
const COMPARISONS: ReadonlySet<string> = new Set(['=', '<>', '!=', '<', '>', '<=', '>=']);
const BOOLEAN_AGGREGATES: ReadonlySet<string> = new Set(['bool_and', 'bool_or', 'every']);

/** Whether an expression, if it has a value at all, certainly has a boolean one. */
export function isCondition(scope: PartialScope, node: Tree): boolean {
  const [kind, body] = kindOf(node);
  if (CONDITIONS.has(kind)) return true;
  if (kind === 'A_Const') return child(body, 'boolval') !== null;
  if (kind === 'FuncCall')
    return isAggregate(scope, node) && BOOLEAN_AGGREGATES.has(strings(body, 'funcname').at(-1) ?? '');
  if (kind !== 'A_Expr' || text(body, 'kind') === 'AEXPR_NULLIF') return false;
  return text(body, 'kind') !== 'AEXPR_OP' || COMPARISONS.has(operatorName(body) ?? '');
}

/** All columns below a node. */
export function columnsIn(scope: PartialScope, value: unknown): readonly CatalogueColumn[] {
  if (Array.isArray(value)) return value.flatMap((entry) => columnsIn(scope, entry));
  const tree = asTree(value);
  if (tree === null) return [];
  const own = columnOf(scope, tree);
  return own === null ? Object.values(tree).flatMap((inside) => columnsIn(scope, inside)) : [own];
}

/** The number of each `$n` below a node, once for each time it stands there. */
export function parametersIn(value: unknown): readonly number[] {
  if (Array.isArray(value)) return value.flatMap(parametersIn);
  const tree = asTree(value);
  if (tree === null) return [];
  const own = child(tree, 'ParamRef');
  return own === null ? Object.values(tree).flatMap(parametersIn) : [number(own, 'number')];
}

/** A node without what says where it stands, and a column without its table: equal for expressions that mean the same. */
export function meaningOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(meaningOf);
  const tree = asTree(value);
  if (tree === null) return value;
  const name = columnName(tree);
  if (name !== null) return { column: name.at(-1) };
  return Object.fromEntries(
    Object.entries(tree)
      .filter(([key]) => !PLACES.has(key))
      .map(([key, inside]) => [key, meaningOf(inside)]),
  );
}

const PLACES: ReadonlySet<string> = new Set([
  'location',
  'rexpr_list_start',
  'rexpr_list_end',
  'list_start',
  'list_end',
]);

const ORDER: readonly ExactType[] = ['int2', 'int4', 'int8', 'numeric'];
const ARITHMETIC: ReadonlySet<string> = new Set(['+', '-', '*', '/', '%']);

/** The type of an expression whose sum is exact; null for every other, and where it is not certain. */
export function exactType(scope: PartialScope, node: Tree | null): ExactType | null {
  if (node === null) return null;
  const [kind, body] = kindOf(node);
  switch (kind) {
    case 'ColumnRef':
      return exactNamed(columnOf(scope, node)?.type);
    case 'A_Const':
      return constantType(body);
    case 'TypeCast': {
      const type = child(body, 'typeName');
      const [schema, name] = strings(type, 'names');
      return schema === 'pg_catalog' && list(type, 'arrayBounds').length === 0 ? exactNamed(name) : null;
    }
    case 'A_Expr':
      return arithmeticType(scope, body);
    case 'CoalesceExpr':
      return widest(list(body, 'args').map((entry) => exactType(scope, entry)));
    case 'CaseExpr': {
      const results = list(body, 'args').map((entry) => child(child(entry, 'CaseWhen'), 'result'));
      const otherwise = child(body, 'defresult');
      const all = otherwise === null ? results : [...results, otherwise];
      return widest(all.filter((entry) => !isNull(entry)).map((entry) => exactType(scope, entry)));
    }
    default:
      return null;
  }
}

function isNull(node: Tree | null): boolean {
  return flag(child(node, 'A_Const'), 'isnull');
}

function exactNamed(name: string | undefined): ExactType | null {
  return ORDER.find((type) => type === name) ?? null;
}

function constantType(body: Tree): ExactType | null {
  if (child(body, 'ival') !== null) return 'int4';
  const digits = text(child(body, 'fval'), 'fval');
  if (digits === null) return null;
  if (!/^-?\d+$/.test(digits)) return 'numeric';
  const value = BigInt(digits);
  if (BigInt.asIntN(32, value) === value) return 'int4';
  return BigInt.asIntN(64, value) === value ? 'int8' : 'numeric';
}

/** Operators of the users' own may be nearer to these types than PostgreSQL's. */
function arithmeticType(scope: PartialScope, body: Tree): ExactType | null {
  if (text(body, 'kind') !== 'AEXPR_OP' || scope.context.catalogue.ownArithmetic) return null;
  if (!ARITHMETIC.has(operatorName(body) ?? '')) return null;
  const left = child(body, 'lexpr');
  const sides = [...(left === null ? [] : [left]), child(body, 'rexpr')];
  return widest(sides.map((side) => exactType(scope, side)));
}

function widest(types: readonly (ExactType | null)[]): ExactType | null {
  if (types.length === 0 || types.includes(null)) return null;
  return ORDER.findLast((type) => types.includes(type)) ?? null;
}
