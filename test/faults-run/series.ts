/** One task: make faults one after the other, on a fresh system every few of them and after each failure, and count. */
import { messageOf } from '../../src/errors/errors.js';
import { isRunning } from '../../src/dev/processes.js';
import { acceptingSides, leftAtTheEnd } from './checks.js';
import { Load } from './load.js';
import { FAULTS_PER_SYSTEM, type Fault } from './plan.js';
import { FaultRun, type FaultReport } from './run.js';
import { FaultSystem } from './system.js';

export interface SeriesOptions {
  readonly leaseMs: number;
  /** how many the destination has; absent: one */
  readonly shards?: number;
  /** of all nodes; absent: off */
  readonly pipelining?: 'auto' | 'off';
  /** after each fault the traffic goes back without one; absent: it does */
  readonly wayBack?: boolean;
  readonly print: (line: object) => void;
  /** the command that repeats the fault with this index */
  readonly repeatWith: (index: number) => string;
}

export class FaultSeries {
  readonly #options: SeriesOptions;
  readonly #reports: FaultReport[] = [];
  #system: FaultSystem | null = null;
  #load: Load | null = null;
  #failures = 0;

  constructor(options: SeriesOptions) {
    this.#options = options;
  }

  /** @returns the exit code: 1 when anything was violated */
  async run(faults: readonly Fault[]): Promise<number> {
    let layout: Fault['layout'] | null = null;
    for (const fault of faults) {
      if (fault.index % FAULTS_PER_SYSTEM === 0 || layout !== fault.layout) await this.finish();
      layout = fault.layout;
      await this.one(fault);
    }
    await this.finish();
    this.#options.print(this.#summary());
    return this.#failures === 0 ? 0 : 1;
  }

  /** One fault on the system that runs, or on a fresh one. Never rejects; what went wrong is printed and counted. */
  async one(fault: Fault): Promise<void> {
    try {
      const { shards = 1, pipelining = 'off', leaseMs } = this.#options;
      this.#system ??= await FaultSystem.start(fault.layout, leaseMs, { shards, pipelining });
      this.#load ??= new Load(this.#system);
      const report = await new FaultRun(this.#system, this.#load, this.#options.wayBack ?? true).run(fault);
      this.#reports.push(report);
      this.#options.print(report);
      if (report.violations.length > 0) await this.#failed(fault);
    } catch (error) {
      this.#options.print({ ...fault, failure: messageOf(error), cause: causeOf(error) });
      await this.#failed(fault);
    }
  }

  async #failed(fault: Fault): Promise<void> {
    this.#failures++;
    this.#options.print({ failed: fault.index, repeat: this.#options.repeatWith(fault.index), logs: this.#logs() });
    await this.end();
  }

  /** The last words of every process, for whoever looks into a failure. */
  #logs(): Readonly<Record<string, readonly string[]>> {
    const processes = this.#system?.processes ?? [];
    return Object.fromEntries(processes.map((p) => [p.name, p.output.trim().split('\n').slice(-LOG_LINES)]));
  }

  /** The end of a migration leaves nothing, however many faults it met; then the system is stopped. */
  async finish(): Promise<void> {
    const [system, load] = [this.#system, this.#load];
    if (!system || !load) return;
    const violations: string[] = [];
    try {
      if (!(await acceptingSides(system)).includes('destination')) await system.resultOf(await system.startMove(false));
      await system.finalize();
      violations.push(...(await leftAtTheEnd(system)));
      const pids = [...system.clusters, system.temporalServer, ...system.processes].map(({ pid }) => pid);
      await this.end();
      violations.push(...pids.filter(isRunning).map((pid) => `process ${pid.toString()} still runs`));
    } catch (error) {
      violations.push(`the migration could not be ended: ${messageOf(error)}`);
    }
    this.#options.print({ ended: system.layout, violations });
    if (violations.length > 0) {
      this.#failures++;
      this.#options.print({ logs: this.#logs() });
      await this.end();
    }
  }

  async end(): Promise<void> {
    const [system, load] = [this.#system, this.#load];
    this.#system = null;
    this.#load = null;
    await load?.stop().catch(() => undefined);
    await system?.stop();
  }

  #summary(): object {
    const reports = this.#reports;
    const longest = (of: (report: FaultReport) => number): number => Math.max(0, ...reports.map(of));
    const by = (of: (report: FaultReport) => string): Readonly<Record<string, number>> => {
      const counts: Record<string, number> = {};
      for (const report of reports) counts[of(report)] = (counts[of(report)] ?? 0) + 1;
      return counts;
    };
    return {
      faults: reports.length,
      failures: this.#failures,
      leaseMs: this.#options.leaseMs,
      pipelining: this.#options.pipelining ?? 'off',
      moved: reports.filter((r) => r.moved).length,
      wentBack: reports.filter((r) => r.wentBack).length,
      decisions: by((r) => r.decision ?? 'none'),
      victims: by((r) => `${r.victim}: ${r.kind}`),
      moments: by((r) => r.moment),
      acknowledged: reports.reduce((sum, r) => sum + r.acknowledged, 0),
      unknown: reports.reduce((sum, r) => sum + r.unknown, 0),
      withoutError: reports.filter((r) => Object.keys(r.errors).length === 0 && r.unknown === 0).length,
      longestBystanderStallMs: longest((r) => r.bystanderStallMs),
      longestAffectedStallMs: longest((r) => r.affectedStallMs),
    };
  }
}

const LOG_LINES = 15;

function causeOf(error: unknown): string | null {
  return error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : null;
}
