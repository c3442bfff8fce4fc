/** One task: what is gathered about one statement while its parts are read. */
import type { FewValues } from '../postgres/coordinator/few-values.js';
import type { Catalogue } from './catalogue.js';
import { functionVerdict } from './statement-functions.js';
import type { ColumnNode } from './statement-graph.js';
import type { KeyContext } from './statement-keys.js';
import type { Scope } from './statement-scope.js';
import type { Tree } from './statement-tree.js';
import type { KeyType, ShardingScheme, TableRule } from './scheme.js';
import type {
  CoordinatorReason,
  KeyExpression,
  KeyList,
  MovedTable,
  RefusalReason,
  WrittenRelation,
} from './statement-verdict.js';

/** What a verdict depends on besides the text. A change of any of it makes cached verdicts void. */
export interface RoutingContext {
  readonly scheme: ShardingScheme;
  readonly catalogue: Catalogue;
  /** schemas of the session's `search_path` in their order, `$user` resolved */
  readonly searchPath: readonly string[];
  /** absent or null: neither it nor the shards have what src/postgres/coordinator/deviation-states.ts makes */
  readonly fewValues?: FewValues | null;
}

/** One query level: a SELECT, or an UPDATE, DELETE, INSERT or MERGE. */
export interface Level {
  /** it has window functions, so a row's values depend on other rows */
  windowed: boolean;
}

/** One column of a query's result. */
export interface Output {
  readonly name: string;
  readonly column: ColumnNode | null;
}

export interface QueryResult {
  /** null: the names are not known */
  readonly outputs: readonly Output[] | null;
  /** the query's own level; a column of another one is only passed through */
  readonly level: Level;
  /** conditions outside on its plain columns may be applied inside: no LIMIT, window, DISTINCT ON or set operation in between */
  readonly restrictable: boolean;
}

export interface CommonTable {
  readonly result: QueryResult;
  readonly recursive: boolean;
  /** written once in the statement, so that what restricts that one place restricts the table */
  readonly once: boolean;
}

/** What is visible where an expression or a query stands. */
export interface Environment {
  readonly level: Level;
  readonly scope: Scope;
  readonly commonTables: ReadonlyMap<string, CommonTable>;
}

/** A table with sharded rows that the statement reads or writes. */
export interface FoundTarget {
  readonly table: string;
  readonly relation: WrittenRelation;
  readonly rule: TableRule;
  /** its sharding column; null where rows are inserted, whose keys `given` has */
  readonly node: ColumnNode | null;
  /** which of the table's columns it is */
  readonly position: number;
  /** it is computed from other columns, and changes with any of them */
  readonly generated: boolean;
  /** of a `varchar(n)` sharding column */
  readonly maxLength: number | null;
  readonly given: readonly KeyList[];
}

export interface KeyMove {
  readonly to: KeyExpression | null;
  readonly moved: MovedTable;
}

/** One data-modifying part of the statement; a part of a WITH is one too. */
export interface Write {
  readonly command: 'insert' | 'update' | 'delete' | 'merge';
  /** null: not a sharded table */
  readonly target: FoundTarget | null;
  /** of INSERT … VALUES: each row's key */
  readonly rows: readonly KeyExpression[] | null;
  /** of UPDATE: the sharding column is set; to null where only the server can compute the value */
  readonly moves: KeyMove | null;
}

/** Gathers the facts of one statement; made for one analysis and thrown away. */
export class Analysis {
  readonly targets: FoundTarget[] = [];
  /** shards of tables whose schema is on one shard */
  readonly shards = new Set<number>();
  /** why the statement needs the whole database, in the order found */
  readonly reasons = new Set<CoordinatorReason>();
  /** why it cannot run anywhere */
  readonly refusals = new Set<RefusalReason>();
  /** `sharded` and `omnisharded`: which kinds of tables are written */
  readonly written = new Set<'sharded' | 'omnisharded'>();
  readonly writes: Write[] = [];
  /** the tables' aliases that FOR UPDATE locks, by kind */
  readonly locked = new Set<'sharded' | 'omnisharded'>();
  omnisharded = 0;
  systemTables = 0;
  /** reads where a row lies: ctid, xmin, ONLY, TABLESAMPLE */
  physical = false;
  /** the same on two shards may give two answers */
  varies = false;
  advancesSequence = false;
  /** pg_advisory_lock and its kind */
  sharedState = false;
  /** results of subqueries in expressions, so that none is read twice */
  readonly subqueries = new Map<Tree, QueryResult>();
  /** set_config is called */
  setsConfig = false;
  private readonly parameterUses = new Map<number, number>();
  private readonly typedUses = new Map<string, number>();

  constructor(
    readonly context: RoutingContext,
    /** the whole statement, to count how often a name stands in it */
    readonly statement: Tree,
    /** reads a query (SELECT, VALUES, or data-modifying in WITH) */
    readonly query: (analysis: Analysis, kind: string, body: Tree, environment: Environment) => QueryResult,
  ) {}

  /** Every `$n` is counted once when its expression is read. */
  countParameter(parameter: number): void {
    this.parameterUses.set(parameter, (this.parameterUses.get(parameter) ?? 0) + 1);
  }

  keyContext(type: KeyType, maxLength: number | null = null): KeyContext {
    return {
      type,
      maxLength,
      onParameter: (parameter, as) => {
        const key = `${as} ${parameter.toString()}`;
        this.typedUses.set(key, (this.typedUses.get(key) ?? 0) + 1);
      },
      inferred: (parameter, as) =>
        (this.typedUses.get(`${as} ${parameter.toString()}`) ?? 0) >= (this.parameterUses.get(parameter) ?? 0),
    };
  }

  noteFunction(name: readonly string[], windowed: boolean, level: Level): void {
    const verdict = functionVerdict(this.context.catalogue, this.context.searchPath, name);
    if (windowed || verdict.window) level.windowed = true;
    if (verdict.reads !== null) this.reasons.add(verdict.reads);
    if (verdict.varies) this.varies = true;
    if (verdict.advances) this.advancesSequence = true;
    if (verdict.refused === null) return;
    if (verdict.alone) this.sharedState = true;
    else if (verdict.refused === 'set-config') this.setsConfig = true;
    else this.refusals.add(verdict.refused);
  }

  get tables(): number {
    return this.targets.length + this.shards.size + this.omnisharded + this.systemTables;
  }
}

export function within(environment: Environment, scope: Scope): Environment {
  return { ...environment, scope };
}
