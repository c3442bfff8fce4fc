/**
 * One task: say by which aggregates of each shard's rows PostgreSQL's own aggregate of all rows can be computed, digit for digit.
 *
 * Sums of floats are left out: their last digits depend on the order of the rows. How the others are computed, with how many digits:
 * PostgreSQL's source, src/backend/utils/adt/numeric.c.
 */

/** Types whose sums are exact. */
export type ExactType = 'int2' | 'int4' | 'int8' | 'numeric';

export interface AggregateCall {
  /** one of {@link isDivisible} */
  readonly name: string;
  /** as written, with its parentheses */
  readonly args: string;
  /** FILTER as written, or nothing */
  readonly filter: string;
  /** of the argument; null: another one, or not known */
  readonly type: ExactType | null;
}

export interface PartialAggregate {
  /** what each shard computes */
  readonly parts: readonly string[];
  /** the whole from the names of the parts' columns, in parentheses */
  readonly merge: (columns: readonly string[]) => string;
}

/** The same aggregate of the parts is that of the whole. */
const AS_THEY_ARE: ReadonlySet<string> = new Set(['min', 'max', 'bool_and', 'bool_or', 'every', 'bit_and', 'bit_or']);
const SPREADS: ReadonlyMap<string, { readonly sample: boolean; readonly root: boolean }> = new Map([
  ['variance', { sample: true, root: false }],
  ['var_samp', { sample: true, root: false }],
  ['var_pop', { sample: false, root: false }],
  ['stddev', { sample: true, root: true }],
  ['stddev_samp', { sample: true, root: true }],
  ['stddev_pop', { sample: false, root: true }],
]);
/**
 * Without a filter PostgreSQL would look for the first row in the order of the argument, and postgres_fdw would ask each shard for all rows
 * in that order, one shard after the other.
 */
const NOT_BY_ORDER = 'FILTER (WHERE true)';
/** More digits than an average has, so that the root of the rounded one is rounded as the root of the whole. */
const MORE_DIGITS = '30';

export function isDivisible(name: string): boolean {
  return AS_THEY_ARE.has(name) || SPREADS.has(name) || name === 'count' || name === 'sum' || name === 'avg';
}

/** @returns null where it cannot be computed so */
export function partialAggregate({ name, args, filter, type }: AggregateCall): PartialAggregate | null {
  const call = (aggregate: string, of = args): string => `pg_catalog.${aggregate}${of} ${filter}`.trim();
  const own = filter === '' && (name === 'min' || name === 'max') ? ` ${NOT_BY_ORDER}` : '';
  if (AS_THEY_ARE.has(name))
    return { parts: [call(name) + own], merge: ([part = '']) => `(pg_catalog.${name}(${part}))` };
  if (name === 'count') return { parts: [call(name)], merge: ([part = '']) => wholeNumber(part) };
  if (type === null) return null;
  if (name === 'sum') return { parts: [call(name)], merge: ([part = '']) => sumOf(part, type) };
  if (name === 'avg')
    return {
      parts: [call('sum'), call('count')],
      merge: ([sum = '', count = '']) => `(pg_catalog.sum(${sum}) / pg_catalog.sum(${count}))`,
    };
  const spread = SPREADS.get(name);
  if (spread === undefined) return null;
  const value = factorOf(args, type);
  return {
    parts: [call('count'), call('sum'), call('sum', `(${value} * ${value})`)],
    merge: (columns) => spreadOf(columns, spread),
  };
}

/** A product of two integers of four bytes fits one of eight, which is much faster than a `numeric`; `&` as in {@link wholeNumber}. */
function factorOf(args: string, type: ExactType): string {
  return type === 'int2' || type === 'int4' ? `(${args} & (-1)::pg_catalog.int8)` : `${args}::pg_catalog.numeric`;
}

/** The sum of integers of two or four bytes is of eight; of all others it has its parts' type. */
function sumOf(part: string, type: ExactType): string {
  return type === 'int2' || type === 'int4' ? wholeNumber(part) : `(pg_catalog.sum(${part}))`;
}

/** `&` is there for integers alone: where a column has got another type a moment ago, this is an error and no rounded number. */
function wholeNumber(part: string): string {
  return `(pg_catalog.sum(${part} & (-1)::pg_catalog.int8)::pg_catalog.int8)`;
}

function spreadOf(
  [n = '', s = '', q = '']: readonly string[],
  { sample, root }: { readonly sample: boolean; readonly root: boolean },
): string {
  const count = `pg_catalog.sum(${n})`;
  const sum = `pg_catalog.sum(${s})`;
  const above = `(${count} * pg_catalog.sum(${q}) - ${sum} * ${sum})`;
  const below = sample ? `(${count} * (${count} - 1))` : `(${count} * ${count})`;
  const variance = `(CASE WHEN ${above} <= 0 THEN 0::pg_catalog.numeric ELSE ${above} / ${below} END)`;
  const rooted = `(CASE WHEN ${variance} = 'NaN'::pg_catalog.numeric THEN ${variance} ELSE ${rootOf(variance)} END)`;
  return `(CASE WHEN ${count} > ${sample ? '1' : '0'} THEN ${root ? rooted : variance} END)`;
}

function rootOf(variance: string): string {
  const digits = `pg_catalog.scale(${variance})`;
  return `pg_catalog.round(pg_catalog.sqrt(pg_catalog.round(${variance}, ${digits} + ${MORE_DIGITS})), ${digits})`;
}
