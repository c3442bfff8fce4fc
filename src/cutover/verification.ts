/** One task: the words in which a comparison of both sides is told: its progress, its differences, its result. Pure. */
import type { Heading } from './contract.js';

/** `missing` and `extra` are told of the side that does not serve. */
export type Problem = 'changed' | 'missing' | 'extra' | 'structure';

/** Where a side has several shards: which two of them are compared. */
export interface Between {
  /** of the side that serves */
  readonly from: number;
  /** of the side that does not serve */
  readonly to: number;
  /** both are shards of the side that serves, for a table that is the same on every shard */
  readonly within?: true;
}

/** One row that differs, by its key; never its contents. */
export interface RowDifference {
  /** schema-qualified */
  readonly table: string;
  /** the values of the key as JSON; the row's hash where a table has no key; empty for the table itself */
  readonly key: string;
  readonly problem: Problem;
  /** absent: both sides have one shard */
  readonly between?: Between;
}

/** How many differences are told by their key; all are counted. */
export const SAMPLES_MAX = 50;

/** What was compared so far. */
export interface VerifyCounts {
  /** rows of the side that serves */
  readonly rows: number;
  /** size of their text */
  readonly bytes: number;
  readonly differences: number;
  /** rows that changed at every look, so that nobody can say */
  readonly undecided: number;
  readonly samples: readonly RowDifference[];
  /** how long the statements of this comparison have kept the side that serves busy */
  readonly busyMs: number;
}

/** Where a comparison stands inside a table: enough to go on in another process. */
export interface VerifyPosition {
  readonly table: string;
  /** absent: both sides have one shard */
  readonly between?: Between;
  /** `there`: the rows of the side that serves are looked for; `back`: those of the other side */
  readonly pass: 'there' | 'back';
  /** the last key that is done; null: none yet */
  readonly after: readonly string[] | null;
}

/** The heartbeat of a running comparison. */
export interface VerifyProgress extends VerifyCounts {
  /** one line for a person */
  readonly sentence: string;
  /** `reverse` during a soak: the source is compared with the destination, which serves */
  readonly heading: Heading;
  /** the epoch of the last move when it began: a comparison that was overtaken by one counts for nothing */
  readonly epoch: number;
  /** ISO time */
  readonly startedAt: string;
  readonly tablesDone: number;
  readonly tablesTotal: number;
  readonly position: VerifyPosition | null;
}

export interface VerifyResult extends VerifyCounts {
  readonly heading: Heading;
  /** the epoch of the last move of the traffic: the next one makes this worthless */
  readonly epoch: number;
  readonly tables: number;
  readonly startedAt: string;
  readonly finishedAt: string;
}

export const NOTHING_COUNTED: VerifyCounts = {
  rows: 0,
  bytes: 0,
  differences: 0,
  undecided: 0,
  samples: [],
  busyMs: 0,
};

export function addCounts(a: VerifyCounts, b: VerifyCounts): VerifyCounts {
  return {
    rows: a.rows + b.rows,
    bytes: a.bytes + b.bytes,
    differences: a.differences + b.differences,
    undecided: a.undecided + b.undecided,
    samples: [...a.samples, ...b.samples].slice(0, SAMPLES_MAX),
    busyMs: a.busyMs + b.busyMs,
  };
}

/** Whether a cutover may rely on it. */
export function isClean({ differences, undecided }: Pick<VerifyCounts, 'differences' | 'undecided'>): boolean {
  return differences === 0 && undecided === 0;
}

const EXAMPLES = 3;

/** `2 of 7 tables, 1200000 rows, 0 differences, now public.orders`, and between shards `, shard 0 to 1` */
export function progressSentence(
  counts: VerifyCounts,
  tablesDone: number,
  tablesTotal: number,
  position: Pick<VerifyPosition, 'table' | 'between'> | null,
): string {
  const now = position === null ? '' : `, now ${position.table}${betweenWords(position.between)}`;
  return `${tablesDone.toString()} of ${tablesTotal.toString()} tables, ${counted(counts)}${now}`;
}

export function resultSentence(result: VerifyResult): string {
  const summary = `${result.tables.toString()} tables, ${counted(result)}`;
  if (result.differences > 0) {
    const examples = result.samples
      .slice(0, EXAMPLES)
      .map(({ table, key, problem, between }) => `${table} ${key} ${problem}${betweenWords(between)}`);
    return `the sides differ (${summary}): ${examples.join('; ')}${result.differences > EXAMPLES ? '; …' : ''}`;
  }
  if (result.undecided > 0) return `${summary}, but ${result.undecided.toString()} rows never stood still`;
  return `the sides are equal: ${summary}`;
}

function betweenWords(between: Between | undefined): string {
  if (!between) return '';
  const [from, to] = [between.from.toString(), between.to.toString()];
  return between.within ? `, shards ${from} and ${to} of the side that serves` : `, shard ${from} to ${to}`;
}

function counted({ rows, differences }: VerifyCounts): string {
  return `${rows.toString()} rows, ${differences.toString()} differences`;
}
