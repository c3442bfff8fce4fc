/**
 * One task: say of a text whether every replica may answer it: by PostgreSQL's own parser, and in doubt no.
 *
 * A plain read is a SELECT of which every part is known: no lock, no INTO, no change of rows in WITH, no function but those of
 * harmless-functions.ts, and no catalogue or view of the server, which describe the one server that is asked. A view or an operator
 * made by users passes: if it writes, the replica refuses it with 25006.
 */
import { isHarmlessFunction } from './harmless-functions.js';
import type { ParsedStatement, StatementParser } from './statement-parser.js';
import { asTree, child, list, number, strings, text, type Tree } from './statement-tree.js';

/**
 * `read`: nothing but plain reads; `read-only`: begins a READ ONLY transaction and nothing else; `begin`: begins one that may write;
 * `session`: is about the session alone, as SET; `other`: anything else.
 */
export type ReadKind = 'read' | 'read-only' | 'begin' | 'session' | 'other';

/** A longer text is not looked into. */
const TEXT_CHARACTERS_MAX = 65_536;

// prettier-ignore
const KNOWN_NODES: ReadonlySet<string> = new Set([
  'SelectStmt', 'ResTarget', 'ColumnRef', 'A_Const', 'A_Star', 'A_Expr', 'A_ArrayExpr', 'A_Indirection', 'A_Indices', 'FuncCall', 'TypeCast',
  'TypeName', 'BoolExpr', 'NullTest', 'BooleanTest', 'CaseExpr', 'CaseWhen', 'CoalesceExpr', 'MinMaxExpr', 'SubLink', 'RangeVar', 'JoinExpr',
  'RangeSubselect', 'RangeFunction', 'RangeTableSample', 'SortBy', 'CommonTableExpr', 'WindowDef', 'GroupingFunc', 'GroupingSet', 'ParamRef',
  'RowExpr', 'CollateClause', 'Alias', 'String', 'Integer', 'Float', 'Boolean', 'BitString', 'List', 'SQLValueFunction', 'NamedArgExpr',
  'SetToDefault', 'ColumnDef', 'JsonFuncExpr', 'JsonIsPredicate', 'JsonObjectConstructor', 'JsonArrayConstructor', 'JsonObjectAgg',
  'JsonArrayAgg', 'JsonKeyValue', 'JsonValueExpr', 'JsonScalarExpr',
]);
const SESSION_NODES = new Set(['VariableSetStmt', 'ListenStmt', 'UnlistenStmt', 'NotifyStmt']);
const HIDDEN = new Set(['pg_catalog', 'information_schema', 'pg_toast']);

/** Of the whole text, with all of its statements. */
export function readKind(parser: StatementParser, sql: string): ReadKind {
  if (sql.length > TEXT_CHARACTERS_MAX) return 'other';
  const statements = parser.parse(sql) ?? [];
  const [first] = statements;
  if (first === undefined) return 'other';
  if (first.kind === 'TransactionStmt' && statements.length === 1) return beginKind(first);
  if (statements.every(({ kind }) => SESSION_NODES.has(kind))) return 'session';
  return statements.every(({ kind, body }) => kind === 'SelectStmt' && isPlain(body)) ? 'read' : 'other';
}

/** A transaction that is not only read must be able to write; a standby has no serializable one (PostgreSQL documentation, 27.4.5). */
function beginKind({ body }: ParsedStatement): ReadKind {
  const kind = text(body, 'kind');
  if (kind !== 'TRANS_STMT_BEGIN' && kind !== 'TRANS_STMT_START') return 'other';
  const options = list(body, 'options').map((option) => child(option, 'DefElem'));
  const named = (name: string): readonly Tree[] =>
    options.flatMap((option) => {
      const constant = text(option, 'defname') === name ? child(child(option, 'arg'), 'A_Const') : null;
      return constant === null ? [] : [constant];
    });
  const serializable = named('transaction_isolation').some((value) => isSerializable(value));
  // READ ONLY and READ WRITE together are allowed, and the last one counts.
  const only = number(child(named('transaction_read_only').at(-1) ?? null, 'ival'), 'ival') === 1;
  return serializable ? 'other' : only ? 'read-only' : 'begin';
}

function isSerializable(constant: Tree): boolean {
  return text(child(constant, 'sval'), 'sval')?.toLowerCase() === 'serializable';
}

/** Every part of the tree, however deep: as deep as the parser itself goes. */
function isPlain(tree: Tree): boolean {
  if ('intoClause' in tree || 'lockingClause' in tree) return false;
  if ('relname' in tree && !isOwnRelation(tree)) return false;
  return Object.entries(tree).every(([key, value]) => {
    if (/^[A-Z]/.test(key) && !KNOWN_NODES.has(key)) return false;
    if (key === 'FuncCall' && !isHarmlessFunction(strings(asTree(value), 'funcname'))) return false;
    return isPlainValue(value);
  });
}

function isPlainValue(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isPlainValue);
  const tree = asTree(value);
  return tree === null || isPlain(tree);
}

/** Not one of the server's: those of PostgreSQL begin with `pg_`, which no schema of users may (documentation, CREATE SCHEMA). */
function isOwnRelation(range: Tree): boolean {
  const name = text(range, 'relname') ?? '';
  return !name.startsWith('pg_') && !HIDDEN.has(text(range, 'schemaname') ?? '');
}
