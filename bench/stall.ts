/** One task: measure what the writers of a live database notice of a cutover and of a rollback. */
import { compareLedger, type Comparison } from '../src/dev/ledger/compare.js';
import { startLedger, type Ledger } from '../src/dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../src/dev/ledger/prepare.js';
import type { Major } from '../src/dev/embedded-postgres.js';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { Operator } from '../src/cli/demo/operator.js';
import { APPLICATION_USER, DESTINATION, setStage, SOURCE, type Stage } from '../src/cli/demo/stage.js';
import { DiskProbe } from './disk-probe.js';
import { IdleClients } from './idle-clients.js';
import { machine, type Machine } from './machine.js';
import { SlowTemporal } from './slow-temporal.js';
import { Switcher } from './switcher.js';
import { slowedSummary, sumOf, type Run } from './switches.js';

export interface StallOptions {
  /** each is a cutover and a rollback */
  readonly runs: number;
  readonly writers: number;
  /** published tables beside the ledger's own four */
  readonly tables: number;
  readonly rows: number;
  readonly from: Major;
  readonly to: Major;
  readonly thinkMs: number;
  /** workers that share the proxy's port */
  readonly nodes: number;
  /** connections that do nothing, beside the ledger's */
  readonly idleClients: number;
  /** how much longer a call to Temporal takes in half of the runs; 0: in none */
  readonly temporalDelayMs: number;
}

const WRITTEN_TABLES_MAX = 100;

/** Prints a JSON line for each run and a summary; answers the exit code. */
export async function stall(options: StallOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const { from, to, nodes } = options;
  const slowTemporal = new SlowTemporal(options.temporalDelayMs);
  cleanup.defer('slow Temporal', () => slowTemporal.end());
  const temporalThrough = (address: string): Promise<string> =>
    slowTemporal.delayMs > 0 ? slowTemporal.to(address) : Promise.resolve(address);
  const stage = await setStage({ from, to, nodes, ui: false, report: say, temporalThrough }, cleanup);
  const history = await prepareLedger(stage.source.endpoint(SOURCE), {
    rows: options.rows,
    extraTables: options.tables,
    owner: APPLICATION_USER,
  });
  const writtenTables = Math.min(options.tables, WRITTEN_TABLES_MAX);
  const { writers, thinkMs } = options;
  const ledger = await startLedger({ endpoint: stage.application, writers, thinkMs, writtenTables });
  cleanup.defer('the ledger', () => ledger.stop());
  const idle = await IdleClients.connect(stage.application, options.idleClients);
  cleanup.defer('idle clients', () => idle.end());
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer('the operator', () => operator.end());
  const disk = new DiskProbe();
  cleanup.defer('the disk probe', () => disk.end());
  const watched = {
    get errors(): number {
      return ledger.refused.length + ledger.unknown.length;
    },
    longestGapBetween: (fromMs: number, toMs: number) => ledger.longestGapBetween(fromMs, toMs),
    longestStallBetween: (fromMs: number, toMs: number) => ledger.longestStallBetween(fromMs, toMs),
  };
  const move = { destination: DESTINATION, publication: PUBLICATION };
  const runs = await new Switcher(operator, watched, disk, slowTemporal).repeat(move, options.runs);
  await ledger.stop();
  const idleLost = idle.lost;
  const comparison = await compareAtSource(stage, ledger, history);
  return report(options, at, runs, ledger, comparison, idleLost);
}

/** After as many rollbacks as cutovers the source serves again. */
function compareAtSource(stage: Stage, ledger: Ledger, history: LoadedHistory): Promise<Comparison> {
  return compareLedger(stage.source.endpoint(SOURCE), ledger, history);
}

function report(
  options: StallOptions,
  at: Machine,
  runs: readonly Run[],
  ledger: Ledger,
  comparison: Comparison,
  idleLost: number,
): number {
  const cutovers = runs.map(({ cutover }) => cutover);
  const rollbacks = runs.map(({ rollback }) => rollback);
  const summary = {
    bench: 'stall',
    summary: true,
    machine: at,
    from: options.from,
    to: options.to,
    runs: runs.length,
    writers: options.writers,
    thinkMs: options.thinkMs,
    tables: options.tables,
    nodes: options.nodes,
    idleClients: options.idleClients,
    idleLost,
    cutover: sumOf(cutovers),
    rollback: sumOf(rollbacks),
    both: sumOf([...cutovers, ...rollbacks]),
    ...slowedSummary(options.temporalDelayMs, runs),
    acknowledged: ledger.acknowledged.length,
    errors: runs.reduce((sum, { errors }) => sum + errors, 0),
    lost: comparison.lost.length,
    doubled: comparison.doubled.length,
    unexpected: comparison.unexpected.length,
    balanceOk: comparison.balanceOk,
    historyOk: comparison.historyOk,
    staleReads: ledger.reader.wentBack + ledger.reader.missed.length,
  };
  process.stdout.write(`${JSON.stringify(summary)}\n`);
  for (const { message, client } of ledger.refused.slice(0, 10)) say(`${client}: ${message}`);
  const { lost, doubled, unexpected } = comparison;
  const clean = lost.length + doubled.length + unexpected.length + summary.errors + summary.staleReads + idleLost === 0;
  return clean && comparison.balanceOk && comparison.historyOk ? 0 : 1;
}

function say(sentence: string): void {
  process.stderr.write(`bench: ${sentence}\n`);
}
