/** One task: write what happens as plain lines that a person, a log and a pipe can read alike. */
import type { Move, TableCopy } from './operator.js';

const INDENT = '    ';

export function heading(text: string): void {
  process.stdout.write(`\n${text}\n`);
}

export function detail(text: string): void {
  process.stdout.write(`${INDENT}${text}\n`);
}

/** `12.3 ms` */
export function milliseconds(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

/** `3.4 s` */
export function secondsSince(startMs: number): string {
  return `${((performance.now() - startMs) / 1_000).toFixed(1)} s`;
}

export function thousands(count: number): string {
  return count.toLocaleString('en-US');
}

export function yesNo(value: boolean): string {
  return value ? 'yes' : 'NO';
}

export function printCopy({ table, shard, rows, bytes, perSecond }: TableCopy): void {
  const where = shard === null ? '' : ` to shard ${shard}`;
  detail(`copy ${table.padEnd(18)}${where} ${rows.padStart(11)} rows ${bytes.padStart(11)}  (${perSecond})`);
}

/** The steps with their milliseconds; some run side by side, so they may add up to more than the pause. */
export function printMove(move: Move): void {
  for (const [index, { name, ms }] of move.steps.entries()) {
    detail(`${(index + 1).toString()} ${name.padEnd(26)} ${milliseconds(ms).padStart(10)}`);
  }
  detail(`epoch ${move.epoch.toString()} ${move.outcome}; clients were held for ${milliseconds(move.pausedMs)}`);
}
