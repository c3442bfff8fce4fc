/** One task: read FROM: which tables it names, which columns they have, and how its joins tie them. */
import { findRelation, type CatalogueTable } from './catalogue.js';
import { ruleOf } from './scheme.js';
import {
  within,
  type Analysis,
  type CommonTable,
  type Environment,
  type Output,
  type QueryResult,
} from './statement-analysis.js';
import { readConditions, readExpression } from './statement-conditions.js';
import { addEquality, columnNode, type ColumnNode, type Site } from './statement-graph.js';
import { keyTypeOf } from './statement-keys.js';
import {
  columnIn,
  EMPTY_NAMESPACE,
  joined,
  visibleNames,
  type Namespace,
  type ScopeColumn,
  type ScopeTable,
} from './statement-scope.js';
import { child, flag, kindOf, list, strings, text, type Tree } from './statement-tree.js';

const NOWHERE: ReadonlySet<object> = new Set();

/** Reads the entries of FROM from left to right, as one namespace. */
export function readFrom(
  analysis: Analysis,
  entries: readonly Tree[],
  environment: Environment,
  first: Namespace = EMPTY_NAMESPACE,
): Namespace {
  return entries.reduce((left, entry) => joined(left, readEntry(analysis, entry, environment, left, NOWHERE)), first);
}

/**
 * @param left what stands to the left: visible for LATERAL and functions
 * @param missing the outer joins on whose missing side the entry stands
 */
function readEntry(
  analysis: Analysis,
  entry: Tree,
  environment: Environment,
  left: Namespace,
  missing: ReadonlySet<object>,
): Namespace {
  const [kind, body] = kindOf(entry);
  const lateral = within(environment, [left, ...environment.scope]);
  switch (kind) {
    case 'RangeVar':
      return single(readRelation(analysis, body, environment, missing));
    case 'JoinExpr':
      return readJoin(analysis, body, environment, left, missing);
    case 'RangeSubselect': {
      const [inner, query] = kindOf(child(body, 'subquery') ?? {});
      const result = analysis.query(analysis, inner, query, flag(body, 'lateral') ? lateral : environment);
      return single(derivedTable(body, '', result, environment, missing, true));
    }
    case 'RangeTableSample':
      analysis.physical = true;
      readExpression(analysis, body.args, lateral);
      return readEntry(analysis, child(body, 'relation') ?? {}, environment, left, missing);
    default:
      // Functions, XMLTABLE, JSON_TABLE: no table of ours, and columns that the text alone does not tell.
      readExpression(analysis, body, lateral);
      return single({
        alias: text(child(body, 'alias'), 'aliasname') ?? functionName(body),
        schema: null,
        columns: null,
      });
  }
}

function single(table: ScopeTable): Namespace {
  return { tables: [table], merged: new Map() };
}

function functionName(body: Tree): string {
  const items = list(child(list(body, 'functions')[0] ?? null, 'List'), 'items');
  return strings(child(items[0] ?? null, 'FuncCall'), 'funcname').at(-1) ?? '';
}

/** A table, view or common table expression named in FROM; the target of a write has no common table of its name. */
export function readRelation(
  analysis: Analysis,
  relation: Tree,
  environment: Environment,
  missing: ReadonlySet<object> = NOWHERE,
  written = false,
): ScopeTable {
  const schema = text(relation, 'schemaname');
  const name = text(relation, 'relname') ?? '';
  const common = schema === null && !written ? environment.commonTables.get(name) : undefined;
  if (common !== undefined) return commonTable(relation, name, common, environment, missing);
  const alias = text(child(relation, 'alias'), 'aliasname');
  const { catalogue, searchPath } = analysis.context;
  const found = findRelation(catalogue, searchPath, schema, name);
  const unknown: ScopeTable = { alias: alias ?? name, schema: alias === null ? schema : null, columns: null };
  switch (found.kind) {
    case 'system':
      analysis.systemTables += 1;
      if (written) analysis.refusals.add('cluster-command');
      return unknown;
    case 'other':
      analysis.reasons.add('view');
      return unknown;
    case 'unknown':
      analysis.reasons.add('unknown-table');
      return unknown;
    case 'table': {
      const columns = columnsOf(found.table, environment, missing);
      noteTable(analysis, found.table, columns, !flag(relation, 'inh'));
      return {
        alias: alias ?? name,
        schema: alias === null ? found.table.schema : null,
        columns: renamed(columns, child(relation, 'alias')),
      };
    }
  }
}

function columnsOf(
  table: CatalogueTable,
  { level }: Environment,
  missing: ReadonlySet<object>,
): ReadonlyMap<string, ColumnNode> {
  return new Map(
    table.columns.map((column) => {
      const type = column.deterministic ? keyTypeOf(column.type) : null;
      return [column.name, columnNode(level, missing, type)];
    }),
  );
}

/** Notes what the statement needs of this table. */
function noteTable(
  analysis: Analysis,
  table: CatalogueTable,
  columns: ReadonlyMap<string, ColumnNode>,
  only: boolean,
): void {
  const { schema, name } = table;
  const rule = ruleOf(analysis.context.scheme, { schema, name, columns: table.columns.map((column) => column.name) });
  switch (rule.kind) {
    case 'sharded': {
      if (only) analysis.physical = true;
      const node = columns.get(rule.column);
      // A column whose type hashes otherwise than the rule says proves nothing.
      const position = table.columns.findIndex((column) => column.name === rule.column);
      const { maxLength = null, generated = false } = table.columns[position] ?? {};
      const relation = { schema, table: name };
      if (node?.type === rule.type)
        analysis.targets.push({
          ...{ table: `${schema}.${name}`, relation, rule, node, position, generated, maxLength },
          given: [],
        });
      else analysis.reasons.add('unpinned');
      return;
    }
    case 'omnisharded':
      analysis.omnisharded += 1;
      return;
    case 'shard':
      analysis.shards.add(rule.shard);
      return;
    case 'schema-all':
      analysis.reasons.add('schema-all');
  }
}

/** `t AS a (x, y)`: the first columns get other names. */
function renamed(columns: ReadonlyMap<string, ScopeColumn>, alias: Tree | null): ReadonlyMap<string, ScopeColumn> {
  const names = strings(alias, 'colnames');
  if (names.length === 0) return columns;
  return new Map([...columns].map(([name, column], index) => [names[index] ?? name, column]));
}

function commonTable(
  relation: Tree,
  name: string,
  { result, recursive, once }: CommonTable,
  environment: Environment,
  missing: ReadonlySet<object>,
): ScopeTable {
  if (recursive) {
    const alias = text(child(relation, 'alias'), 'aliasname') ?? name;
    return { alias, schema: null, columns: null };
  }
  return derivedTable(relation, name, result, environment, missing, once);
}

/** A query as a table: its columns equal those inside, and what restricts them outside restricts them inside where that is sound. */
function derivedTable(
  body: Tree,
  name: string,
  result: QueryResult,
  { level }: Environment,
  missing: ReadonlySet<object>,
  once: boolean,
): ScopeTable {
  const alias = child(body, 'alias');
  const shown = { alias: text(alias, 'aliasname') ?? name, schema: null };
  if (result.outputs === null) return { ...shown, columns: null };
  const columns = new Map<string, ScopeColumn>();
  for (const output of result.outputs) {
    // Two columns of one name: PostgreSQL calls a reference ambiguous.
    columns.set(
      columns.has(output.name) ? `${output.name}\0${columns.size.toString()}` : output.name,
      outside(output, result),
    );
  }
  return { ...shown, columns: renamed(columns, alias) };

  function outside({ column }: Output, { restrictable, level: inside }: QueryResult): ScopeColumn {
    if (column === null) return null;
    const node = columnNode(level, missing, column.type);
    node.equals.push(column);
    if (restrictable && once && column.block === inside) column.equals.push(node);
    return node;
  }
}

function readJoin(
  analysis: Analysis,
  join: Tree,
  environment: Environment,
  before: Namespace,
  missing: ReadonlySet<object>,
): Namespace {
  // Its inner names are hidden, and a reference could otherwise be taken for one further out.
  if (child(join, 'alias') !== null || child(join, 'join_using_alias') !== null) analysis.reasons.add('join-alias');
  const type = text(join, 'jointype');
  const self = {};
  const withSelf = new Set([...missing, self]);
  const leftMissing = type === 'JOIN_RIGHT' || type === 'JOIN_FULL' ? withSelf : missing;
  const rightMissing = type === 'JOIN_LEFT' || type === 'JOIN_FULL' ? withSelf : missing;
  const left = readEntry(analysis, child(join, 'larg') ?? {}, environment, before, leftMissing);
  const right = readEntry(analysis, child(join, 'rarg') ?? {}, environment, joined(before, left), rightMissing);
  const site: Site = { block: environment.level, outerJoin: outerJoinOf(type, self) };
  const both = joined(left, right);
  const merged = mergedColumns(analysis, join, type, site, left, right);
  const namespace = { tables: both.tables, merged: new Map([...both.merged, ...merged]) };
  readConditions(analysis, child(join, 'quals'), site, within(environment, [namespace, ...environment.scope]));
  return namespace;
}

/** A FULL JOIN's condition binds neither side: rows that fail it stay, extended with nulls. So its site is one that no column is on. */
function outerJoinOf(type: string | null, self: object): object | null {
  if (type === 'JOIN_INNER') return null;
  return type === 'JOIN_FULL' ? {} : self;
}

function mergedColumns(
  analysis: Analysis,
  join: Tree,
  type: string | null,
  site: Site,
  left: Namespace,
  right: Namespace,
): ReadonlyMap<string, ScopeColumn> {
  const merged = new Map<string, ScopeColumn>();
  for (const name of usingNames(analysis, join, left, right)) {
    const a = columnIn(left, name);
    const b = columnIn(right, name);
    if (a !== null && b !== null) addEquality(site, a, b);
    merged.set(name, type === 'JOIN_FULL' ? null : type === 'JOIN_RIGHT' ? b : a);
  }
  return merged;
}

function usingNames(analysis: Analysis, join: Tree, left: Namespace, right: Namespace): readonly string[] {
  if (!flag(join, 'isNatural')) return strings(join, 'usingClause');
  const [names, others] = [visibleNames(left), visibleNames(right)];
  if (names !== null && others !== null) return [...names].filter((name) => others.has(name));
  analysis.reasons.add('unknown-column');
  return [];
}
