/** One task: bind a verdict to parameters: which shard, which shards, or what else. */
import { shardOf } from './hash.js';
import { arrayParameterKeys, parameterKey, type StatementParameters } from './router-parameters.js';
import type { KeyValue, ShardingScheme, TableRule } from './scheme.js';
import type {
  CoordinatorReason,
  CopyFrom,
  KeyExpression,
  KeyList,
  KeyTarget,
  MovedTable,
  ParameterKey,
  RefusalReason,
  SessionHint,
  SessionStep,
  Verdict,
  WrittenRelation,
} from './statement-verdict.js';

/** Where one execution of a statement goes. */
export type Route =
  | { readonly kind: 'shard'; readonly shard: number; readonly write: boolean }
  /** `fixed`: always the same shard, for all clients */
  | { readonly kind: 'any'; readonly fixed: boolean }
  | { readonly kind: 'every'; readonly ddl: boolean; readonly beside?: true; readonly transactional: boolean }
  /** the same statement on each of these, of rows of `table`; row counts add up */
  | { readonly kind: 'several'; readonly table: WrittenRelation; readonly shards: readonly number[] }
  /** an INSERT whose rows belong to several shards: see `splitInsert` */
  | { readonly kind: 'rows'; readonly parts: readonly RowPart[] }
  /** an UPDATE of rows on the shards `from`; `to` null: the shard of each is told by its new key, once computed */
  | {
      readonly kind: 'moves-key';
      readonly moved: MovedTable;
      readonly rule: TableRule;
      readonly from: readonly number[];
      readonly to: number | null;
    }
  | { readonly kind: 'copy'; readonly copy: CopyFrom }
  | { readonly kind: 'coordinator'; readonly reason: CoordinatorReason }
  | { readonly kind: 'refused'; readonly reason: RefusalReason }
  | {
      readonly kind: 'session';
      readonly command: string;
      readonly hint: SessionHint | null;
      readonly step: SessionStep | null;
    };

export interface RowPart {
  readonly shard: number;
  /** indexes of the statement's rows, from 0 */
  readonly rows: readonly number[];
}

/** The one value that tells the shard of a statement, while all else of it stays as it is. */
export type KeyedBy =
  /** an integer without a sign, that stands there in the text: UTF-16 code units */
  | {
      readonly kind: 'literal';
      readonly rule: TableRule;
      readonly start: number;
      readonly end: number;
      /** it is below; null: any is a key */
      readonly limit: bigint | null;
    }
  | { readonly kind: 'parameter'; readonly rule: TableRule; readonly key: ParameterKey };

type Shards = Pick<ShardingScheme, 'shards'>;

/** What a verdict leaves open. */
export interface Values {
  readonly parameters: StatementParameters;
  /** of a verdict on a template: the keys that the text at hand has */
  readonly literals: readonly KeyValue[];
}

/** The route of one execution. Pure; cheap enough for each Bind. */
export function bindVerdict(verdict: Verdict, scheme: Shards, values: Values): Route {
  switch (verdict.kind) {
    case 'keys': {
      const shard = commonShard(verdict.targets, verdict.shards, scheme, values);
      if (shard === null) return bindVerdict(verdict.otherwise, scheme, values);
      return { kind: 'shard', shard, write: verdict.write };
    }
    case 'rows':
      return bindRows(verdict, scheme, values);
    case 'several':
      return bindSeveral(verdict, scheme, values);
    case 'moves-key':
      return bindMove(verdict, scheme, values);
    case 'any':
    case 'every':
    case 'copy':
    case 'coordinator':
    case 'refused':
    case 'session':
      return verdict;
  }
}

/** The one shard that all of them need; null when there is none. Where no row can match, any shard does: 0. */
function commonShard(
  targets: readonly KeyTarget[],
  fixed: readonly number[],
  scheme: Shards,
  values: Values,
): number | null {
  const only = onlyKeyOf(targets, fixed);
  if (only !== null) return shardOfKey(only, scheme, values);
  const needed = new Set(fixed);
  for (const target of targets) {
    const shards = shardsOfTarget(target, scheme, values);
    if (shards === null) return null;
    for (const shard of shards) needed.add(shard);
  }
  const [shard = 0] = needed;
  return needed.size <= 1 ? shard : null;
}

export interface OnlyKey {
  readonly rule: TableRule;
  readonly key: KeyExpression;
  readonly onNull: KeyList['onNull'];
}

/** Of one target that is bound to one value, as most are. */
export function onlyKeyOf(targets: readonly KeyTarget[], fixed: readonly number[]): OnlyKey | null {
  const target = targets.length === 1 && fixed.length === 0 ? targets[0] : undefined;
  const list = target?.alternatives.length === 1 ? target.alternatives[0] : undefined;
  const key = list?.keys.length === 1 ? list.keys[0] : undefined;
  if (target === undefined || list === undefined || key === undefined || key.kind === 'array-parameter') return null;
  return { rule: target.rule, key, onNull: list.onNull };
}

/** What {@link commonShard} answers for it, without a set of shards. */
function shardOfKey({ rule, key, onNull }: OnlyKey, scheme: Shards, values: Values): number | null {
  const value = valueOf(key, values);
  if (value === undefined || (value === null && onNull === 'unproven')) return null;
  return value === null && onNull === 'nothing' ? 0 : shardOf(rule, value, scheme.shards);
}

/** The shards that can hold rows of the target; null when nothing is proven of it. */
function shardsOfTarget({ rule, alternatives }: KeyTarget, scheme: Shards, values: Values): ReadonlySet<number> | null {
  const proven = alternatives
    .map((alternative) => shardsOfList(alternative, rule, scheme, values))
    .filter((shards) => shards !== null);
  const [first, ...others] = proven;
  // Each alternative holds for every row that matters, so all of them do.
  return first === undefined
    ? null
    : new Set([...first].filter((shard) => others.every((shards) => shards.has(shard))));
}

function shardsOfList(
  { keys, onNull }: KeyList,
  rule: TableRule,
  scheme: Shards,
  given: Values,
): ReadonlySet<number> | null {
  const shards = new Set<number>();
  for (const key of keys) {
    const values = valuesOf(key, given);
    if (values === null) return null;
    for (const value of values) {
      if (value === null && onNull === 'nothing') continue;
      if (value === null && onNull === 'unproven') return null;
      const shard = shardOf(rule, value, scheme.shards);
      // A value without a shard: rows with it may be anywhere.
      if (shard === null) return null;
      shards.add(shard);
    }
  }
  return shards;
}

function valuesOf(key: KeyExpression, values: Values): readonly (KeyValue | null)[] | null {
  if (key.kind === 'array-parameter') return arrayParameterKeys(key, values.parameters);
  const value = valueOf(key, values);
  return value === undefined ? null : [value];
}

/** Undefined when it cannot be told for sure. */
function valueOf(key: KeyExpression, { parameters, literals }: Values): KeyValue | null | undefined {
  switch (key.kind) {
    case 'constant':
      return key.value;
    case 'literal':
      return literals[key.index];
    case 'parameter':
      return parameterKey(key, parameters);
    case 'array-parameter':
      return undefined;
  }
}

function bindRows(
  { rule, rows, divisible, targets, shards }: Extract<Verdict, { kind: 'rows' }>,
  scheme: Shards,
  values: Values,
): Route {
  const byShard = new Map<number, number[]>();
  for (const [index, row] of rows.entries()) {
    const [value] = valuesOf(row, values) ?? [];
    if (value === undefined) return { kind: 'refused', reason: 'key-not-constant' };
    const shard = shardOf(rule, value, scheme.shards);
    if (shard === null) return { kind: 'refused', reason: 'key-unmapped' };
    const together = byShard.get(shard);
    if (together === undefined) byShard.set(shard, [index]);
    else together.push(index);
  }
  const shard = commonShard(targets, [...shards, ...byShard.keys()], scheme, values);
  if (shard !== null) return { kind: 'shard', shard, write: true };
  if (!divisible) return { kind: 'refused', reason: 'several-shards' };
  return { kind: 'rows', parts: [...byShard].map(([shard, indexes]) => ({ shard, rows: indexes })) };
}

function bindSeveral({ table, target }: Extract<Verdict, { kind: 'several' }>, scheme: Shards, values: Values): Route {
  const shards = possibleShards(target, scheme, values);
  const [shard = 0] = shards;
  return shards.length <= 1 ? { kind: 'shard', shard, write: true } : { kind: 'several', table, shards };
}

/** In order; all where nothing is proven. */
function possibleShards(target: KeyTarget | null, scheme: Shards, values: Values): readonly number[] {
  const possible = target === null ? null : shardsOfTarget(target, scheme, values);
  if (possible !== null) return [...possible].sort((a, b) => a - b);
  return Array.from({ length: scheme.shards }, (_, shard) => shard);
}

function bindMove(verdict: Extract<Verdict, { kind: 'moves-key' }>, scheme: Shards, values: Values): Route {
  const { moved, target, others, divisible } = verdict;
  const { rule } = target;
  const one = commonShard([target, ...others], [], scheme, values);
  if (one === null && !divisible) return { kind: 'refused', reason: 'several-shards' };
  const possible = one === null ? possibleShards(target, scheme, values) : [one];
  // Where no row can match, any shard says so.
  const from = possible.length === 0 ? [0] : possible;
  const [value] = verdict.to === null ? [] : (valuesOf(verdict.to, values) ?? []);
  if (value === undefined) return { kind: 'moves-key', moved, rule, from, to: null };
  const to = shardOf(rule, value, scheme.shards);
  if (to === null) return { kind: 'refused', reason: 'key-unmapped' };
  const stays = from.every((shard) => shard === to);
  return stays ? { kind: 'shard', shard: to, write: true } : { kind: 'moves-key', moved, rule, from, to };
}
