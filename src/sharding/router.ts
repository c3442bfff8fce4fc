/** One task: route the statements of one sharded database: verdicts from the cache, bound to parameters, bent by hints. */
import { partialStatement } from './partial.js';
import { bindVerdict, type Route, type RowPart } from './router-binding.js';
import { TextCache } from './router-cache.js';
import { commentHint, hintedRoute, type Hint } from './router-hints.js';
import { NO_PARAMETERS, type StatementParameters } from './router-parameters.js';
import { splitInsert, type InsertPart } from './router-split.js';
import { analyseStatements } from './statement.js';
import type { RoutingContext } from './statement-analysis.js';
import type { StatementParser } from './statement-parser.js';
import type { StatementVerdict } from './statement-verdict.js';

export type { Route } from './router-binding.js';

/** What a session adds to a statement. */
export interface RouteRequest {
  /** schemas of `search_path`, in order */
  readonly searchPath: readonly string[];
  readonly parameters?: StatementParameters;
  /** `SET pgdog.shard` or `pgdog.sharding_key` of the session; a comment in the statement goes before it */
  readonly hint?: Hint;
}

export interface RoutedStatement {
  readonly route: Route;
  /** where it stands in the text, in UTF-16 code units */
  readonly start: number;
  readonly end: number;
}

const CACHE_BYTES = 16 * 1024 * 1024;
/** Of the same texts, only those that the coordinator gets. */
const PARTIAL_CACHE_BYTES = 4 * 1024 * 1024;

/** For one scheme and one picture of the catalogue: DDL, a RELOAD or a swap of names makes a new one. */
export class Router {
  private readonly cache: TextCache<readonly StatementVerdict[]>;
  private readonly partials = new TextCache<string | null>(PARTIAL_CACHE_BYTES);

  constructor(
    private readonly parser: StatementParser,
    private readonly context: Omit<RoutingContext, 'searchPath'>,
    cacheBytes = CACHE_BYTES,
  ) {
    this.cache = new TextCache(cacheBytes);
  }

  /** The verdicts on a text, kept by text and search path. */
  verdictsOn(sql: string, searchPath: readonly string[]): readonly StatementVerdict[] {
    return this.cache.of(sql, searchPath, () => analyseStatements(this.parser, { ...this.context, searchPath }, sql));
  }

  /** Where each statement of a text goes; empty for a text without one. Never throws for what a client sent. */
  route(sql: string, request: RouteRequest): readonly RoutedStatement[] {
    const hint = commentHint(sql) ?? request.hint ?? null;
    const parameters = request.parameters ?? NO_PARAMETERS;
    const { scheme } = this.context;
    return this.verdictsOn(sql, request.searchPath).map(({ verdict, start, end }) => {
      const route = bindVerdict(verdict, scheme, parameters);
      return { route: hint === null ? route : hintedRoute(hint, verdict, route, scheme), start, end };
    });
  }

  /** What the coordinator gets in the place of a text, so that the shards aggregate or limit their own rows; null: the text itself. */
  partial(sql: string, searchPath: readonly string[]): string | null {
    return this.partials.of(sql, searchPath, () =>
      partialStatement(this.parser, { ...this.context, searchPath }, sql, this.verdictsOn(sql, searchPath)),
    );
  }

  /** The parts of an INSERT that {@link Router.route} has bound to several shards; null: it cannot be told apart. */
  split(sql: string, parts: readonly RowPart[]): readonly InsertPart[] | null {
    return splitInsert(this.parser, sql, parts);
  }

  get statistics(): TextCache<unknown>['statistics'] {
    return this.cache.statistics;
  }
}

/**
 * The one route of a text with several statements sent as one simple query, which the server runs as one transaction; statements that
 * belong to different places are refused, since no single server could run them.
 */
export function commonRoute(statements: readonly RoutedStatement[]): Route {
  const [first = { kind: 'any', fixed: false } as const, ...more] = statements.map(({ route }) => route);
  return more.reduce<Route>(combined, first);
}

function combined(a: Route, b: Route): Route {
  if (a.kind === 'refused') return a;
  if (b.kind === 'refused') return b;
  if (a.kind === 'any' && !a.fixed && b.kind !== 'session') return b;
  if (b.kind === 'any' && !b.fixed && a.kind !== 'session') return a;
  if (a.kind === 'shard' && b.kind === 'shard' && a.shard === b.shard) return { ...a, write: a.write || b.write };
  if (a.kind === 'coordinator' && b.kind === 'coordinator') return a;
  if (a.kind === 'any' && b.kind === 'any') return { kind: 'any', fixed: true };
  if (a.kind === 'every' && b.kind === 'every')
    return { kind: 'every', ddl: a.ddl || b.ddl, transactional: a.transactional && b.transactional };
  return { kind: 'refused', reason: 'several-statements' };
}
