/** One task: tell how much processor time processes have taken, from Linux' /proc in ticks of 10 ms. */
import { existsSync, readFileSync } from 'node:fs';
import { childrenOf } from '../src/dev/processes.js';

const MS_PER_TICK = 10;
/** Of the process itself, and of its children that have ended, each by user and by system (proc(5), behind the name in parentheses). */
const OWN = [11, 12];
const ENDED = [13, 14];

/** Of a process and the kernel on its behalf; null where that cannot be told. */
export function processorMs(pid: number | undefined): number | null {
  return read(pid, OWN);
}

/** Of a process, of its children, and of those that have ended. */
export function familyProcessorMs(pid: number): number | null {
  const own = read(pid, [...OWN, ...ENDED]);
  // One that ends meanwhile is counted with its parent the next time.
  return own === null ? null : childrenOf(pid).reduce((sum, child) => sum + (processorMs(child) ?? 0), own);
}

function read(pid: number | undefined, fields: readonly number[]): number | null {
  const file = `/proc/${String(pid)}/stat`;
  if (pid === undefined || !existsSync(file)) return null;
  // The name in parentheses may have spaces.
  const values = readFileSync(file, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  return fields.reduce((sum, field) => sum + Number(values[field]) * MS_PER_TICK, 0);
}
