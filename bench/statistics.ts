/** One task: the few numbers that sum up a list of measurements. */
import { invariant } from '../src/errors/invariant.js';

/** The value below which the fraction `rank` (0 to 1) of the sorted values lies, by the nearest rank. */
export function quantile(values: readonly number[], rank: number): number {
  invariant(rank >= 0 && rank <= 1, 'a rank lies between 0 and 1');
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.max(0, Math.ceil(rank * sorted.length) - 1)] ?? NaN;
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length / 2;
  const upper = sorted[Math.floor(middle)] ?? NaN;
  return Number.isInteger(middle) ? ((sorted[middle - 1] ?? NaN) + upper) / 2 : upper;
}

/** Rounded for people to `digits` places. */
export function rounded(value: number, digits = 1): number {
  return Number(value.toFixed(digits));
}
