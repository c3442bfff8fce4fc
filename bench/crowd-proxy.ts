/** One task: the proxy alone, in a process of its own, whose memory can be asked for and whose gate can be moved. */
import { loadConfig } from '../src/config/load.js';
import { startProxy } from '../src/proxy/proxy.js';

export type Order = 'usage' | 'memory' | 'close' | 'open';

/** What it answers: `memoryUsage()`, after a collection where it is asked for the `memory`, and when, by a clock that all processes of the machine share. */
export interface Told extends NodeJS.MemoryUsage {
  readonly atMs: number;
  /** sessions that wait at the gate */
  readonly waiting: number;
  /** processor time that the process has taken since its start */
  readonly processorMs: number;
}

const [, , config = '', users = '', database = ''] = process.argv;

const proxy = await startProxy({ config: loadConfig({ config, users }) });

process.on('message', (order: Order) => {
  const gate = proxy.gate(database);
  if (order === 'memory') globalThis.gc?.();
  if (order === 'close') gate.close('pause');
  const atMs = Number(process.hrtime.bigint()) / 1e6;
  const { user, system } = process.cpuUsage();
  const processorMs = (user + system) / 1_000;
  process.send?.({ atMs, waiting: gate.waitingCount, processorMs, ...process.memoryUsage() } satisfies Told);
  // Told first: the answer would wait for all that the gate lets go.
  if (order === 'open') gate.open('pause');
});
