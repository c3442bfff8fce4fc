/** One task: read UPDATE, DELETE and MERGE: the table they write, the rows that matter, and whether a row's sharding key is changed. */
import { quoteIdentifier } from '../postgres/connection.js';
import {
  within,
  type Analysis,
  type Environment,
  type FoundTarget,
  type Level,
  type QueryResult,
} from './statement-analysis.js';
import { columnOf, readConditions, readExpression } from './statement-conditions.js';
import { readFrom, readRelation } from './statement-from.js';
import { keyExpression } from './statement-keys.js';
import { joined, type Namespace, type ScopeTable } from './statement-scope.js';
import { outputsOf, readCommonTables } from './statement-select.js';
import { asTree, child, list, text, type Tree } from './statement-tree.js';
import type { KeyExpression, MovedTable } from './statement-verdict.js';

export interface WrittenTable {
  readonly shown: ScopeTable;
  /** null: not a sharded table, or one that cannot be routed by its column */
  readonly target: FoundTarget | null;
}

/** Reads the table a statement writes, and notes of which kind it is. */
export function readWrittenTable(analysis: Analysis, relation: Tree | null, environment: Environment): WrittenTable {
  const before = { targets: analysis.targets.length, omnisharded: analysis.omnisharded };
  const shown = readRelation(analysis, relation ?? {}, environment, new Set(), true);
  analysis.written.add(analysis.omnisharded > before.omnisharded ? 'omnisharded' : 'sharded');
  return { shown, target: analysis.targets[before.targets] ?? null };
}

export function writeLevel(analysis: Analysis, body: Tree, outer: Environment): Environment {
  const level: Level = { windowed: false };
  return { level, scope: outer.scope, commonTables: readCommonTables(analysis, child(body, 'withClause'), outer) };
}

/** UPDATE and DELETE: `FROM` and `USING` tables join the written one. */
export function readChange(
  analysis: Analysis,
  command: 'update' | 'delete',
  body: Tree,
  outer: Environment,
): QueryResult {
  const environment = writeLevel(analysis, body, outer);
  const { shown, target } = readWrittenTable(analysis, child(body, 'relation'), environment);
  const others = list(body, command === 'update' ? 'fromClause' : 'usingClause');
  const namespace = readFrom(analysis, others, environment, { tables: [shown], merged: new Map() });
  const inside = within(environment, [namespace, ...outer.scope]);
  readConditions(analysis, child(body, 'whereClause'), { block: environment.level, outerJoin: null }, inside);
  const to = command === 'update' ? readAssignments(analysis, list(body, 'targetList'), target, inside) : undefined;
  const moves = to === undefined || target === null ? null : { to, moved: movedTable(target, shown, body) };
  analysis.writes.push({ command, target, rows: null, moves });
  return readReturning(analysis, body, namespace, inside);
}

/** Reads what SET assigns. @returns the new key, null where only the server can compute it; undefined where no key is changed */
function readAssignments(
  analysis: Analysis,
  assignments: readonly Tree[],
  target: FoundTarget | null,
  environment: Environment,
): KeyExpression | null | undefined {
  let to: KeyExpression | null | undefined = target?.generated === true ? null : undefined;
  for (const entry of assignments) {
    const assignment = child(entry, 'ResTarget');
    readExpression(analysis, [assignment?.val, assignment?.indirection], environment);
    if (text(assignment, 'name') !== target?.rule.column) continue;
    const value = child(assignment, 'val');
    // `SET key = key` moves nothing.
    if (target.node !== null && columnOf(value, environment) === target.node) continue;
    to = keyExpression(value, analysis.keyContext(target.rule.type, target.maxLength));
  }
  return to;
}

function movedTable({ relation }: FoundTarget, { alias, schema }: ScopeTable, body: Tree): MovedTable {
  const shownAs = [schema, alias].filter((name) => name !== null).map(quoteIdentifier);
  return { ...relation, shownAs: shownAs.join('.'), returning: child(body, 'returningClause') !== null };
}

/** RETURNING may name the row before and after as `old` and `new` (PostgreSQL 18). */
export function readReturning(
  analysis: Analysis,
  body: Tree,
  namespace: Namespace,
  environment: Environment,
): QueryResult {
  const expressions = list(child(body, 'returningClause'), 'exprs');
  const versions: Namespace = {
    tables: ['old', 'new'].map((alias) => ({ alias, schema: null, columns: null })),
    merged: new Map(),
  };
  const scope = [joined(namespace, versions), ...environment.scope.slice(1)];
  readExpression(analysis, expressions, within(environment, scope));
  return { outputs: outputsOf(expressions, namespace, environment), level: environment.level, restrictable: false };
}

/**
 * MERGE: the condition binds the written table, the source must be bound by itself. Rows are inserted only with a constant key;
 * a branch for rows that the source lacks would need every row of the table.
 */
export function readMerge(analysis: Analysis, body: Tree, outer: Environment): QueryResult {
  const environment = writeLevel(analysis, body, outer);
  const { shown, target } = readWrittenTable(analysis, child(body, 'relation'), environment);
  const source = readFrom(analysis, list({ from: [asTree(body.sourceRelation) ?? {}] }, 'from'), environment);
  const namespace = joined({ tables: [shown], merged: new Map() }, source);
  const inside = within(environment, [namespace, ...outer.scope]);
  const condition = { analysis, node: child(body, 'joinCondition'), environment: inside };
  // The source's rows stay where nothing matches: as the preserved side of an outer join whose other side is the written table.
  readMergeCondition(condition, target);
  for (const entry of list(body, 'mergeWhenClauses'))
    readMergeBranch(analysis, child(entry, 'MergeWhenClause') ?? {}, target, inside);
  analysis.writes.push({ command: 'merge', target, rows: null, moves: null });
  return readReturning(analysis, body, namespace, inside);
}

interface MergeCondition {
  readonly analysis: Analysis;
  readonly node: Tree | null;
  readonly environment: Environment;
}

function readMergeCondition({ analysis, node, environment }: MergeCondition, target: FoundTarget | null): void {
  const sourceSide =
    environment.scope[0]?.tables.slice(1).flatMap(({ columns }) => [...(columns?.values() ?? [])]) ?? [];
  const kept = sourceSide.map((column) => ({ column, pins: column?.pins.length, equals: column?.equals.length }));
  readConditions(analysis, node, { block: environment.level, outerJoin: null }, environment);
  for (const { column, pins, equals } of kept) {
    column?.pins.splice(pins ?? 0);
    column?.equals.splice(equals ?? 0);
  }
  if (target === null && analysis.targets.length > 0) analysis.refusals.add('merge');
}

function readMergeBranch(analysis: Analysis, branch: Tree, target: FoundTarget | null, environment: Environment): void {
  readExpression(analysis, branch.condition, environment);
  const columns = list(branch, 'targetList').map((entry) => child(entry, 'ResTarget'));
  readExpression(analysis, [columns.map((column) => column?.val), branch.values], environment);
  if (target === null) {
    // What a branch leaves to defaults may be computed anew on each shard.
    if (text(branch, 'commandType') === 'CMD_INSERT') analysis.varies = true;
    return;
  }
  if (text(branch, 'matchKind') === 'MERGE_WHEN_NOT_MATCHED_BY_SOURCE') analysis.refusals.add('merge');
  const position = columns.findIndex((column) => text(column, 'name') === target.rule.column);
  const changes = position >= 0 || target.generated;
  if (text(branch, 'commandType') === 'CMD_UPDATE' && changes) analysis.refusals.add('merge');
  if (text(branch, 'commandType') !== 'CMD_INSERT') return;
  const place = columns.length > 0 ? position : target.position;
  const value = place < 0 ? null : (list(branch, 'values')[place] ?? null);
  const key = keyExpression(value, analysis.keyContext(target.rule.type, target.maxLength));
  if (key === null) analysis.refusals.add('merge');
  else analysis.targets.push({ ...target, node: null, given: [{ keys: [key], onNull: 'stored' }] });
}
