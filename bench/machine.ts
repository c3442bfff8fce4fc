/** One task: say on what machine, and how busy, a measurement was made: without that its numbers mean nothing. */
import { availableParallelism, loadavg } from 'node:os';
import { rounded } from './statistics.js';

export interface Machine {
  readonly node: string;
  readonly cores: number;
  /** runnable processes, mean of the last minute; above the number of cores others took part of the machine */
  readonly loadAverage: number;
}

export function machine(): Machine {
  return { node: process.version, cores: availableParallelism(), loadAverage: rounded(loadavg()[0] ?? NaN) };
}
