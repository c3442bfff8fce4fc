/**
 * One task: the shape of what the analysis of a statement says: a verdict that depends on its text alone, and is bound to
 * parameters later.
 */
import type { KeyType, KeyValue, TableRule } from './scheme.js';

/** A value of a sharding key that a statement names. */
export type KeyExpression = { readonly kind: 'constant'; readonly value: KeyValue | null } | LiteralKey | ParameterKey;

/** In a verdict on a template: a literal of the text at hand. */
export interface LiteralKey {
  readonly kind: 'literal';
  /** among those that the verdict reads */
  readonly index: number;
}

export interface ParameterKey {
  /** an array's elements are each a key */
  readonly kind: 'parameter' | 'array-parameter';
  /** of `$n`, from 1 */
  readonly number: number;
  /** the type it has unless the client declares one */
  readonly type: KeyType;
  /** `$1::bigint`: a declared text type is converted as its input function would */
  readonly cast: boolean;
  /** true: nothing else in the statement can have given it another type; false: only a declared type is trusted */
  readonly inferred: boolean;
  /** of a `varchar(n)` that the value is assigned to; a longer one is not hashed */
  readonly maxLength: number | null;
}

/** One table that the statement needs on the shard where it runs. */
export interface KeyTarget {
  /** as people read it: `public.orders` */
  readonly table: string;
  readonly rule: TableRule;
  /** each alone holds for every row that matters: `key IN (these)` */
  readonly alternatives: readonly KeyList[];
}

export interface KeyList {
  readonly keys: readonly KeyExpression[];
  /** what a NULL among them means: no row is equal to it; with `IS NOT DISTINCT FROM` nothing is proven; in a stored row it is the key */
  readonly onNull: 'nothing' | 'unproven' | 'stored';
}

/** Why a read needs the coordinator. */
export type CoordinatorReason =
  | 'unpinned'
  | 'several-shards'
  | 'view'
  | 'function'
  | 'operator'
  | 'unknown-table'
  | 'unknown-column'
  | 'unknown-function'
  | 'join-alias'
  | 'search-path'
  | 'schema-all'
  | 'explain'
  | 'copy-to'
  | 'refresh'
  | 'syntax';

/** Why a statement is not run at all; docs/routing.md has each of them. */
export type RefusalReason =
  | CoordinatorReason
  | 'row-lock'
  | 'physical'
  | 'sequence'
  | 'advisory-lock'
  | 'large-object'
  | 'two-phase'
  | 'set-config'
  | 'key-missing'
  | 'key-not-constant'
  | 'key-unmapped'
  | 'key-rewritten'
  | 'conflict-moves-key'
  | 'conflict-without-key'
  | 'insert-select'
  | 'merge'
  | 'omnisharded-from-sharded'
  | 'omnisharded-not-deterministic'
  | 'create-table-as'
  | 'temporary-table'
  | 'procedure'
  | 'cluster-command'
  | 'copy-file'
  | 'current-of'
  | 'too-long'
  | 'too-complex'
  | 'manual-shard'
  | 'several-statements';

export interface CopyFrom {
  readonly schema: string;
  readonly table: string;
  /** as COPY names them, else all of the table in its order that are not generated */
  readonly columns: readonly string[];
  /** null: every shard has all rows */
  readonly key: CopyKey | null;
  /** as written, lower-case names: format, delimiter, null, header, …; a flag without a value is 'true' */
  readonly options: Readonly<Record<string, string>>;
  /** it has a WHERE, so that some rows are left out */
  readonly filtered: boolean;
}

/** The sharding column of a COPY. */
export interface CopyKey {
  readonly rule: TableRule;
  /** index in the columns that are copied */
  readonly index: number;
  /** `pg_type.typname` of the column */
  readonly type: string;
  /** of a `varchar(n)` */
  readonly maxLength: number | null;
}

export interface WrittenRelation {
  readonly schema: string;
  readonly table: string;
}

/** The table of an UPDATE that sets the sharding column. */
export interface MovedTable extends WrittenRelation {
  /** how the statement names it, in SQL */
  readonly shownAs: string;
  /** the statement has a RETURNING */
  readonly returning: boolean;
}

/** Every table must be on one shard, which the keys decide; where they do not, `otherwise` holds. */
export interface KeysVerdict {
  readonly kind: 'keys';
  readonly targets: readonly KeyTarget[];
  /** shards of tables whose schema is on one shard */
  readonly shards: readonly number[];
  readonly write: boolean;
  readonly otherwise: SettledVerdict;
}

export type Verdict = KeysVerdict | SettledVerdict;

export type SettledVerdict =
  /** the rows of an INSERT … VALUES, one key each */
  | {
      readonly kind: 'rows';
      readonly table: string;
      readonly rule: TableRule;
      readonly rows: readonly KeyExpression[];
      /** false: all rows must be on one shard */
      readonly divisible: boolean;
      /** the other tables that the statement reads */
      readonly targets: readonly KeyTarget[];
      readonly shards: readonly number[];
    }
  /** UPDATE or DELETE of `table` on each shard concerned; the row counts add up. `target` null: all shards */
  | { readonly kind: 'several'; readonly table: WrittenRelation; readonly target: KeyTarget | null }
  /** UPDATE that sets the sharding column; `to` null: to a value that only the server can compute */
  | {
      readonly kind: 'moves-key';
      readonly moved: MovedTable;
      readonly target: KeyTarget;
      readonly others: readonly KeyTarget[];
      /** each shard can do its own part, as in `several` */
      readonly divisible: boolean;
      readonly to: KeyExpression | null;
    }
  | { readonly kind: 'copy'; readonly copy: CopyFrom }
  /** the same on every shard; `fixed`: all clients must use the same one (locks, catalogue numbers) */
  | { readonly kind: 'any'; readonly fixed: boolean }
  | {
      readonly kind: 'every';
      /** it changes the schema, which the coordinator follows, if there is one */
      readonly ddl: boolean;
      /** of that it changes nothing that the coordinator has */
      readonly beside?: true;
      /** false: cannot run in a transaction block */
      readonly transactional: boolean;
    }
  | { readonly kind: 'coordinator'; readonly reason: CoordinatorReason }
  | { readonly kind: 'refused'; readonly reason: RefusalReason }
  /** for the session, not for a shard: SET, BEGIN, PREPARE, FETCH, LISTEN, … */
  | {
      readonly kind: 'session';
      /** the parser's name for it: `VariableSetStmt`, `TransactionStmt`, … */
      readonly command: string;
      readonly hint: SessionHint | null;
      readonly step: SessionStep | null;
    };

/**
 * What a statement does to an open transaction, or to what outlives it: `chain` ends it and begins another, `set` changes the session,
 * `role` who it is until the transaction ends.
 */
export type SessionStep = 'begin' | 'commit' | 'rollback' | 'chain' | 'rollback-to' | 'set' | 'role';

/** `SET pgdog.shard = 1`, `SET pgdog.sharding_key = 'x'`; a null value is RESET or DEFAULT. */
export interface SessionHint {
  readonly name: 'shard' | 'sharding_key';
  readonly value: string | null;
  /** until the transaction ends */
  readonly local: boolean;
}

export interface StatementVerdict {
  readonly verdict: Verdict;
  /** where it stands in the text, in UTF-16 code units */
  readonly start: number;
  readonly end: number;
}
