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
  /** what FILTER asks of a row, or nothing */
  readonly condition: string;
  /** of the argument; null: another one, or not known */
  readonly type: ExactType | null;
  /** shards may hand on the states of deviations of a `numeric` (src/postgres/coordinator/deviation-states.ts) */
  readonly states: boolean;
}

export interface PartialAggregate {
  /** what each shard computes */
  readonly parts: readonly string[];
  /** the whole from the names of the parts' columns, in parentheses */
  readonly merge: (columns: readonly string[]) => string;
}

/** The same aggregate of the parts is that of the whole. */
const AS_THEY_ARE: ReadonlySet<string> = new Set(['min', 'max', 'bool_and', 'bool_or', 'every', 'bit_and', 'bit_or']);
/** Of these the first row in an order is the answer (`pg_aggregate.aggsortop`). */
const FIRST_IN_ORDER: ReadonlySet<string> = new Set(['min', 'max', 'bool_and', 'bool_or', 'every']);
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

/** The largest integer whose square fits one of eight bytes. */
const ROOT_OF_LARGEST = '3037000499';

export function isDivisible(name: string): boolean {
  return AS_THEY_ARE.has(name) || SPREADS.has(name) || name === 'count' || name === 'sum' || name === 'avg';
}

/** @returns null where it cannot be computed so */
export function partialAggregate({ name, args, condition, type, states }: AggregateCall): PartialAggregate | null {
  const filter = condition === '' ? '' : ` FILTER (WHERE ${condition})`;
  const call = (aggregate: string): string => `pg_catalog.${aggregate}${args}${filter}`;
  const own = filter === '' && FIRST_IN_ORDER.has(name) ? ` ${NOT_BY_ORDER}` : '';
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
  if (type === 'numeric' && states)
    return {
      parts: ['sum', 'state'].map((part) => `cutover_shards.deviation_${part}${args}${filter}`),
      merge: ([sum = '', state = '']) =>
        spreadOf([`cutover_shards.count_of(${state})`, sum, `cutover_shards.squares_of(${state})`], spread),
    };
  return {
    parts: [call('count'), call('sum'), ...squaresOf(args, condition, type)],
    merge: (columns) => spreadOf(columns, spread),
  };
}

/**
 * The sum of the squares. A product of integers that fits one of eight bytes is much faster than a `numeric`: those of four always do, and
 * of eight the most. `&` as in {@link wholeNumber}.
 */
function squaresOf(args: string, condition: string, type: ExactType): readonly string[] {
  const sum = (factors: string, ...conditions: readonly string[]): string => {
    const all = [...(condition === '' ? [] : [`(${condition})`]), ...conditions].join(' AND ');
    return `pg_catalog.sum(${factors})${all === '' ? '' : ` FILTER (WHERE ${all})`}`;
  };
  const integers = `(${args} & (-1)::pg_catalog.int8) * ${args}`;
  const numbers = `${args}::pg_catalog.numeric * ${args}::pg_catalog.numeric`;
  if (type === 'numeric') return [sum(numbers)];
  if (type !== 'int8') return [sum(integers)];
  const fits = `${args} BETWEEN (-${ROOT_OF_LARGEST})::pg_catalog.int8 AND ${ROOT_OF_LARGEST}::pg_catalog.int8`;
  return [sum(integers, fits), sum(numbers, `NOT (${fits})`)];
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
  [n = '', s = '', ...q]: readonly string[],
  { sample, root }: { readonly sample: boolean; readonly root: boolean },
): string {
  const count = `pg_catalog.sum(${n})`;
  const sum = `pg_catalog.sum(${s})`;
  const squares = q.map((one) => `coalesce(pg_catalog.sum(${one}), 0)`).join(' + ');
  const above = `(${count} * (${squares}) - ${sum} * ${sum})`;
  const below = sample ? `(${count} * (${count} - 1))` : `(${count} * ${count})`;
  // PostgreSQL's is a zero without digits behind its point where there is nothing above; each name is computed as often as it is written.
  const variance = `coalesce(nullif(greatest(${above}, 0), 0) / ${below}, 0)`;
  // The scale of NaN is NULL.
  const rooted = `coalesce(${rootOf(variance)}, ${variance})`;
  return `(CASE WHEN ${count} > ${sample ? '1' : '0'} THEN ${root ? rooted : variance} END)`;
}

function rootOf(variance: string): string {
  const digits = `pg_catalog.scale(${variance})`;
  return `pg_catalog.round(pg_catalog.sqrt(pg_catalog.round(${variance}, ${digits} + ${MORE_DIGITS})), ${digits})`;
}
