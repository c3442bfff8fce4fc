/** One task: read a query: SELECT, VALUES, set operations and WITH. */
import {
  within,
  type Analysis,
  type CommonTable,
  type Environment,
  type Level,
  type Output,
  type QueryResult,
} from './statement-analysis.js';
import { readConditions, readExpression } from './statement-conditions.js';
import { readFrom } from './statement-from.js';
import { resolve, type Namespace, type ScopeTable } from './statement-scope.js';
import { asTree, child, flag, kindOf, list, strings, text, walk, type Tree } from './statement-tree.js';

/** Reads a SELECT of any form; `outer` is what stands around it. */
export function readSelect(analysis: Analysis, select: Tree, outer: Environment): QueryResult {
  const level: Level = { windowed: false };
  const environment: Environment = {
    level,
    scope: outer.scope,
    commonTables: readCommonTables(analysis, child(select, 'withClause'), outer),
  };
  if (child(select, 'intoClause') !== null) analysis.refusals.add('create-table-as');
  if (text(select, 'op') !== 'SETOP_NONE') return readSetOperation(analysis, select, environment);
  if (list(select, 'valuesLists').length > 0) return readValues(analysis, select, environment);
  const namespace = readFrom(analysis, list(select, 'fromClause'), environment);
  const inside = within(environment, [namespace, ...outer.scope]);
  readConditions(analysis, child(select, 'whereClause'), { block: level, outerJoin: null }, inside);
  for (const part of ['targetList', 'groupClause', 'windowClause', 'distinctClause', 'sortClause'])
    readExpression(analysis, select[part], inside);
  for (const part of ['havingClause', 'limitOffset', 'limitCount']) readExpression(analysis, select[part], inside);
  noteLocks(analysis, select, namespace);
  return {
    outputs: outputsOf(list(select, 'targetList'), namespace, inside),
    level,
    restrictable: list(select, 'windowClause').length === 0 && !level.windowed && isRestrictable(select),
  };
}

/** Whether leaving out input rows by a plain output column leaves out the output rows with that value, and changes no other. */
function isRestrictable(select: Tree): boolean {
  if (child(select, 'limitCount') !== null || child(select, 'limitOffset') !== null) return false;
  // A plain DISTINCT is a list with one empty entry; DISTINCT ON keeps one row of several values.
  const distinctOn = list(select, 'distinctClause').some((entry) => Object.keys(entry).length > 0);
  const groupingSets = list(select, 'groupClause').some((entry) => child(entry, 'GroupingSet') !== null);
  return !distinctOn && !groupingSets && list(select, 'lockingClause').length === 0;
}

function readSetOperation(analysis: Analysis, select: Tree, environment: Environment): QueryResult {
  const left = readSelect(analysis, child(select, 'larg') ?? {}, environment);
  readSelect(analysis, child(select, 'rarg') ?? {}, environment);
  for (const part of ['sortClause', 'limitOffset', 'limitCount']) readExpression(analysis, select[part], environment);
  const outputs = left.outputs?.map(({ name }) => ({ name, column: null })) ?? null;
  return { outputs, level: environment.level, restrictable: false };
}

function readValues(analysis: Analysis, select: Tree, environment: Environment): QueryResult {
  readExpression(analysis, select.valuesLists, environment);
  for (const part of ['sortClause', 'limitOffset', 'limitCount']) readExpression(analysis, select[part], environment);
  const first = list(child(list(select, 'valuesLists')[0] ?? null, 'List'), 'items');
  const outputs = first.map((_, index) => ({ name: `column${(index + 1).toString()}`, column: null }));
  return { outputs, level: environment.level, restrictable: false };
}

/** Reads WITH; the tables of it are visible after it, and with RECURSIVE in it as well. */
export function readCommonTables(
  analysis: Analysis,
  withClause: Tree | null,
  outer: Environment,
): ReadonlyMap<string, CommonTable> {
  if (withClause === null) return outer.commonTables;
  const visible = new Map(outer.commonTables);
  const entries = list(withClause, 'ctes').map((entry) => child(entry, 'CommonTableExpr') ?? {});
  const recursive = flag(withClause, 'recursive');
  const nothing: QueryResult = { outputs: null, level: outer.level, restrictable: false };
  if (recursive) {
    for (const entry of entries)
      visible.set(text(entry, 'ctename') ?? '', { result: nothing, recursive: true, once: false });
  }
  for (const entry of entries) {
    const name = text(entry, 'ctename') ?? '';
    const [kind, body] = kindOf(child(entry, 'ctequery') ?? {});
    const result = analysis.query(analysis, kind, body, { ...outer, commonTables: new Map(visible) });
    visible.set(name, {
      result: { ...result, outputs: renamedOutputs(result.outputs, strings(entry, 'aliascolnames')) },
      recursive,
      once: usesOf(analysis.statement, name) === 1,
    });
  }
  return visible;
}

function renamedOutputs(outputs: readonly Output[] | null, names: readonly string[]): readonly Output[] | null {
  return outputs?.map((output, index) => ({ ...output, name: names[index] ?? output.name })) ?? null;
}

/** How often a bare table name stands in the statement, at whatever level: more than the uses of one WITH entry, never fewer. */
function usesOf(statement: Tree, name: string): number {
  let uses = 0;
  walk({ Statement: statement }, (kind, body) => {
    if (kind === 'RangeVar' && text(body, 'relname') === name && text(body, 'schemaname') === null) uses += 1;
    return false;
  });
  return uses;
}

function noteLocks(analysis: Analysis, select: Tree, namespace: Namespace): void {
  for (const entry of list(select, 'lockingClause')) {
    const clause = child(entry, 'LockingClause');
    // Locks that do not exclude each other may be taken on different shards.
    const strength = text(clause, 'strength');
    if (strength === 'LCS_FORSHARE' || strength === 'LCS_FORKEYSHARE') analysis.locked.add('sharded');
    else for (const kind of lockedKinds(analysis, clause, namespace)) analysis.locked.add(kind);
  }
}

function lockedKinds(
  analysis: Analysis,
  clause: Tree | null,
  namespace: Namespace,
): ReadonlySet<'sharded' | 'omnisharded'> {
  const names = new Set(list(clause, 'lockedRels').map((entry) => text(child(entry, 'RangeVar'), 'relname')));
  const kinds = new Set<'sharded' | 'omnisharded'>();
  for (const table of namespace.tables) {
    if (names.size > 0 && !names.has(table.alias)) continue;
    const columns = new Set(table.columns?.values() ?? []);
    const sharded = analysis.targets.some(({ node }) => node !== null && columns.has(node));
    // Not a sharded table itself: one of every shard, or a query that has such tables inside.
    kinds.add(sharded ? 'sharded' : 'omnisharded');
  }
  return kinds;
}

/** The result's columns; null where a name cannot be told from the text. */
export function outputsOf(
  targets: readonly Tree[],
  namespace: Namespace,
  environment: Environment,
): readonly Output[] | null {
  const outputs: Output[] = [];
  for (const entry of targets) {
    const target = child(entry, 'ResTarget');
    const value = child(target, 'val');
    const expanded = expandedStar(value, namespace);
    if (expanded === null) return null;
    if (expanded.length > 0) outputs.push(...expanded);
    else {
      const name = text(target, 'name') ?? outputName(value);
      if (name === null) return null;
      outputs.push({ name, column: plainColumn(value, environment) });
    }
  }
  return outputs;
}

function plainColumn(value: Tree | null, { scope }: Environment): Output['column'] {
  const fields = list(child(value, 'ColumnRef'), 'fields');
  const names = fields.map((field) => text(child(field, 'String'), 'sval') ?? '');
  if (names.length === 0 || names.includes('')) return null;
  const found = resolve(scope, names);
  return found.kind === 'column' ? found.column : null;
}

/** What `*` and `t.*` stand for; empty for everything else, null where the columns are not known. */
function expandedStar(value: Tree | null, namespace: Namespace): readonly Output[] | null {
  const fields = list(child(value, 'ColumnRef'), 'fields');
  if (child(fields.at(-1) ?? null, 'A_Star') === null) return [];
  const alias = fields.length > 1 ? text(child(fields.at(-2) ?? null, 'String'), 'sval') : null;
  const tables = alias === null ? namespace.tables : namespace.tables.filter((table) => table.alias === alias);
  if (tables.length === 0 || tables.some(({ columns }) => columns === null)) return null;
  const merged = alias === null ? [...namespace.merged].map(([name, column]) => ({ name, column })) : [];
  const others = tables.flatMap((table: ScopeTable) =>
    [...(table.columns ?? [])].filter(([name]) => alias !== null || !namespace.merged.has(name)),
  );
  return [...merged, ...others.map(([name, column]) => ({ name, column }))];
}

/** The name PostgreSQL gives an unnamed column, in the cases that are plain; null otherwise. */
export function outputName(value: Tree | null): string | null {
  if (value === null) return null;
  const [kind, body] = kindOf(value);
  switch (kind) {
    case 'ColumnRef':
      return text(child(list(body, 'fields').at(-1) ?? null, 'String'), 'sval');
    case 'FuncCall':
      return strings(body, 'funcname').at(-1) ?? null;
    case 'CoalesceExpr':
      return 'coalesce';
    case 'A_Const':
      // Servers before 15 name `true` otherwise.
      return child(body, 'boolval') === null ? '?column?' : null;
    case 'A_Expr':
      return text(body, 'kind') === 'AEXPR_NULLIF' ? 'nullif' : '?column?';
    case 'BoolExpr':
    case 'NullTest':
    case 'BooleanTest':
    case 'ParamRef':
      return '?column?';
    case 'TypeCast':
      return castName(body);
    default:
      return null;
  }
}

function castName(cast: Tree): string | null {
  const name = outputName(asTree(cast.arg));
  return name === '?column?' ? (strings(child(cast, 'typeName'), 'names').at(-1) ?? null) : name;
}
