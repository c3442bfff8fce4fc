/**
 * One task: say for each statement of a text where it may run on a sharded database, from its text alone.
 *
 * Pure: the verdict depends on the text and the routing context (scheme, catalogue, search path) and on nothing else, so it may be
 * kept. Parameters are bound to it later (router-binding.ts). A statement goes to a single shard only where that is proven.
 */
import { findRelation, type CatalogueTable } from './catalogue.js';
import { ruleOf, type TableRule } from './scheme.js';
import { Analysis, type Environment, type QueryResult, type RoutingContext } from './statement-analysis.js';
import { readInsert } from './statement-insert.js';
import { DependsOnValue, TemplateLiterals, type LiteralRead } from './statement-literals.js';
import type { StatementParser } from './statement-parser.js';
import { readSelect } from './statement-select.js';
import { refused, settle } from './statement-settle.js';
import { child, flag, kindOf, list, number, strings, text, type Tree } from './statement-tree.js';
import type { Template } from './statement-template.js';
import { isSetConfig, rewritesKey, utilityVerdict } from './statement-utility.js';
import type { CopyFrom, SettledVerdict, StatementVerdict, Verdict } from './statement-verdict.js';
import { readChange, readMerge } from './statement-write.js';

/** A text this long is not read: its tree would take hundreds of megabytes. */
const TEXT_MAX_LENGTH = 4 * 1024 * 1024;

/** The verdicts on all statements of a text, in order; empty for a text without a statement. Never throws for what a client sent. */
export function analyseStatements(
  parser: StatementParser,
  context: RoutingContext,
  sql: string,
): readonly StatementVerdict[] {
  const whole = (verdict: Verdict): readonly StatementVerdict[] => [{ verdict, start: 0, end: sql.length }];
  if (sql.length > TEXT_MAX_LENGTH) return whole(refused('too-long'));
  try {
    const statements = parser.parse(sql);
    // A server says better what is wrong with it, and the coordinator's takes no write.
    if (statements === null) return whole({ kind: 'coordinator', reason: 'syntax' });
    return statements.map(({ kind, body, start, end }) => ({ verdict: verdictOn(context, kind, body), start, end }));
  } catch (error) {
    // Nested deeper than the stack holds.
    if (error instanceof RangeError) return whole(refused('too-complex'));
    throw error;
  }
}

/** What holds for every text of a template whose `reads` are keys there too. */
export interface TemplateVerdict {
  readonly verdict: Verdict;
  /** the literals that are keys; the verdict names them by their place here */
  readonly reads: readonly LiteralRead[];
  readonly start: number;
  /** characters behind the statement's end */
  readonly behind: number;
}

/**
 * The verdict on all texts of a template; `never`: they must be analysed one by one; null: this one must, and tells nothing of the others.
 * Never throws for what a client sent.
 */
export function analyseTemplate(
  parser: StatementParser,
  context: RoutingContext,
  template: Template,
): TemplateVerdict | 'never' | null {
  const literals = new TemplateLiterals(template);
  try {
    const [statement, ...more] = parser.parse(template.sql) ?? [];
    // Other statements than these look at values: SET, COPY, DECLARE, …
    if (statement === undefined || more.length > 0 || !DATA.has(statement.kind)) return 'never';
    if (!literals.takeFrom(statement)) return 'never';
    const { kind, body, start, end } = statement;
    const verdict = verdictOn(context, kind, body);
    return { verdict, reads: literals.reads, start, behind: template.sql.length - end };
  } catch (error) {
    if (error instanceof DependsOnValue) return error.always ? 'never' : null;
    if (error instanceof RangeError) return 'never';
    throw error;
  }
}

const DATA = new Set(['SelectStmt', 'InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt']);

function verdictOn(context: RoutingContext, kind: string, body: Tree): Verdict {
  switch (kind) {
    case 'SelectStmt':
      if (isSetConfig(body)) return { kind: 'session', command: kind, hint: null, step: 'set' };
      return dataVerdict(context, kind, body);
    case 'InsertStmt':
    case 'UpdateStmt':
    case 'DeleteStmt':
    case 'MergeStmt':
      return dataVerdict(context, kind, body);
    case 'ExplainStmt':
      return explainVerdict(context, body);
    case 'DeclareCursorStmt':
      return verdictOn(context, ...kindOf(child(body, 'query') ?? {}));
    case 'CopyStmt':
      return copyVerdict(context, body);
    default:
      if (rewritesKey(kind, body, (column) => context.scheme.tables.some((entry) => entry.column === column)))
        return refused('key-rewritten');
      return utilityVerdict(kind, body);
  }
}

function dataVerdict(context: RoutingContext, kind: string, body: Tree): Verdict {
  if (hidesOperators(context.searchPath)) return unproven(kind);
  const analysis = new Analysis(context, { [kind]: body }, readQuery);
  readQuery(analysis, kind, body, { level: { windowed: false }, scope: [], commonTables: new Map() });
  return settle(analysis);
}

/** With pg_catalog named after another schema, `=` may be an operator of the user's. */
function hidesOperators(searchPath: readonly string[]): boolean {
  return searchPath.indexOf('pg_catalog') > 0;
}

function unproven(kind: string): Verdict {
  return kind === 'SelectStmt' ? { kind: 'coordinator', reason: 'search-path' } : refused('search-path');
}

function readQuery(analysis: Analysis, kind: string, body: Tree, environment: Environment): QueryResult {
  switch (kind) {
    case 'InsertStmt':
      return readInsert(analysis, body, environment);
    case 'UpdateStmt':
      return readChange(analysis, 'update', body, environment);
    case 'DeleteStmt':
      return readChange(analysis, 'delete', body, environment);
    case 'MergeStmt':
      return readMerge(analysis, body, environment);
    default:
      return readSelect(analysis, body, environment);
  }
}

/** EXPLAIN goes where its statement goes; a plan of several shards' writes is the coordinator's, unless it would run them. */
function explainVerdict(context: RoutingContext, body: Tree): Verdict {
  const verdict = verdictOn(context, ...kindOf(child(body, 'query') ?? {}));
  const runs = list(body, 'options').some((entry) => text(child(entry, 'DefElem'), 'defname') === 'analyze');
  const planned: SettledVerdict = runs ? refused('explain') : { kind: 'coordinator', reason: 'explain' };
  switch (verdict.kind) {
    case 'keys':
      return { ...verdict, otherwise: verdict.otherwise.kind === 'several' ? planned : verdict.otherwise };
    case 'rows':
      return { ...verdict, divisible: false };
    case 'any':
    case 'coordinator':
    case 'refused':
      return verdict;
    default:
      return planned;
  }
}

function copyVerdict(context: RoutingContext, body: Tree): Verdict {
  const query = child(body, 'query');
  if (flag(body, 'is_program') || text(body, 'filename') !== null) return refused('copy-file');
  if (query !== null) return verdictOn(context, ...kindOf(query));
  const relation = child(body, 'relation');
  const { catalogue, searchPath, scheme } = context;
  const found = findRelation(catalogue, searchPath, text(relation, 'schemaname'), text(relation, 'relname') ?? '');
  const into = flag(body, 'is_from');
  if (found.kind !== 'table') return into ? refused('unknown-table') : { kind: 'coordinator', reason: 'copy-to' };
  const { schema, name } = found.table;
  const rule = ruleOf(scheme, { schema, name, columns: found.table.columns.map((column) => column.name) });
  switch (rule.kind) {
    case 'shard':
      return keysOfShard(rule.shard, into);
    case 'schema-all':
      return into ? refused('schema-all') : { kind: 'coordinator', reason: 'copy-to' };
    case 'omnisharded': {
      if (!into) return { kind: 'any', fixed: false };
      const copy = copyOf(body, found.table, null);
      // What COPY leaves out gets its default, and a computed one differs from shard to shard.
      const computed = found.table.columns.some(
        (column) => column.default === 'computed' && !column.generated && !copy.columns.includes(column.name),
      );
      return computed ? refused('omnisharded-not-deterministic') : { kind: 'copy', copy };
    }
    case 'sharded': {
      if (!into) return { kind: 'coordinator', reason: 'copy-to' };
      const copy = copyOf(body, found.table, rule);
      return copy.key === null ? refused('key-missing') : { kind: 'copy', copy };
    }
  }
}

/** @param rule null: every shard has all rows */
function copyOf(body: Tree, table: CatalogueTable, rule: TableRule | null): CopyFrom {
  const columns = copiedColumns(body, table);
  const index = rule === null ? -1 : columns.indexOf(rule.column);
  const column = table.columns.find(({ name }) => name === rule?.column);
  const { schema, name } = table;
  return {
    ...{ schema, table: name, columns, options: copyOptions(body), filtered: child(body, 'whereClause') !== null },
    key:
      rule === null || column === undefined || index < 0
        ? null
        : { rule, index, type: column.type, maxLength: column.maxLength },
  };
}

/** The columns that a COPY brings: those it names, else all that can be given (PostgreSQL documentation, COPY). */
function copiedColumns(body: Tree, table: CatalogueTable): readonly string[] {
  const named = strings(body, 'attlist');
  if (named.length > 0) return named;
  return table.columns.filter(({ generated }) => !generated).map(({ name }) => name);
}

function keysOfShard(shard: number, write: boolean): Verdict {
  return { kind: 'keys', targets: [], shards: [shard], write, otherwise: refused('unpinned') };
}

function copyOptions(body: Tree): Readonly<Record<string, string>> {
  return Object.fromEntries(
    list(body, 'options').map((entry) => {
      const option = child(entry, 'DefElem');
      return [text(option, 'defname') ?? '', optionValue(child(option, 'arg'))];
    }),
  );
}

/** A value as text; a list of columns is joined by commas with each name quoted; a flag alone is 'true'. */
function optionValue(value: Tree | null): string {
  if (value === null) return 'true';
  const [kind, body] = kindOf(value);
  switch (kind) {
    case 'String':
      return text(body, 'sval') ?? '';
    case 'Integer':
      return number(body, 'ival').toString();
    case 'Boolean':
      return String(flag(body, 'boolval'));
    case 'List':
      return list(body, 'items')
        .map((item) => `"${(text(child(item, 'String'), 'sval') ?? '').replaceAll('"', '""')}"`)
        .join(', ');
    default:
      return '*';
  }
}
