/** One task: make a verdict of what was gathered about a statement. A doubt sends a read to the coordinator and refuses a write. */
import { dependsOnOrder } from './statement-order.js';
import type { Analysis, FoundTarget, Write } from './statement-analysis.js';
import { follows, pinsOf } from './statement-graph.js';
import type {
  CoordinatorReason,
  KeyExpression,
  KeyList,
  KeyTarget,
  RefusalReason,
  SettledVerdict,
  Verdict,
} from './statement-verdict.js';

/** The verdict on a statement of data: SELECT, INSERT, UPDATE, DELETE, MERGE. */
export function settle(analysis: Analysis): Verdict {
  const [refusal] = analysis.refusals;
  if (refusal !== undefined) return refused(refusal);
  if (analysis.setsConfig) return refused('set-config');
  if (analysis.sharedState) return settleSharedState(analysis);
  const [reason] = analysis.reasons;
  const writes = analysis.written.size > 0;
  if (reason !== undefined) return writes ? refused(reason) : wholeRead(analysis, reason);
  if (analysis.written.has('omnisharded')) return settleOmnisharded(analysis);
  if (!isSharded(analysis)) {
    if (analysis.locked.size > 0 || analysis.systemTables > 0 || analysis.physical) return { kind: 'any', fixed: true };
    return { kind: 'any', fixed: false };
  }
  // Another client may hold the same row of an omnisharded table on another shard.
  if (analysis.locked.has('omnisharded')) return refused('row-lock');
  const targets = analysis.targets.map(keyTargetOf);
  return writes ? settleWrite(analysis, targets) : settleRead(analysis, targets);
}

function isSharded(analysis: Analysis): boolean {
  return (
    analysis.targets.length > 0 || analysis.shards.size > 0 || analysis.writes.some(({ target }) => target !== null)
  );
}

/** Locks by number hold among all clients only where all of them take them on the same server. */
function settleSharedState(analysis: Analysis): Verdict {
  const alone = analysis.tables === 0 && analysis.written.size === 0 && analysis.reasons.size === 0;
  return alone ? { kind: 'any', fixed: true } : refused('advisory-lock');
}

/** A read of everything: for the coordinator, unless it would answer something else there. */
function wholeRead(analysis: Analysis, reason: CoordinatorReason): SettledVerdict {
  if (analysis.locked.size > 0) return refused('row-lock');
  if (analysis.physical) return refused('physical');
  if (analysis.advancesSequence) return refused('sequence');
  return { kind: 'coordinator', reason };
}

/** Every shard runs the same statement and must come to the same rows. */
function settleOmnisharded(analysis: Analysis): Verdict {
  if (isSharded(analysis)) return refused('omnisharded-from-sharded');
  if (analysis.physical) return refused('physical');
  if (analysis.varies || analysis.advancesSequence || dependsOnOrder(analysis.statement))
    return refused('omnisharded-not-deterministic');
  return { kind: 'every', ddl: false, transactional: true };
}

function settleRead(analysis: Analysis, targets: readonly KeyTarget[]): Verdict {
  if (!allPinned(targets)) return wholeRead(analysis, 'unpinned');
  return keysVerdict(analysis, targets, false, wholeRead(analysis, 'several-shards'));
}

function settleWrite(analysis: Analysis, targets: readonly KeyTarget[]): Verdict {
  const [write, ...more] = analysis.writes;
  if (write === undefined) return refused('unknown-table');
  // A query over what a WITH writes would see one shard's part of it.
  const alone = more.length === 0 && !('SelectStmt' in analysis.statement);
  if (write.rows !== null && alone) return settleRows(analysis, write, write.rows, targets);
  const inserted = analysis.writes.flatMap(rowTargets);
  const all = [...targets, ...inserted];
  if (analysis.writes.some(({ moves }) => moves !== null))
    return alone && analysis.shards.size === 0 ? settleMove(analysis, write) : refused('unpinned');
  const otherwise = alone ? settleSeveral(analysis, write) : refused('unpinned');
  return allPinned(all) ? keysVerdict(analysis, all, true, otherwise) : otherwise;
}

/** In a statement with several writing parts each inserted row is a target of its own. */
function rowTargets({ target, rows }: Write): readonly KeyTarget[] {
  if (target === null || rows === null) return [];
  return rows.map((row) => ({
    table: target.table,
    rule: target.rule,
    alternatives: [plainList({ keys: [row], onNull: 'stored' })],
  }));
}

function settleRows(
  analysis: Analysis,
  { target }: Write,
  rows: readonly KeyExpression[],
  targets: readonly KeyTarget[],
): Verdict {
  if (target === null || !allPinned(targets)) return refused('unpinned');
  const { table, rule } = target;
  // A row's other values may be read from tables, and those would be another shard's.
  const divisible = targets.length === 0 && analysis.shards.size === 0;
  return { kind: 'rows', table, rule, rows: rows.map(plain), divisible, targets, shards: [...analysis.shards] };
}

function settleMove(analysis: Analysis, { target, moves }: Write): Verdict {
  if (target === null || moves === null) return refused('unpinned');
  const others = analysis.targets.filter((other) => other !== target).map(keyTargetOf);
  const own = keyTargetOf(target);
  const divisible = !analysis.physical && together(analysis, target);
  if (!divisible && !allPinned([own, ...others])) return refused(analysis.physical ? 'physical' : 'unpinned');
  const to = moves.to === null ? null : plain(moves.to);
  return { kind: 'moves-key', moved: moves.moved, target: own, others, divisible, to };
}

/**
 * Whether each shard can do its own part of an UPDATE or DELETE: everything else the statement reads of sharded tables lies, row by
 * row, where the changed row lies.
 */
function settleSeveral(analysis: Analysis, { command, target }: Write): SettledVerdict {
  if (analysis.physical) return refused('physical');
  const changes = command === 'update' || command === 'delete';
  if (!changes || target === null || analysis.shards.size > 0) return refused('unpinned');
  if (!together(analysis, target)) return refused('unpinned');
  const own = keyTargetOf(target);
  return { kind: 'several', table: target.relation, target: own.alternatives.length > 0 ? own : null };
}

/** Whether all that is read of sharded tables lies, row by row, where the changed row lies. */
function together(analysis: Analysis, target: FoundTarget): boolean {
  return analysis.targets.every((other) => other === target || isWith(other, target));
}

function isWith(other: FoundTarget, target: FoundTarget): boolean {
  if (other.node === null || target.node === null) return false;
  const sameRule = other.rule.type === target.rule.type && sameMapping(other, target);
  return sameRule && follows(other.node, target.node);
}

function sameMapping(a: FoundTarget, b: FoundTarget): boolean {
  if (a.rule.mapping === b.rule.mapping) return true;
  // Lists and ranges that are written twice are not compared: nothing is proven of them.
  if (a.rule.mapping.kind !== 'hash' || b.rule.mapping.kind !== 'hash') return false;
  return a.rule.mapping.hasher === b.rule.mapping.hasher;
}

function keysVerdict(
  analysis: Analysis,
  targets: readonly KeyTarget[],
  write: boolean,
  otherwise: SettledVerdict,
): Verdict {
  return { kind: 'keys', targets, shards: [...analysis.shards], write, otherwise };
}

function keyTargetOf({ table, rule, node, given }: FoundTarget): KeyTarget {
  const lists = node === null ? given : [...given, ...pinsOf(node)];
  return { table, rule, alternatives: lists.map(plainList) };
}

function plainList({ keys, onNull }: KeyList): KeyList {
  return { keys: keys.map(plain), onNull };
}

/** A copy whose `inferred` is settled: now every use of the parameter has been seen. */
function plain(key: KeyExpression): KeyExpression {
  return { ...key };
}

function allPinned(targets: readonly KeyTarget[]): boolean {
  return targets.every(({ alternatives }) => alternatives.length > 0);
}

export function refused(reason: RefusalReason): SettledVerdict {
  return { kind: 'refused', reason };
}
