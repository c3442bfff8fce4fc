/** One task: read a statement that may be answered from each shard's part of one table: its text, its tree and its table's parts. */
import { partOn } from '../postgres/coordinator/tables.js';
import { quoteIdentifier } from '../postgres/connection.js';
import { findRelation, type CatalogueTable } from './catalogue.js';
import { isUnderstood, parametersIn, type PartialScope } from './partial-expressions.js';
import { cutSelect, withoutLast, withoutName, type SelectText, type Span } from './partial-text.js';
import { partitionProblem, partitionsOf, type IntegerType } from './partition-sql.js';
import { ruleOf, type TableRule } from './scheme.js';
import type { RoutingContext } from './statement-analysis.js';
import { characterOffsets, type StatementParser, type Token } from './statement-parser.js';
import { outputName } from './statement-select.js';
import { child, flag, kindOf, list, number, text, type Tree } from './statement-tree.js';

export interface PartialSource {
  readonly scope: PartialScope;
  readonly table: CatalogueTable;
  readonly rule: TableRule;
  readonly sql: string;
  readonly select: Tree;
  readonly words: readonly Token[];
  readonly text: SelectText;
  /** a place in the tree as a place in the text */
  readonly at: (location: number) => number;
  readonly targets: readonly Target[];
  readonly sorts: readonly Sort[];
  /** what stands behind FROM in the part of each shard */
  readonly parts: readonly string[];
  readonly parser: StatementParser;
}

/** One item of SELECT. */
export interface Target {
  readonly value: Tree;
  /** without the name given to it */
  readonly span: Span;
  /** null: PostgreSQL's own name for it is not certain */
  readonly name: string | null;
}

/** One item of ORDER BY. */
export interface Sort {
  readonly node: Tree;
  readonly span: Span;
  /** ` DESC NULLS LAST`, as far as written */
  readonly suffix: string;
}

/** Longer texts are not worth their reading. */
const TEXT_CHARACTERS_MAX = 65_536;
const INTEGERS: Readonly<Record<string, IntegerType>> = { int2: 'smallint', int4: 'integer', int8: 'bigint' };
/** Clauses that are not understood, or of which each row's place in the whole matters. */
const NEVER = [
  'withClause',
  'intoClause',
  'distinctClause',
  'windowClause',
  'lockingClause',
  'valuesLists',
  'groupDistinct',
];

/** @returns null for every statement that is not one plain SELECT, or its EXPLAIN, of one sharded table */
export function readSource(parser: StatementParser, context: RoutingContext, sql: string): PartialSource | null {
  if (sql.length > TEXT_CHARACTERS_MAX) return null;
  const [statement, ...more] = parser.parse(sql) ?? [];
  if (statement === undefined || more.length > 0) return null;
  const select =
    statement.kind === 'ExplainStmt' ? child(child(statement.body, 'query'), 'SelectStmt') : plain(statement);
  const found = select === null ? null : tableOf(context, select);
  if (select === null || found === null) return null;
  const at = characterOffsets(sql);
  const words = parser.tokens(sql).filter((word) => word.end <= statement.end && word.text !== ';');
  const cut = cutSelect(words, at(found.location));
  if (cut === null) return null;
  const targets = targetsOf(select, words, cut);
  const sorts = sortsOf(select, words, cut);
  if (targets === null || sorts === null || !areParametersCertain(select)) return null;
  const columns = new Map(found.table.columns.map((column) => [column.name, column]));
  const scope = { context, alias: found.alias, columns };
  if (!isUnderstood(scope, [select.whereClause, select.limitCount, select.limitOffset], false)) return null;
  const alias = quoteIdentifier(found.alias);
  const parts = shardsOf(context, found).map((shard) => `${partOn(found.table, shard)} AS ${alias}`);
  return {
    scope,
    table: found.table,
    rule: found.rule,
    sql,
    select,
    words,
    text: cut,
    at,
    targets,
    sorts,
    parts,
    parser,
  };
}

function plain({ kind, body }: { readonly kind: string; readonly body: Tree }): Tree | null {
  return kind === 'SelectStmt' ? body : null;
}

interface FoundTable {
  readonly table: CatalogueTable;
  readonly rule: TableRule;
  readonly alias: string;
  readonly location: number;
}

function tableOf({ catalogue, searchPath, scheme }: RoutingContext, select: Tree): FoundTable | null {
  if (text(select, 'op') !== 'SETOP_NONE' || NEVER.some((clause) => select[clause] !== undefined)) return null;
  const [from, ...more] = list(select, 'fromClause');
  const relation = child(from ?? null, 'RangeVar');
  const alias = child(relation, 'alias');
  if (relation === null || more.length > 0 || !flag(relation, 'inh') || text(relation, 'catalogname') !== null)
    return null;
  if (list(alias, 'colnames').length > 0) return null;
  const name = text(relation, 'relname') ?? '';
  const found = findRelation(catalogue, searchPath, text(relation, 'schemaname'), name);
  if (found.kind !== 'table') return null;
  const { table } = found;
  const rule = ruleOf(scheme, { ...table, columns: table.columns.map((column) => column.name) });
  if (rule.kind !== 'sharded') return null;
  return { table, rule, alias: text(alias, 'aliasname') ?? name, location: number(relation, 'location') };
}

/** The shards that the coordinator reads the table from: see coordinator-place.ts. */
function shardsOf({ scheme }: RoutingContext, { table, rule }: FoundTable): readonly number[] {
  const all = Array.from({ length: scheme.shards }, (_, shard) => shard);
  if (partitionProblem(rule) !== null) return all;
  const type = table.columns.find(({ name }) => name === rule.column)?.type ?? '';
  return [...new Set(partitionsOf(rule, scheme.shards, INTEGERS[type]).map(({ shard }) => shard))];
}

function targetsOf(select: Tree, words: readonly Token[], { targets }: SelectText): readonly Target[] | null {
  const nodes = list(select, 'targetList').map((entry) => child(entry, 'ResTarget') ?? {});
  if (nodes.length !== targets.length) return null;
  const found = targets.flatMap((item, index) => {
    const node = nodes[index] ?? {};
    const named = text(node, 'name');
    const value = child(node, 'val');
    const span = named === null ? item : withoutName(words, item);
    return value === null || span === null ? [] : [{ value, span, name: named ?? outputName(value) }];
  });
  return found.length === nodes.length ? found : null;
}

const DIRECTIONS: Readonly<Record<string, string>> = { SORTBY_ASC: ' ASC', SORTBY_DESC: ' DESC' };
const NULLS: Readonly<Record<string, string>> = {
  SORTBY_NULLS_FIRST: ' NULLS FIRST',
  SORTBY_NULLS_LAST: ' NULLS LAST',
};

function sortsOf(select: Tree, words: readonly Token[], { sorts }: SelectText): readonly Sort[] | null {
  const nodes = list(select, 'sortClause').map((entry) => child(entry, 'SortBy') ?? {});
  if (nodes.length !== sorts.length) return null;
  const found = sorts.flatMap((item, index) => {
    const sort = nodes[index] ?? {};
    const node = child(sort, 'node');
    const direction = DIRECTIONS[text(sort, 'sortby_dir') ?? ''] ?? '';
    const nulls = NULLS[text(sort, 'sortby_nulls') ?? ''] ?? '';
    const span = withoutLast(words, item, (direction === '' ? 0 : 1) + (nulls === '' ? 0 : 2));
    if (node === null || span === null || text(sort, 'sortby_dir') === 'SORTBY_USING') return [];
    return [{ node, span, suffix: direction + nulls }];
  });
  return found.length === nodes.length ? found : null;
}

/**
 * A parameter has the type of the place where PostgreSQL meets it first. In another order of the clauses that is the same place only
 * where it stands once, or in WHERE alone.
 */
function areParametersCertain(select: Tree): boolean {
  const inWhere = parametersIn(select.whereClause);
  const elsewhere = parametersIn([select.targetList, select.havingClause, select.limitCount, select.limitOffset]);
  const once = elsewhere.every((one, index) => !inWhere.includes(one) && elsewhere.indexOf(one) === index);
  return once && parametersIn([select.groupClause, select.sortClause]).length === 0;
}

/** The number of an item of SELECT that GROUP BY or ORDER BY names; null for everything else. */
export function ordinalOf(node: Tree): number | null {
  const value = child(child(node, 'A_Const'), 'ival');
  return value === null ? null : number(value, 'ival');
}

/** A name without a table; null for everything else. */
export function bareName(node: Tree): string | null {
  const fields = list(child(node, 'ColumnRef'), 'fields');
  return fields.length === 1 ? text(child(fields[0] ?? null, 'String'), 'sval') : null;
}

/** The SELECT that a text of ours is, as the parser reads it; null where it is none. */
export function parsedSelect(parser: StatementParser, sql: string): Tree | null {
  const [statement] = parser.parse(sql) ?? [];
  if (statement === undefined) return null;
  const [kind, body] =
    statement.kind === 'ExplainStmt' ? kindOf(child(statement.body, 'query') ?? {}) : [statement.kind, statement.body];
  return kind === 'SelectStmt' ? body : null;
}
