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
  /** what src/postgres/coordinator/deviation-states.ts makes is there */
  readonly aids: boolean;
  /** as far as is known; a state of a deviation is read for some microseconds, and saves a tenth of one for each row */
  readonly areGroupsFew: boolean;
}

/** How one aggregate is computed, level by level; each is given the names of the columns that the level below it has. */
export interface PartialAggregate {
  /** what each shard computes */
  readonly parts: readonly string[];
  /** of all rows, from the parts */
  readonly wholes: (parts: readonly string[]) => readonly string[];
  /** from the wholes: what the answer needs more than once, since PostgreSQL computes an expression as often as it is written */
  readonly between?: (wholes: readonly string[]) => string;
  /** from the wholes and what is between, in parentheses where it is more than a name */
  readonly answer: (wholes: readonly string[], between: string) => string;
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
/**
 * A root is computed with more decimals than it has in the answer, and rounded to those of its square; `sqrt` rounds as well, so this would
 * be twice. A square has the scale s: it differs from the square of the number in the middle between two answers by a quarter of 10^-2s at
 * least, and its root from that number by 10^-2s / (8 * root). So with 2s + 14 decimals every root below 10^13 is rounded as if once.
 */
const MORE_DIGITS = '14';
const SQUARES_BELOW = '1e26';

/** The largest integer whose square fits one of eight bytes. */
const ROOT_OF_LARGEST = '3037000499';

export function isDivisible(name: string): boolean {
  return AS_THEY_ARE.has(name) || SPREADS.has(name) || name === 'count' || name === 'sum' || name === 'avg';
}

/** @returns null where it cannot be computed so */
export function partialAggregate(aggregate: AggregateCall): PartialAggregate | null {
  const { name, args, condition, type, aids, areGroupsFew } = aggregate;
  const filter = condition === '' ? '' : ` FILTER (WHERE ${condition})`;
  const call = (called: string): string => `pg_catalog.${called}${args}${filter}`;
  const own = filter === '' && FIRST_IN_ORDER.has(name) ? ` ${NOT_BY_ORDER}` : '';
  if (AS_THEY_ARE.has(name)) return one(call(name) + own, (part) => `pg_catalog.${name}(${part})`);
  const total = aids ? 'cutover_shards.total' : 'pg_catalog.sum';
  // PostgreSQL's sum of `bigint` is a number of any size already.
  const numbers = (parts: readonly string[]): readonly string[] =>
    parts.map((part) => `${total}(${part})${aids ? '::pg_catalog.numeric' : ''}`);
  if (name === 'count') return one(call(name), (part) => wholeNumber(total, part));
  if (type === null) return null;
  if (name === 'sum') return one(call(name), (part) => sumOf(total, part, type));
  if (name === 'avg')
    return {
      parts: [call('sum'), call('count')],
      wholes: numbers,
      answer: ([sum = '', count = '']) => `(${sum} / ${count})`,
    };
  const spread = SPREADS.get(name);
  if (spread === undefined) return null;
  if (type !== 'numeric' || !aids || !areGroupsFew)
    return spreadOf([call('count'), call('sum'), ...squaresOf(args, condition, type)], spread, numbers);
  const parts = ['sum', 'state'].map((part) => `cutover_shards.deviation_${part}${args}${filter}`);
  return spreadOf(parts, spread, ([sum = '', state = '']) =>
    numbers([`cutover_shards.count_of(${state})`, sum, `cutover_shards.squares_of(${state})`]),
  );
}

/** An aggregate with one part, and a whole that is the answer. */
function one(part: string, whole: (part: string) => string): PartialAggregate {
  return { parts: [part], wholes: ([column = '']) => [whole(column)], answer: ([column = '']) => column };
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
function sumOf(total: string, part: string, type: ExactType): string {
  return type === 'int2' || type === 'int4' ? wholeNumber(total, part) : `${total}(${part})`;
}

/** `&` is there for integers alone: where a column has got another type a moment ago, this is an error and no rounded number. */
function wholeNumber(total: string, part: string): string {
  return `${total}(${part} & (-1)::pg_catalog.int8)::pg_catalog.int8`;
}

/** @param wholes how many, their sum, and the sums whose sum is that of their squares */
function spreadOf(
  parts: readonly string[],
  { sample, root }: { readonly sample: boolean; readonly root: boolean },
  wholes: PartialAggregate['wholes'],
): PartialAggregate {
  const variance = (columns: readonly string[]): string => varianceOf(columns, sample);
  if (!root) return { parts, wholes, answer: variance };
  return { parts, wholes, between: variance, answer: (_, column) => rootOf(column) };
}

function varianceOf([count = '', sum = '', ...squares]: readonly string[], sample: boolean): string {
  const square = squares.map((column) => `coalesce(${column}, 0)`).join(' + ');
  const above = `${count} * (${square}) - ${sum} * ${sum}`;
  const below = sample ? `${count} * (${count} - 1)` : `${count} * ${count}`;
  // PostgreSQL's is a zero without digits behind its point where there is nothing above.
  const variance = `coalesce(nullif(greatest(${above}, 0), 0) / (${below}), 0)`;
  return `(CASE WHEN ${count} > ${sample ? '1' : '0'} THEN ${variance} END)`;
}

/** PostgreSQL takes the root of the rounded variance, with as many decimals. */
function rootOf(variance: string): string {
  const scale = `pg_catalog.scale(${variance})`;
  const rounded = (square: string): string => `pg_catalog.round(pg_catalog.sqrt(${square}), ${scale})`;
  const usual = rounded(`pg_catalog.round(${variance}, 2 * ${scale} + ${MORE_DIGITS})`);
  // Rounded twice it can be too large by one of its last digit: then the square of the middle below it is above.
  const last = `('1e-' || ${scale})::pg_catalog.numeric`;
  const middle = `(2 * ${rounded(variance)} - ${last})`;
  const large = `${rounded(variance)} - CASE WHEN ${middle} * ${middle} > 4 * ${variance} THEN ${last} ELSE 0 END`;
  // The scale of NaN is NULL.
  return `coalesce(CASE WHEN ${variance} < ${SQUARES_BELOW} THEN ${usual} ELSE ${large} END, ${variance})`;
}
