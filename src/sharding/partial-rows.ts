/**
 * One task: write a SELECT with aggregates so that each shard computes its part of them, and PostgreSQL the whole from the parts.
 *
 *     SELECT status, count(*) FROM orders GROUP BY 1   becomes
 *     SELECT p.k1 AS "status", p.w1 AS "count" FROM (
 *       SELECT p.k1, sum(p.a1 …) AS w1 FROM (
 *         SELECT status AS k1, count(*) AS a1 FROM <orders of shard 0> GROUP BY status UNION ALL SELECT … <shard 1> … OFFSET 0) AS p
 *       GROUP BY p.k1) AS p
 *
 * Pieces of the text are put together, and the parser is then asked whether each piece still is what it was.
 */
import { isDeepStrictEqual } from 'node:util';
import { quoteIdentifier } from '../postgres/connection.js';
import { columnKey, GROUPS_MAX } from '../postgres/coordinator/few-values.js';
import { partialAggregate } from './partial-aggregates.js';
import {
  columnOf,
  columnsIn,
  exactType,
  isAggregate,
  isCondition,
  isUnderstood,
  meaningOf,
  parametersIn,
} from './partial-expressions.js';
import { bareName, ordinalOf, parsedSelect, type PartialSource, type Sort } from './partial-source.js';
import { callAt, nameAt, type Span } from './partial-text.js';
import { asTree, child, flag, kindOf, list, number, strings, text, type Tree } from './statement-tree.js';

/** Each level is a table of this name to the one around it. */
const LEVEL = 'cutover_p';
/**
 * Without this the planner takes a level into the statement around it. The parts' columns would come in the order in which they are used
 * there, or their rows in an order, and postgres_fdw would read one shard after the other; and an expression that is used twice would be
 * computed twice.
 */
const APART = 'OFFSET 0';

/** An expression by which rows are grouped. */
interface Group {
  readonly node: Tree;
  readonly sql: string;
}

/** A piece of the client's text that is another one outside of the parts. */
interface Replacement extends Span {
  readonly with: string;
  /** stands for it when the parser is asked */
  readonly mark: string;
}

/** What is written outside of the parts, and what it has to mean: with marks in the places of what was replaced. */
interface Outside {
  readonly span: Span;
  readonly meant: Tree;
}

/** @returns null where there is no aggregate and no group, or something is not understood */
export function partialRows(source: PartialSource): string | null {
  const { select, scope, targets } = source;
  const nodes = [
    ...targets.map(({ value }) => value),
    ...(child(select, 'havingClause') === null ? [] : [select.havingClause]),
  ];
  if (!isUnderstood(scope, nodes, true) || targets.some(({ name }) => name === null)) return null;
  const having = child(select, 'havingClause');
  // An error of it would speak of WHERE.
  if (having !== null && !isCondition(scope, having)) return null;
  const groups = groupsOf(source);
  if (groups === null || isPushedWhole(source, groups)) return null;
  const rewriting = new Rewriting(source, groups);
  return rewriting.written();
}

/** Groups that each lie on one shard are computed there without our doing. */
function isPushedWhole({ rule, scope }: PartialSource, groups: readonly Group[]): boolean {
  const partitioned = rule.mapping.kind === 'hash' && rule.mapping.hasher === 'postgres';
  return partitioned && groups.some(({ node }) => columnOf(scope, node)?.name === rule.column);
}

function groupsOf(source: PartialSource): readonly Group[] | null {
  const { select, text: cut } = source;
  const nodes = list(select, 'groupClause');
  if (nodes.length !== cut.groups.length) return null;
  const groups = nodes.flatMap((node, index) => groupOf(source, node, cut.groups[index]) ?? []);
  return groups.length === nodes.length ? groups : null;
}

function groupOf(source: PartialSource, written: Tree, item: Span | undefined): Group | null {
  const { scope, targets, sql } = source;
  const ordinal = ordinalOf(written);
  const name = bareName(written);
  // A name is a column of the table before it is one of the result.
  const named = name === null || scope.columns.has(name) ? [] : targets.filter((target) => target.name === name);
  const target = ordinal === null ? named[0] : targets[ordinal - 1];
  if (named.length > 1 || (ordinal !== null && target === undefined)) return null;
  const node = target?.value ?? written;
  const span = target?.span ?? item;
  const columns = columnsIn(scope, node);
  const certain = columns.length > 0 && columns.every(({ deterministic }) => deterministic);
  if (span === undefined || !certain || !isUnderstood(scope, node, false) || parametersIn(node).length > 0) return null;
  return { node, sql: sql.slice(span.start, span.end) };
}

/** Of one statement. */
class Rewriting {
  readonly #source: PartialSource;
  readonly #groups: readonly Group[];
  readonly #areGroupsFew: boolean;
  /** aggregates that each shard computes, by what they mean, with what they are outside */
  readonly #aggregates = new Map<string, string>();
  /** columns of a part behind its groups, and the call that the first column of an aggregate has its arguments from */
  readonly #columns: { readonly sql: string; readonly call: Tree | null }[] = [];
  /** aggregates of the parts */
  readonly #wholes: string[] = [];
  /** what is computed from the wholes once, for an answer that needs it more often */
  readonly #betweens: string[] = [];
  readonly #replacements: Replacement[] = [];

  constructor(source: PartialSource, groups: readonly Group[]) {
    this.#source = source;
    this.#groups = groups;
    this.#areGroupsFew = areFew(source, groups);
  }

  written(): string | null {
    const { sql, text: cut, targets, sorts, select, parts } = this.#source;
    const outsides = targets.map(({ value, span }) => this.#outside(value, span));
    const condition = child(select, 'havingClause');
    const having = condition === null || cut.having === null ? undefined : this.#outside(condition, cut.having);
    const orders = sorts.map((sort) => this.#order(sort));
    const all = [...outsides, ...(having === undefined ? [] : [having]), ...orders];
    if (all.includes(null) || (this.#columns.length === 0 && this.#groups.length === 0)) return null;
    const branches = parts.map((part) => this.#branch(part));
    if (!this.#isBranchAsMeant(branches[0] ?? '')) return null;
    const said = (outside: Outside | string | null | undefined): string => this.#said(outside ?? '', 'with');
    if (!this.#isOutsideAsMeant(all)) return null;
    return [
      sql.slice(0, cut.start),
      'SELECT ',
      outsides.map((one, index) => `${said(one)} AS ${quoteIdentifier(targets[index]?.name ?? '')}`).join(', '),
      ` FROM (${this.#levels(branches)}) AS ${LEVEL}`,
      having === undefined ? '' : ` WHERE ${said(having)}`,
      orders.length === 0
        ? ''
        : ` ORDER BY ${orders.map((one, index) => `${said(one)}${sorts[index]?.suffix ?? ''}`).join(', ')}`,
      cut.tail === null ? '' : ` ${sql.slice(cut.tail.start, cut.tail.end)}`,
      sql.slice(cut.end),
    ].join('');
  }

  /** One row for each group, with all that the answer is computed from. */
  #levels(branches: readonly string[]): string {
    const keys = this.#groups.map((_, index) => key(index)).join(', ');
    const wholes = this.#wholes.map((sql, index) => `${sql} AS ${whole(index)}`);
    const items = [...(keys === '' ? [] : [keys]), ...wholes].join(', ');
    const grouped = [
      `SELECT ${items} FROM (${branches.join(' UNION ALL ')} ${APART}) AS ${LEVEL}`,
      keys === '' ? '' : ` GROUP BY ${keys}`,
    ].join('');
    if (this.#betweens.length === 0) return grouped;
    const betweens = this.#betweens.map((sql, index) => `${sql} AS ${between(index)}`).join(', ');
    return `SELECT ${LEVEL}.*, ${betweens} FROM (${grouped}) AS ${LEVEL} ${APART}`;
  }

  /** The result is named and numbered as before: what names or numbers it stays as it is. */
  #order({ node, span }: Sort): Outside | string | null {
    const { targets, scope } = this.#source;
    const ordinal = ordinalOf(node);
    if (ordinal !== null) return ordinal.toString();
    const name = bareName(node);
    if (name !== null && targets.some((target) => target.name === name)) return quoteIdentifier(name);
    return isUnderstood(scope, node, true) && child(node, 'A_Const') === null ? this.#outside(node, span) : null;
  }

  #outside(node: Tree, span: Span): Outside | null {
    const meant = this.#replaced(node, span);
    return meant === null ? null : { span, meant };
  }

  /** The node with marks in the places of groups and aggregates; null where a column is neither. */
  #replaced(node: Tree, whole: Span | null): Tree | null {
    const group = this.#groups.findIndex((one) => isDeepStrictEqual(meaningOf(one.node), meaningOf(node)));
    if (group >= 0) return this.#replace(whole ?? this.#spanOf(node), key(group));
    if (isAggregate(this.#source.scope, node)) return this.#replace(this.#spanOf(node), this.#merged(node));
    if (child(node, 'ColumnRef') !== null) return null;
    const inside = this.#replacedInside(node);
    return asTree(inside);
  }

  #replacedInside(value: unknown): unknown {
    if (Array.isArray(value)) {
      const entries = value.map((entry: unknown) => this.#replacedEntry(entry));
      return entries.includes(null) ? null : entries;
    }
    const tree = asTree(value);
    if (tree === null) return value;
    const fields = Object.entries(tree).map(([name, inside]) => [name, this.#replacedEntry(inside)] as const);
    return fields.some(([, inside]) => inside === null) ? null : Object.fromEntries(fields);
  }

  #replacedEntry(value: unknown): unknown {
    const tree = asTree(value);
    return tree !== null && /^[A-Z]/.test(kindOf(tree)[0]) ? this.#replaced(tree, null) : this.#replacedInside(value);
  }

  #replace(span: Span | null, sql: string | null): Tree | null {
    if (span === null || sql === null) return null;
    const mark = `cutover_m${(this.#replacements.length + 1).toString()}`;
    this.#replacements.push({ ...span, with: sql, mark });
    return { ColumnRef: { fields: [{ String: { sval: mark } }] } };
  }

  #spanOf(node: Tree): Span | null {
    const [kind, body] = kindOf(node);
    const { words, at } = this.#source;
    const start = at(number(body, 'location'));
    if (kind === 'ColumnRef') return nameAt(words, start, list(body, 'fields').length);
    return kind === 'FuncCall' ? callAt(words, start) : null;
  }

  /** What an aggregate is outside, from columns of the parts that are added for it. */
  #merged(node: Tree): string | null {
    const { scope, sql, words, at } = this.#source;
    const meaning = JSON.stringify(meaningOf(node));
    const known = this.#aggregates.get(meaning);
    if (known !== undefined) return known;
    const call = child(node, 'FuncCall');
    const place = callAt(words, at(number(call, 'location')));
    const [argument, ...more] = list(call, 'args');
    if (place === null || more.length > 0 || (argument === undefined) !== flag(call, 'agg_star')) return null;
    if (columnsIn(scope, argument).some(({ deterministic }) => !deterministic)) return null;
    const partial = partialAggregate({
      name: strings(call, 'funcname').at(-1) ?? '',
      args: sql.slice(place.args.start, place.args.end),
      condition: place.condition === null ? '' : sql.slice(place.condition.start, place.condition.end),
      type: exactType(scope, argument ?? null),
      aids: (scope.context.fewValues ?? null) !== null,
      areGroupsFew: this.#areGroupsFew,
    });
    if (partial === null) return null;
    const firstPart = this.#columns.length;
    this.#columns.push(...partial.parts.map((part, index) => ({ sql: part, call: index === 0 ? call : null })));
    const parts = partial.parts.map((_, index) => `${LEVEL}.${column(firstPart + index)}`);
    const firstWhole = this.#wholes.length;
    this.#wholes.push(...partial.wholes(parts));
    const wholes = this.#wholes.slice(firstWhole).map((_, index) => `${LEVEL}.${whole(firstWhole + index)}`);
    if (partial.between !== undefined) this.#betweens.push(partial.between(wholes));
    const answer = partial.answer(wholes, `${LEVEL}.${between(this.#betweens.length - 1)}`);
    this.#aggregates.set(meaning, answer);
    return answer;
  }

  #branch(part: string): string {
    const { sql, text: cut } = this.#source;
    const items = [
      ...this.#groups.map((group, index) => `${group.sql} AS cutover_k${(index + 1).toString()}`),
      ...this.#columns.map((one, index) => `${one.sql} AS ${column(index)}`),
    ];
    const where = cut.where === null ? '' : ` WHERE ${sql.slice(cut.where.start, cut.where.end)}`;
    const groups = this.#groups.length === 0 ? '' : ` GROUP BY ${this.#groups.map((group) => group.sql).join(', ')}`;
    return `SELECT ${items.join(', ')} FROM ${part}${where}${groups}`;
  }

  #isBranchAsMeant(branch: string): boolean {
    const read = parsedSelect(this.#source.parser, branch);
    if (read === null) return false;
    const values = list(read, 'targetList').map((entry) => child(child(entry, 'ResTarget'), 'val') ?? {});
    const groups = this.#groups.map(({ node }) => node);
    const calls = this.#columns.every(({ call }, index) => {
      const written = child(values[this.#groups.length + index] ?? null, 'FuncCall');
      return call === null || alike(argumentsOf(written), argumentsOf(call));
    });
    return (
      calls &&
      values.length === this.#groups.length + this.#columns.length &&
      alike(values.slice(0, groups.length), groups) &&
      alike(
        [read.groupClause, read.whereClause],
        [groups.length === 0 ? undefined : groups, this.#source.select.whereClause],
      )
    );
  }

  /** With a mark for each replacement, which stands in parentheses of its own, the pieces are read as they were meant. */
  #isOutsideAsMeant(outsides: readonly (Outside | string | null)[]): boolean {
    const pieces = outsides.filter((one) => one !== null && typeof one === 'object');
    const read = parsedSelect(this.#source.parser, `SELECT ${pieces.map((one) => this.#said(one, 'mark')).join(', ')}`);
    const values = list(read, 'targetList').map((entry) => child(entry, 'ResTarget'));
    if (values.some((value) => text(value, 'name') !== null)) return false;
    return alike(
      values.map((value) => child(value, 'val')),
      pieces.map(({ meant }) => meant),
    );
  }

  #said(outside: Outside | string, as: 'with' | 'mark'): string {
    if (typeof outside === 'string') return outside;
    const { span } = outside;
    const inside = this.#replacements.filter(({ start, end }) => start >= span.start && end <= span.end);
    let said = '';
    let position = span.start;
    for (const replacement of [...inside].sort((one, other) => one.start - other.start)) {
      said += this.#source.sql.slice(position, replacement.start) + replacement[as];
      position = replacement.end;
    }
    return said + this.#source.sql.slice(position, span.end);
  }
}

/** As far as statistics tell. */
function areFew({ scope, table }: PartialSource, groups: readonly Group[]): boolean {
  const columns = new Set(groups.flatMap(({ node }) => columnsIn(scope, node)));
  const valuesOf = (name: string): number =>
    scope.context.fewValues?.get(columnKey(table.schema, table.name, name)) ?? Infinity;
  return [...columns].reduce((product, { name }) => product * valuesOf(name), 1) <= GROUPS_MAX;
}

function key(index: number): string {
  return `${LEVEL}.cutover_k${(index + 1).toString()}`;
}

function column(index: number): string {
  return `cutover_a${(index + 1).toString()}`;
}

function whole(index: number): string {
  return `cutover_w${(index + 1).toString()}`;
}

function between(index: number): string {
  return `cutover_b${(index + 1).toString()}`;
}

/** A filter that everything passes is none. */
function argumentsOf(call: Tree | null): unknown {
  const filter = child(call, 'agg_filter');
  const passes = flag(child(child(filter, 'A_Const'), 'boolval'), 'boolval');
  return [call?.args, passes ? null : filter, flag(call ?? {}, 'agg_star')];
}

function alike(one: unknown, other: unknown): boolean {
  return isDeepStrictEqual(meaningOf(one), meaningOf(other));
}
