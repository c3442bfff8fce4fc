/** One task: route the statements of one sharded database: verdicts from the cache, bound to parameters, bent by hints. */
import type { FewValues } from '../postgres/coordinator/few-values.js';
import { catalogueKey } from './catalogue.js';
import { partialStatement } from './partial.js';
import { bindVerdict, onlyKeyOf, type KeyedBy, type Route, type RowPart } from './router-binding.js';
import { TextCache } from './router-cache.js';
import { commentHint, hintedRoute, type Hint } from './router-hints.js';
import { movingText } from './router-move.js';
import { NO_PARAMETERS, type StatementParameters } from './router-parameters.js';
import { splitInsert, type InsertPart } from './router-split.js';
import { ruleOf, type KeyValue } from './scheme.js';
import { analyseStatements, analyseTemplate, type TemplateVerdict } from './statement.js';
import type { RoutingContext } from './statement-analysis.js';
import { readLiteral } from './statement-literals.js';
import type { StatementParser } from './statement-parser.js';
import { templateOf, type Template } from './statement-template.js';
import type { StatementVerdict, Verdict } from './statement-verdict.js';

export type { Route } from './router-binding.js';

/** What a session adds to a statement. */
export interface RouteRequest {
  /** schemas of `search_path`, in order */
  readonly searchPath: readonly string[];
  readonly parameters?: StatementParameters;
  /** `SET pgdog.shard` or `pgdog.sharding_key` of the session; a comment in the statement goes before it */
  readonly hint?: Hint | undefined;
}

export interface RoutedStatement {
  readonly route: Route;
  /** where it stands in the text, in UTF-16 code units */
  readonly start: number;
  readonly end: number;
  /** null also where no single value tells its shard, or a hint does */
  readonly keyed: KeyedBy | null;
}

const CACHE_BYTES = 16 * 1024 * 1024;
/** Of the same texts, only those that the coordinator gets. */
const PARTIAL_CACHE_BYTES = 4 * 1024 * 1024;

/** What is kept of a text, or of a template. */
type Kept =
  | { readonly kind: 'whole'; readonly verdicts: readonly StatementVerdict[] }
  | { readonly kind: 'template'; readonly on: TemplateVerdict }
  /** each text of this template is analysed by itself */
  | { readonly kind: 'never' };

/** What is sent in the place of a text; null: the text itself. */
interface Partial {
  readonly as: string | null;
}

const NEVER: Kept = { kind: 'never' };
const NO_LITERALS: readonly KeyValue[] = [];

/** For one scheme and one picture of the catalogue: DDL, a RELOAD or a swap of names makes a new one. */
export class Router {
  private readonly cache: TextCache<Kept>;
  private readonly partials = new TextCache<Partial>(PARTIAL_CACHE_BYTES);

  constructor(
    private readonly parser: StatementParser,
    private readonly context: Omit<RoutingContext, 'searchPath'>,
    cacheBytes = CACHE_BYTES,
  ) {
    this.cache = new TextCache(cacheBytes);
  }

  /** see {@link RoutingContext} */
  get fewValues(): FewValues | null {
    return this.context.fewValues ?? null;
  }

  /** The verdicts on a text as it is, kept by text and search path. */
  verdictsOn(sql: string, searchPath: readonly string[]): readonly StatementVerdict[] {
    const kept = this.cache.get(sql, searchPath);
    if (kept?.kind === 'whole') return kept.verdicts;
    const verdicts = analyseStatements(this.parser, { ...this.context, searchPath }, sql);
    this.cache.keep(sql, searchPath, { kind: 'whole', verdicts });
    return verdicts;
  }

  /** Where each statement of a text goes; empty for a text without one. Never throws for what a client sent. */
  route(sql: string, request: RouteRequest): readonly RoutedStatement[] {
    return this.#byTemplate(sql, request) ?? this.routeWhole(sql, request);
  }

  /** As {@link route}, without a look at other texts of the same template: slower, and what the tests hold it to. */
  routeWhole(sql: string, request: RouteRequest): readonly RoutedStatement[] {
    const hint = commentHint(sql) ?? request.hint ?? null;
    return this.verdictsOn(sql, request.searchPath).map(({ verdict, start, end }) => ({
      route: this.#bound(verdict, request, NO_LITERALS, hint),
      start,
      end,
      keyed: hint === null ? keyedByParameter(verdict) : null,
    }));
  }

  /** By the verdict on all texts that differ in literals alone; null where there is none, or none that holds for this text. */
  #byTemplate(sql: string, request: RouteRequest): readonly RoutedStatement[] | null {
    const { cache } = this;
    // A text that is kept as it is has no literals, or needs them.
    if (cache.get(sql, request.searchPath) !== null) return null;
    const template = templateOf(sql);
    if (template === null) return null;
    const on = this.#verdictOnAll(template, request.searchPath);
    if (on === null) return null;
    const literals = on.reads.map((read) => readLiteral(read, template));
    if (!literals.every((literal) => literal !== null)) return null;
    const hint = commentHint(sql) ?? request.hint ?? null;
    const route = this.#bound(on.verdict, request, literals, hint);
    const keyed = hint === null ? (keyedByParameter(on.verdict) ?? keyedByLiteral(on, template)) : null;
    return [{ route, start: on.start, end: sql.length - on.behind, keyed }];
  }

  #verdictOnAll(template: Template, searchPath: readonly string[]): TemplateVerdict | null {
    const kept = this.cache.get(template.text, searchPath);
    if (kept !== null) return kept.kind === 'template' ? kept.on : null;
    const on = analyseTemplate(this.parser, { ...this.context, searchPath }, template);
    if (on === null) return null;
    this.cache.keep(template.text, searchPath, on === 'never' ? NEVER : { kind: 'template', on });
    return on === 'never' ? null : on;
  }

  #bound(verdict: Verdict, request: RouteRequest, literals: readonly KeyValue[], hint: Hint | null): Route {
    const { scheme } = this.context;
    const route = bindVerdict(verdict, scheme, { parameters: request.parameters ?? NO_PARAMETERS, literals });
    return hint === null ? route : hintedRoute(hint, verdict, route, scheme);
  }

  /** What the coordinator gets in the place of a text, so that the shards aggregate or limit their own rows; null: the text itself. */
  partial(sql: string, searchPath: readonly string[]): string | null {
    const kept = this.partials.get(sql, searchPath);
    if (kept !== null) return kept.as;
    const verdicts = this.verdictsOn(sql, searchPath);
    const as = partialStatement(this.parser, { ...this.context, searchPath }, sql, verdicts);
    this.partials.keep(sql, searchPath, { as });
    return as;
  }

  /** The parts of an INSERT that {@link Router.route} has bound to several shards; null: it cannot be told apart. */
  split(sql: string, parts: readonly RowPart[]): readonly InsertPart[] | null {
    return splitInsert(this.parser, sql, parts);
  }

  /** The text of an UPDATE that also tells where each of its rows lies, and the row's key: see {@link movingText}. */
  moving(sql: string, { moved, rule }: Extract<Route, { kind: 'moves-key' }>): string {
    return movingText(this.parser, sql, moved, rule.column);
  }

  /** Whether every shard has all rows of a table; false also where it is not known. */
  isEverywhere(schema: string, table: string): boolean {
    const { catalogue, scheme } = this.context;
    const found = catalogue.tables.get(catalogueKey(schema, table));
    if (found === undefined) return false;
    const columns = found.columns.map(({ name }) => name);
    return ruleOf(scheme, { schema, name: table, columns }).kind === 'omnisharded';
  }

  get statistics(): TextCache<Kept>['statistics'] {
    return this.cache.statistics;
  }
}

function keyedByParameter(verdict: Verdict): KeyedBy | null {
  const only = verdict.kind === 'keys' ? onlyKeyOf(verdict.targets, verdict.shards) : null;
  return only?.key.kind === 'parameter' ? { kind: 'parameter', rule: only.rule, key: only.key } : null;
}

function keyedByLiteral({ verdict, reads }: TemplateVerdict, { starts, ends }: Template): KeyedBy | null {
  const only = verdict.kind === 'keys' ? onlyKeyOf(verdict.targets, verdict.shards) : null;
  const read = only?.key.kind === 'literal' ? reads[only.key.index] : undefined;
  // Every other literal that is read tells something too.
  if (only === null || read?.kind !== 'integer' || read.negated || reads.length > 1) return null;
  const [start = 0, end = 0] = [starts[read.literal], ends[read.literal]];
  return { kind: 'literal', rule: only.rule, start, end, limit: read.limit };
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
