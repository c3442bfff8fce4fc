/** One task: read INSERT: the key of each row, as a constant or a parameter, or from a query that is bound to keys itself. */
import { findRelation, type CatalogueColumn, type CatalogueTable } from './catalogue.js';
import { within, type Analysis, type Environment, type FoundTarget, type QueryResult } from './statement-analysis.js';
import { readExpression } from './statement-conditions.js';
import { pinsOf } from './statement-graph.js';
import { keyExpression } from './statement-keys.js';
import type { Namespace } from './statement-scope.js';
import { child, columnName, list, text, type Tree } from './statement-tree.js';
import type { KeyExpression } from './statement-verdict.js';
import { readReturning, readWrittenTable, writeLevel } from './statement-write.js';

/** One INSERT, with what its parts need to know. */
interface Insert {
  readonly analysis: Analysis;
  readonly body: Tree;
  readonly table: CatalogueTable;
  /** the columns that are given, in the statement's order */
  readonly columns: readonly string[];
  readonly environment: Environment;
}

export function readInsert(analysis: Analysis, body: Tree, outer: Environment): QueryResult {
  const environment = writeLevel(analysis, body, outer);
  const relation = child(body, 'relation');
  const { shown, target } = readWrittenTable(analysis, relation, environment);
  // Nothing of the table is read, so no condition can bind it: the rows' keys do.
  if (target !== null) analysis.targets.splice(analysis.targets.indexOf(target), 1);
  const namespace: Namespace = { tables: [shown], merged: new Map() };
  const { catalogue, searchPath } = analysis.context;
  const found = findRelation(catalogue, searchPath, text(relation, 'schemaname'), text(relation, 'relname') ?? '');
  if (found.kind === 'table') {
    const named = list(body, 'cols').map((entry) => text(child(entry, 'ResTarget'), 'name') ?? '');
    const columns = named.length > 0 ? named : found.table.columns.map(({ name }) => name);
    const insert = { analysis, body, table: found.table, columns, environment };
    const source = child(child(body, 'selectStmt'), 'SelectStmt');
    const rows = rowsOf(source);
    if (rows === null) readSource(insert, source, target);
    else readRows(insert, source, rows, target);
    noteDefaults(insert, rows);
    readConflict(insert, namespace, target);
  }
  return readReturning(analysis, body, namespace, within(environment, [namespace, ...outer.scope]));
}

/** The rows of VALUES or DEFAULT VALUES; null for a query. */
function rowsOf(source: Tree | null): readonly (readonly Tree[])[] | null {
  if (source === null) return [[]];
  const rows = list(source, 'valuesLists');
  const plain = list(source, 'sortClause').length === 0 && source.limitCount === undefined;
  if (rows.length === 0 || !plain || source.limitOffset !== undefined) return null;
  return rows.map((row) => list(child(row, 'List'), 'items'));
}

function readRows(
  insert: Insert,
  source: Tree | null,
  rows: readonly (readonly Tree[])[],
  target: FoundTarget | null,
): void {
  const { analysis, environment, columns } = insert;
  if (source !== null) analysis.query(analysis, 'SelectStmt', source, environment);
  if (target === null) {
    analysis.writes.push({ command: 'insert', target: null, rows: null, moves: null });
    return;
  }
  const position = columns.indexOf(target.rule.column);
  const column = insert.table.columns.find(({ name }) => name === target.rule.column);
  const keys = rows.map((row) => rowKey(analysis, row[position] ?? null, column, target));
  if (keys.every((key) => key !== null)) analysis.writes.push({ command: 'insert', target, rows: keys, moves: null });
}

/** A row without a key has NULL there; a computed default is not known before the row is stored. */
function rowKey(
  analysis: Analysis,
  value: Tree | null,
  column: CatalogueColumn | undefined,
  target: FoundTarget,
): KeyExpression | null {
  if (value === null || child(value, 'SetToDefault') !== null) {
    if (column?.default === 'none') return { kind: 'constant', value: null };
    analysis.refusals.add('key-missing');
    return null;
  }
  const key = keyExpression(value, analysis.keyContext(target.rule.type, target.maxLength));
  if (key === null) analysis.refusals.add('key-not-constant');
  return key;
}

/** INSERT … SELECT into a sharded table: the key's expression must be constant, or a sharding column that is itself bound. */
function readSource(insert: Insert, source: Tree | null, target: FoundTarget | null): void {
  const { analysis, environment, columns } = insert;
  const query = source ?? {};
  const result = analysis.query(analysis, 'SelectStmt', query, environment);
  analysis.writes.push({ command: 'insert', target, rows: null, moves: null });
  if (target === null) return;
  const position = columns.indexOf(target.rule.column);
  const value = position < 0 ? null : selectedValue(query, position);
  const key = keyExpression(value, analysis.keyContext(target.rule.type, target.maxLength));
  if (key !== null) {
    analysis.targets.push({ ...target, node: null, given: [{ keys: [key], onNull: 'stored' }] });
    return;
  }
  const from = position < 0 ? null : (result.outputs?.[position]?.column ?? null);
  const bound = analysis.targets.some(({ node }) => node === from && from !== null);
  const grouped = list(query, 'groupClause').some((entry) => child(entry, 'GroupingSet') !== null);
  const safe = from?.missingSideOf.size === 0 && from.type === target.rule.type && target.maxLength === null;
  if (from === null || !bound || grouped || !safe) {
    analysis.refusals.add('insert-select');
    return;
  }
  analysis.targets.push({ ...target, node: null, given: pinsOf(from) });
}

/** The expression at a place of a SELECT list; null where a `*` before it hides which one that is. */
function selectedValue(query: Tree, position: number): Tree | null {
  const values = list(query, 'targetList').map((entry) => child(child(entry, 'ResTarget'), 'val'));
  const before = values.slice(0, position + 1);
  const starred = before.some((value) => child(value, 'ColumnRef') !== null && columnName(value) === null);
  return text(query, 'op') !== 'SETOP_NONE' || starred ? null : (values[position] ?? null);
}

/** A default that is computed gives another value on each shard: that matters where the row is stored on all of them. */
function noteDefaults({ analysis, table, columns }: Insert, rows: readonly (readonly Tree[])[] | null): void {
  for (const column of table.columns) {
    if (column.default !== 'computed') continue;
    const position = columns.indexOf(column.name);
    const defaulted = rows?.some((row) => {
      const value = row[position];
      return value === undefined || child(value, 'SetToDefault') !== null;
    });
    if (position < 0 || defaulted === true) analysis.varies = true;
  }
}

/** ON CONFLICT sees only the rows of its own shard, so the key must be part of what is unique. */
function readConflict(insert: Insert, namespace: Namespace, target: FoundTarget | null): void {
  const { analysis, body, environment } = insert;
  const conflict = child(body, 'onConflictClause');
  if (conflict === null) return;
  const excluded = { alias: 'excluded', schema: null, columns: null };
  const scope = [{ tables: [...namespace.tables, excluded], merged: new Map<string, null>() }, ...environment.scope];
  const assignments = list(conflict, 'targetList').map((entry) => child(entry, 'ResTarget'));
  const inside = within(environment, scope);
  readExpression(analysis, [assignments.map((entry) => entry?.val), conflict.whereClause], inside);
  if (target === null) return;
  const { column } = target.rule;
  if (!conflictHasKey(insert, child(conflict, 'infer'), column)) analysis.refusals.add('conflict-without-key');
  for (const entry of assignments) {
    if (text(entry, 'name') !== column) continue;
    const value = columnName(child(entry, 'val'));
    if (value?.join('\0') !== `excluded\0${column}`) analysis.refusals.add('conflict-moves-key');
  }
}

function conflictHasKey({ table }: Insert, infer: Tree | null, column: string): boolean {
  const elements = list(infer, 'indexElems').map((entry) => text(child(entry, 'IndexElem'), 'name'));
  if (elements.length > 0) return elements.includes(column);
  return table.uniqueKeys.every((key) => key.includes(column));
}
