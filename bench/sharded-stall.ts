/** One task: measure what the clients of a live database notice when it is moved to shards, and back. */
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { Operator } from '../src/cli/demo/operator.js';
import { APPLICATION_USER, setStage, SHARDED_DESTINATION, SOURCE } from '../src/cli/demo/stage.js';
import { startTenants } from '../src/dev/tenants/load.js';
import { prepareShop, SHARDING_COLUMN, SHOP_PUBLICATION } from '../src/dev/tenants/shop.js';
import { DiskProbe } from './disk-probe.js';
import { machine } from './machine.js';
import { SlowTemporal } from './slow-temporal.js';
import { Switcher } from './switcher.js';
import { sumOf } from './switches.js';

export interface ShardedStallOptions {
  /** each is a cutover and a rollback */
  readonly runs: number;
  readonly writers: number;
  readonly rows: number;
  /** of the destination */
  readonly shards: number;
}

const MAJOR = 18;

/** Prints a JSON line for each run and a summary; answers the exit code. */
export async function shardedStall(options: ShardedStallOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const report = (sentence: string): void => void process.stderr.write(`bench: ${sentence}\n`);
  const sharding = { shards: options.shards, column: SHARDING_COLUMN };
  const stage = await setStage({ from: MAJOR, to: MAJOR, sharding, ui: false, report }, cleanup);
  await prepareShop(stage.source.endpoint(SOURCE), { history: options.rows, owner: APPLICATION_USER });
  const load = await startTenants({ endpoint: stage.application, writers: options.writers });
  cleanup.defer('the shop', () => load.stop());
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer('the operator', () => operator.end());
  const disk = new DiskProbe();
  cleanup.defer('the disk probe', () => disk.end());
  const watched = {
    get errors(): number {
      return load.refused.length;
    },
    longestGapBetween: (fromMs: number, toMs: number) => load.longestGapBetween(fromMs, toMs),
    longestStallBetween: (fromMs: number, toMs: number) => load.longestStallBetween(fromMs, toMs),
  };
  const move = { destination: SHARDED_DESTINATION, publication: SHOP_PUBLICATION };
  const runs = await new Switcher(operator, watched, disk, new SlowTemporal(0)).repeat(move, options.runs);
  await load.stop();
  const [cutovers, rollbacks] = [runs.map(({ cutover }) => cutover), runs.map(({ rollback }) => rollback)];
  const summary = {
    bench: 'stall',
    summary: true,
    machine: at,
    ...options,
    cutover: sumOf(cutovers),
    rollback: sumOf(rollbacks),
    both: sumOf([...cutovers, ...rollbacks]),
    orders: load.orders.size,
    notes: load.notes.size,
    reports: load.reports,
    errors: load.refused.length,
    repeated: load.repeated.length,
    wentBack: load.wentBack,
  };
  process.stdout.write(`${JSON.stringify(summary)}\n`);
  for (const { message, client } of load.refused.slice(0, 10)) report(`${client}: ${message}`);
  return summary.errors + summary.repeated + summary.wentBack === 0 ? 0 : 1;
}
