/**
 * One task: write `SELECT … FROM t … ORDER BY … LIMIT` so that each shard sends no more rows than the answer can have.
 *
 * The table is replaced by its first rows of each shard, in the order asked for; all else stays as it was written. `OFFSET 0` hides from
 * the planner that they come in order: it would merge them and read one shard after the other, instead of all at once.
 */
import { isDeepStrictEqual } from 'node:util';
import { quoteIdentifier } from '../postgres/connection.js';
import { columnOf, columnsIn, isUnderstood, meaningOf } from './partial-expressions.js';
import { bareName, ordinalOf, parsedSelect, type PartialSource, type Sort, type Target } from './partial-source.js';
import { child, flag, list, number, text, type Tree } from './statement-tree.js';

const BIGINT_MAX = 2n ** 63n - 1n;

/** What a shard sorts by. */
interface Order {
  readonly node: Tree;
  readonly sql: string;
  /** ` DESC NULLS LAST`, as far as written */
  readonly suffix: string;
}

/** @returns null where it is not that, or not understood */
export function partialLimit(source: PartialSource): string | null {
  const { sql, select, text: cut, scope, parts } = source;
  if (select.groupClause !== undefined || select.havingClause !== undefined || source.sorts.length === 0) return null;
  if (!source.targets.every((target) => isStar(source, target) || isUnderstood(scope, target.value, false)))
    return null;
  const limit = branchLimit(select);
  const orders = source.sorts.flatMap((sort) => branchOrder(source, sort) ?? []);
  if (limit === null || orders.length < source.sorts.length) return null;
  const columns = branchColumns(source, orders);
  const order = orders.map((one) => one.sql + one.suffix).join(', ');
  const where = cut.where === null ? '' : ` WHERE ${sql.slice(cut.where.start, cut.where.end)}`;
  const branches = parts.map((part) => `(SELECT ${columns} FROM ${part}${where} ORDER BY ${order} LIMIT ${limit})`);
  const written = [
    sql.slice(0, cut.fromAt),
    `FROM ((${branches.join(' UNION ALL ')}) OFFSET 0) AS ${quoteIdentifier(scope.alias)} ORDER BY `,
    sql.slice(source.sorts[0]?.span.start ?? 0),
  ].join('');
  const nodes = orders.map(({ node }) => node);
  return isBranchAsMeant(source, branches[0] ?? '', nodes) && isWholeAsMeant(source, written) ? written : null;
}

function isStar({ scope }: PartialSource, { value }: Target): boolean {
  const fields = list(child(value, 'ColumnRef'), 'fields');
  if (child(fields.at(-1) ?? null, 'A_Star') === null || fields.length > 2) return false;
  return fields.length === 1 || text(child(fields[0] ?? null, 'String'), 'sval') === scope.alias;
}

/**
 * What is needed of a row, and no more: large values are long on their way, and a user may read some columns only. What the rows are sorted
 * by is among it: otherwise the planner takes it off each part's rows in a step of its own, behind which shards are read one after the other.
 */
function branchColumns(source: PartialSource, orders: readonly Order[]): string {
  const { scope, targets } = source;
  if (targets.some((target) => isStar(source, target))) return '*';
  const needed = columnsIn(scope, [...targets.map(({ value }) => value), ...orders.map(({ node }) => node)]);
  const names = new Set(needed.map(({ name }) => quoteIdentifier(name)));
  const computed = orders.filter(({ node }) => columnOf(scope, node) === null);
  return [...names, ...computed.map(({ sql }, index) => `(${sql}) AS cutover_o${(index + 1).toString()}`)].join(', ');
}

/** What a shard sorts by: a number or a name of the result stands for the expression there. */
function branchOrder(source: PartialSource, { node, span, suffix }: Sort): Order | null {
  const { scope, sql, targets } = source;
  // A constant behind ORDER BY would be the number of a column.
  const of = ({ value, span: own }: Target): Order | null =>
    child(value, 'A_Const') === null ? { node: value, sql: `(${sql.slice(own.start, own.end)})`, suffix } : null;
  const stars = targets.filter((target) => isStar(source, target)).length;
  const ordinal = ordinalOf(node);
  if (ordinal !== null) {
    const target = targets[ordinal - 1];
    return target === undefined || stars > 0 ? null : of(target);
  }
  const name = bareName(node);
  if (name !== null) {
    const plain = targets.filter((target) => !isStar(source, target));
    if (plain.some((target) => target.name === null)) return null;
    const [target, ...more] = plain.filter((one) => one.name === name);
    if (target !== undefined) return more.length > 0 || (stars > 0 && scope.columns.has(name)) ? null : of(target);
  }
  if (child(node, 'A_Const') !== null || !isUnderstood(scope, node, false)) return null;
  return { node, sql: sql.slice(span.start, span.end), suffix };
}

/** How many rows of each shard there may be in the answer: those of OFFSET too. Null where it cannot be told, or all of them. */
function branchLimit(select: Tree): string | null {
  if (text(select, 'limitOption') !== 'LIMIT_OPTION_COUNT') return null;
  const count = amountOf(child(select, 'limitCount'));
  const offset = child(select, 'limitOffset') === null ? '0' : amountOf(child(select, 'limitOffset'));
  if (count === null || offset === null) return null;
  if (offset === '0') return count;
  if (/^\d+$/.test(count) && /^\d+$/.test(offset)) {
    const sum = BigInt(count) + BigInt(offset);
    return sum > BIGINT_MAX ? null : sum.toString();
  }
  // NULL is no limit; whoever gives a number that cannot be reads PostgreSQL's own error, from outside of this.
  const half = (BIGINT_MAX / 2n).toString();
  return `CASE WHEN ${count} < 0 OR ${offset} < 0 THEN 0 WHEN ${count} > ${half} OR ${offset} > ${half} THEN NULL ELSE ${count} + ${offset} END`;
}

function amountOf(node: Tree | null): string | null {
  const constant = child(node, 'A_Const');
  if (constant !== null && !flag(constant, 'isnull')) {
    const small = child(constant, 'ival');
    const digits = small === null ? (text(child(constant, 'fval'), 'fval') ?? '') : number(small, 'ival').toString();
    return /^\d+$/.test(digits) && BigInt(digits) <= BIGINT_MAX ? digits : null;
  }
  const parameter = child(node, 'ParamRef');
  return parameter === null ? null : `$${number(parameter, 'number').toString()}::pg_catalog.int8`;
}

function isBranchAsMeant({ parser, select, sorts }: PartialSource, branch: string, nodes: readonly Tree[]): boolean {
  const read = parsedSelect(parser, branch);
  if (read === null) return false;
  const original = list(select, 'sortClause').map((entry) => child(entry, 'SortBy') ?? {});
  const wanted = sorts.map((_, index) => ({ SortBy: { ...original[index], node: nodes[index] } }));
  return alike([read.whereClause, read.sortClause], [select.whereClause, wanted]);
}

function isWholeAsMeant({ parser, select }: PartialSource, written: string): boolean {
  const read = parsedSelect(parser, written);
  if (read === null) return false;
  const clauses = ['targetList', 'sortClause', 'limitCount', 'limitOffset', 'limitOption'];
  const nothing = ['whereClause', 'groupClause', 'havingClause'].every((clause) => read[clause] === undefined);
  return nothing && clauses.every((clause) => alike(read[clause], select[clause]));
}

function alike(one: unknown, other: unknown): boolean {
  return isDeepStrictEqual(meaningOf(one), meaningOf(other));
}
