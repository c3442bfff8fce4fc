/** One task: measure how long clients wait when the engine is killed inside the pause and nobody starts another one. */
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { Operator, type AdminRow } from '../src/cli/demo/operator.js';
import { APPLICATION_USER, DESTINATION, setStage, SOURCE, type Stage } from '../src/cli/demo/stage.js';
import type { Step } from '../src/cutover/epoch.js';
import { nowMs } from '../src/dev/ledger/book.js';
import { compareLedger, type Comparison } from '../src/dev/ledger/compare.js';
import { startLedger, type Ledger } from '../src/dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION } from '../src/dev/ledger/prepare.js';
import type { Major } from '../src/dev/embedded-postgres.js';
import { holdsWithin } from '../src/dev/processes.js';
import { EngineProcess } from './engine-process.js';
import { machine, type Machine } from './machine.js';
import { median, rounded } from './statistics.js';

export interface KilledOptions {
  /** each kills the engine once; the move it was in is then ended by the next engine */
  readonly runs: number;
  readonly writers: number;
  readonly rows: number;
  readonly from: Major;
  readonly to: Major;
  readonly thinkMs: number;
  /** `cutover_lease` */
  readonly leaseMs: number;
}

/** What the clients saw of one death. */
interface Run {
  readonly heading: string;
  /** the step at whose beginning the engine died */
  readonly step: Step;
  /** what became of the epoch it died in, and what was decided by the nodes alone */
  readonly decision: string;
  readonly leaseMs: number;
  /** longest time between two consecutive acknowledged writes of all writers */
  readonly longestGapMs: number;
  /** longest wait of one writer for one answer */
  readonly longestWaitMs: number;
  readonly errors: number;
}

/**
 * After the seal: four places before the commit, where nodes abort, and one behind it, where they go forward. An odd number, so that each
 * is taken in both directions.
 */
const FATAL_STEPS: readonly Step[] = [
  'awaitParity',
  'advanceSequences',
  'createReverseReplication',
  'commitCutover',
  'swapConfiguration',
];
/** What the clients may wait beyond the lease. */
const BEYOND_LEASE_MS = 1_000;
const RESHARD_DEADLINE_MS = 300_000;
const CUTOVER_DEADLINE_MS = 120_000;
/** What is cold after the pause belongs to it. */
const MARGIN_MS = 500;
const POLL_MS = 200;

/** Prints a JSON line for each run and a summary; answers the exit code. */
export async function killed(options: KilledOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const { from, to, leaseMs, writers, thinkMs, rows } = options;
  const general = [`cutover_lease = ${leaseMs.toString()}`];
  const stage = await setStage({ from, to, ui: false, report: say, worker: false, general }, cleanup);
  const history = await prepareLedger(stage.source.endpoint(SOURCE), { rows, owner: APPLICATION_USER });
  const ledger = await startLedger({ endpoint: stage.application, writers, thinkMs });
  cleanup.defer('the ledger', () => ledger.stop());
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer('the operator', () => operator.end());
  const bench = new Bench(stage, operator, ledger, options);
  cleanup.defer('the bench', () => bench.end());
  const runs = await bench.repeat();
  await ledger.stop();
  // After an odd number of moves the destination serves; the database has the same name there.
  const serving = runs.length % 2 === 0 ? stage.source : stage.destination;
  return report(options, at, runs, ledger, await compareLedger(serving.endpoint(SOURCE), ledger, history));
}

class Bench {
  readonly #stage: Stage;
  readonly #operator: Operator;
  readonly #ledger: Ledger;
  readonly #options: KilledOptions;
  #engine: EngineProcess | null = null;
  #epoch = 0;

  constructor(stage: Stage, operator: Operator, ledger: Ledger, options: KilledOptions) {
    this.#stage = stage;
    this.#operator = operator;
    this.#ledger = ledger;
    this.#options = options;
  }

  async repeat(): Promise<readonly Run[]> {
    let engine = await this.#startEngine();
    let forward = '';
    const done: Run[] = [];
    for (let number = 1; number <= this.#options.runs; number += 1) {
      const errorsBefore = this.#errors;
      const step = FATAL_STEPS[(number - 1) % FATAL_STEPS.length] ?? 'commitCutover';
      // Known before the engine may die: a rollback has no task of its own until the streams that run back have one.
      const reverse = number % 2 === 0 ? await this.#operator.reverseTask(CUTOVER_DEADLINE_MS) : null;
      await engine.dieAt(step);
      if (forward === '') forward = await this.#operator.reshard(SOURCE, DESTINATION, PUBLICATION);
      else await this.#operator.command(`CUTOVER ${reverse ?? forward}`);
      const killedAtMs = await engine.killedWithin(number === 1 ? RESHARD_DEADLINE_MS : CUTOVER_DEADLINE_MS);
      const waits = await this.#waitsSince(killedAtMs);
      // Only now: until here the nodes were alone.
      engine = await this.#startEngine();
      const decision = await this.#moved();
      const run = {
        ...{ heading: reverse === null ? 'forward' : 'reverse', step, decision, leaseMs: this.#options.leaseMs },
        ...{ ...waits, errors: this.#errors - errorsBefore },
      };
      done.push(run);
      process.stdout.write(`${JSON.stringify({ bench: 'killed', run: number, ...run })}\n`);
    }
    return done;
  }

  /** May be called again. */
  async end(): Promise<void> {
    await this.#engine?.end();
  }

  async #startEngine(): Promise<EngineProcess> {
    const { configuration, folder } = this.#stage;
    this.#engine = await EngineProcess.start(configuration.files, join(folder, 'engine.log'));
    return this.#engine;
  }

  /** Waits until every writer is answered again. */
  async #waitsSince(killedAtMs: number): Promise<Pick<Run, 'longestGapMs' | 'longestWaitMs'>> {
    const { leaseMs, writers } = this.#options;
    const answered = (): boolean => {
      const since = this.#ledger.acknowledged.slice(-1_000).filter(({ atMs }) => atMs > killedAtMs);
      return new Set(since.map(({ client }) => client)).size === writers;
    };
    if (!(await holdsWithin(answered, 10 * leaseMs + CUTOVER_DEADLINE_MS)))
      throw new Error('not every writer was answered again after the engine was killed');
    const flowsAgainMs = nowMs();
    await holdsWithin(() => nowMs() >= flowsAgainMs + MARGIN_MS, 2 * MARGIN_MS);
    return {
      longestGapMs: rounded(this.#ledger.longestGapBetween(killedAtMs, nowMs())),
      longestWaitMs: rounded(this.#ledger.longestStallBetween(killedAtMs, nowMs())),
    };
  }

  /**
   * The next engine ends the move, in the same epoch or in one after it. Answers what was decided of the epoch in which the one before
   * it died. `Operator.untilMoved` would wait for ever for the milliseconds of a resume that no engine has seen.
   */
  async #moved(): Promise<string> {
    const end = performance.now() + CUTOVER_DEADLINE_MS;
    while (performance.now() < end) {
      const moved = Math.max(0, ...(await this.#operator.command('SHOW EVENTS')).map(epochMoved));
      if (moved > this.#epoch) {
        const cutovers = await this.#operator.command('SHOW CUTOVERS');
        const died = cutovers.find(({ epoch }) => Number(epoch) === this.#epoch + 1);
        this.#epoch = moved;
        return String(died?.outcome);
      }
      await sleep(POLL_MS);
    }
    throw new Error(`the move was not ended within ${CUTOVER_DEADLINE_MS.toString()} ms by another engine`);
  }

  get #errors(): number {
    return this.#ledger.refused.length + this.#ledger.unknown.length;
  }
}

/** The epoch of a move that its migration knows of; 0 for another event, as for the same news of the cutover itself. */
function epochMoved({ event, stream, data }: AdminRow): number {
  if (event !== 'TrafficMoved' || /\/cutover-\d+$/.test(String(stream))) return 0;
  return Number((JSON.parse(String(data)) as { readonly epoch?: unknown }).epoch);
}

function report(
  options: KilledOptions,
  at: Machine,
  runs: readonly Run[],
  ledger: Ledger,
  comparison: Comparison,
): number {
  const { from, to, writers, thinkMs, leaseMs } = options;
  const gaps = runs.map(({ longestGapMs }) => longestGapMs);
  // Of all clients, the reader too, over the whole bench.
  const longestWaitMs = rounded(Math.max(ledger.longestStallMs, ...runs.map((run) => run.longestWaitMs)));
  const limitMs = leaseMs + BEYOND_LEASE_MS;
  const summary = {
    ...{ bench: 'killed', summary: true, machine: at, from, to, runs: runs.length, writers, thinkMs, leaseMs },
    medianGapMs: rounded(median(gaps)),
    longestGapMs: Math.max(...gaps),
    longestWaitMs,
    limitMs,
    withinLimit: Math.max(longestWaitMs, ...gaps) <= limitMs,
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
  const wrong = summary.lost + summary.doubled + summary.unexpected + summary.errors + summary.staleReads;
  return wrong === 0 && comparison.balanceOk && comparison.historyOk ? 0 : 1;
}

function say(sentence: string): void {
  process.stderr.write(`bench: ${sentence}\n`);
}
