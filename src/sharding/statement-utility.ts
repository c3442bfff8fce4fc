/** One task: say where a statement that is neither query nor change of rows belongs: DDL, settings, transactions, maintenance. */
import { child, flag, list, strings, text, type Tree } from './statement-tree.js';
import { refused } from './statement-settle.js';
import type { SessionHint, SessionStep, SettledVerdict } from './statement-verdict.js';

const SESSION = new Set([
  'VariableSetStmt',
  'TransactionStmt',
  'PrepareStmt',
  'ExecuteStmt',
  'DeallocateStmt',
  'DiscardStmt',
  'FetchStmt',
  'ClosePortalStmt',
  'ListenStmt',
  'UnlistenStmt',
  'NotifyStmt',
  'ConstraintsSetStmt',
  'LoadStmt',
]);

/** Kinds of TransactionStmt whose transaction is on one server, and the next statement may be on another. */
const TWO_PHASE = new Set(['TRANS_STMT_PREPARE', 'TRANS_STMT_COMMIT_PREPARED', 'TRANS_STMT_ROLLBACK_PREPARED']);

/** About a whole server or its other databases, or about replication, which the engine keeps: never by way of the router. */
const CLUSTER =
  /^(Createdb|Dropdb|AlterDatabase|CreateTableSpace|DropTableSpace|AlterTableSpace|AlterSystem|(Create|Alter|Drop)(Subscription|Publication)|(Create|Alter|Drop|Grant)Role|AlterRoleSet|DropOwned|ReassignOwned)/;

const DDL =
  /^(Create|Alter|Drop|Rename|Comment|Grant|Define|View|Index|Rule|SecLabel|ImportForeignSchema|CompositeType)\w*Stmt$/;

/** Not in a transaction block, and harmless to run again (PostgreSQL documentation, VACUUM and CHECKPOINT). */
const MAINTENANCE = new Set(['CheckPointStmt', 'ClusterStmt', 'ReindexStmt']);

export function utilityVerdict(kind: string, body: Tree): SettledVerdict {
  if (TWO_PHASE.has(text(body, 'kind') ?? '')) return refused('two-phase');
  if (SESSION.has(kind)) return { kind: 'session', command: kind, hint: hintOf(kind, body), step: stepOf(kind, body) };
  if (kind === 'VariableShowStmt') return { kind: 'any', fixed: false };
  if (kind === 'TruncateStmt' || kind === 'LockStmt') return every(false, true);
  if (kind === 'VacuumStmt') return every(false, !flag(body, 'is_vacuumcmd'));
  if (MAINTENANCE.has(kind)) return every(false, false);
  if (kind === 'DoStmt' || kind === 'CallStmt') return refused('procedure');
  if (kind === 'RefreshMatViewStmt') return { kind: 'coordinator', reason: 'refresh' };
  if (kind === 'CreateTableAsStmt') return refused('create-table-as');
  if (CLUSTER.test(kind)) return refused('cluster-command');
  if (!DDL.test(kind)) return refused('cluster-command');
  if (isTemporary(body)) return refused('temporary-table');
  const ddl = every(true, !flag(body, 'concurrent'));
  return isBeside(kind, body) ? { ...ddl, beside: true } : ddl;
}

function every(ddl: boolean, transactional: boolean): Extract<SettledVerdict, { kind: 'every' }> {
  return { kind: 'every', ddl, transactional };
}

/** Kinds of statements on what no coordinator is made from (src/postgres/coordinator/items.ts). */
const BESIDE = new Set([
  ...['IndexStmt', 'CreateTrigStmt', 'CommentStmt', 'SecLabelStmt', 'CreateSeqStmt', 'AlterSeqStmt'],
  ...['CreateStatsStmt', 'AlterStatsStmt', 'CreatePolicyStmt', 'AlterPolicyStmt'],
]);
const DROPPED_BESIDE = new Set(['OBJECT_INDEX', 'OBJECT_TRIGGER', 'OBJECT_STATISTIC_EXT', 'OBJECT_POLICY']);
/** Forms of ALTER TABLE. Others stay: of a NOT NULL that is validated the planner learns. */
const ALTERED_BESIDE = new Set([
  ...['AT_SetStatistics', 'AT_SetStorage', 'AT_SetCompression', 'AT_ReplicaIdentity', 'AT_ColumnDefault'],
  ...['AT_EnableTrig', 'AT_EnableAlwaysTrig', 'AT_EnableReplicaTrig', 'AT_DisableTrig', 'AT_EnableTrigAll'],
  ...['AT_DisableTrigAll', 'AT_EnableTrigUser', 'AT_DisableTrigUser', 'AT_ClusterOn', 'AT_DropCluster'],
]);
/** `ALTER COLUMN … TYPE … USING …` and `SET EXPRESSION` of a column that is a sharding column by its name. */
export function rewritesKey(kind: string, body: Tree, isKey: (column: string) => boolean): boolean {
  if (kind !== 'AlterTableStmt') return false;
  return alterationsOf(body).some((command) => {
    const subtype = text(command, 'subtype');
    const computed = child(child(child(command, 'def'), 'ColumnDef'), 'raw_default') !== null;
    return (
      (subtype === 'AT_SetExpression' || (subtype === 'AT_AlterColumnType' && computed)) &&
      isKey(text(command, 'name') ?? '')
    );
  });
}

function alterationsOf(body: Tree): readonly (Tree | null)[] {
  return list(body, 'cmds').map((entry) => child(entry, 'AlterTableCmd'));
}

const CONSTRAINTS_BESIDE = new Set(['CONSTR_FOREIGN', 'CONSTR_CHECK', 'CONSTR_UNIQUE', 'CONSTR_EXCLUSION']);

/** It may take long, and nobody needs to wait for it who reads over the shards. */
function isBeside(kind: string, body: Tree): boolean {
  if (BESIDE.has(kind)) return true;
  if (kind === 'DropStmt') return DROPPED_BESIDE.has(text(body, 'removeType') ?? '');
  if (kind !== 'AlterTableStmt') return false;
  const commands = alterationsOf(body);
  return commands.length > 0 && commands.every((command) => isAlteredBeside(command));
}

function isAlteredBeside(command: Tree | null): boolean {
  const subtype = text(command, 'subtype') ?? '';
  if (subtype !== 'AT_AddConstraint') return ALTERED_BESIDE.has(subtype);
  return CONSTRAINTS_BESIDE.has(text(child(child(command, 'def'), 'Constraint'), 'contype') ?? '');
}

/** A temporary table lives in one session of one server, and hides a table of its name there. */
function isTemporary(body: Tree): boolean {
  const made = [child(body, 'relation'), child(body, 'view'), child(body, 'sequence')];
  return made.some((relation) => text(relation, 'relpersistence') === 't');
}

const HINT = /^pgdog\.(shard|sharding_key)$/;

/** `SET pgdog.shard = 1` and the like; null for every other statement. */
function hintOf(kind: string, body: Tree): SessionHint | null {
  const name = kind === 'VariableSetStmt' ? HINT.exec(text(body, 'name') ?? '')?.[1] : undefined;
  if (name !== 'shard' && name !== 'sharding_key') return null;
  return { name, value: settingValue(body), local: flag(body, 'is_local') };
}

const TRANSACTION_STEPS: Readonly<Record<string, SessionStep>> = {
  TRANS_STMT_BEGIN: 'begin',
  TRANS_STMT_START: 'begin',
  TRANS_STMT_COMMIT: 'commit',
  TRANS_STMT_ROLLBACK: 'rollback',
  TRANS_STMT_ROLLBACK_TO: 'rollback-to',
};

function stepOf(kind: string, body: Tree): SessionStep | null {
  if (kind === 'TransactionStmt')
    return flag(body, 'chain') ? 'chain' : (TRANSACTION_STEPS[text(body, 'kind') ?? ''] ?? null);
  if (kind !== 'VariableSetStmt') return null;
  const name = text(body, 'name') ?? '';
  if (name === 'role' || name === 'session_authorization') return 'role';
  // SET TRANSACTION is of the open one.
  return flag(body, 'is_local') || name === 'TRANSACTION' ? null : 'set';
}

function settingValue(body: Tree): string | null {
  if (text(body, 'kind') !== 'VAR_SET_VALUE') return null;
  const constant = child(list(body, 'args')[0] ?? null, 'A_Const');
  const quoted = child(constant, 'sval');
  if (quoted !== null) return text(quoted, 'sval') ?? '';
  const integer = child(constant, 'ival');
  if (integer !== null) return String(typeof integer.ival === 'number' ? integer.ival : 0);
  return text(child(constant, 'fval'), 'fval');
}

/** `SELECT set_config(…)` and nothing else: a SET in another form. */
export function isSetConfig(select: Tree): boolean {
  const targets = list(select, 'targetList').map((entry) => child(child(child(entry, 'ResTarget'), 'val'), 'FuncCall'));
  const alone = list(select, 'fromClause').length === 0 && child(select, 'withClause') === null;
  return alone && targets.length > 0 && targets.every((call) => strings(call, 'funcname').at(-1) === 'set_config');
}
