/** One task: cut a database over and roll it back again and again, and measure what its clients noticed of each. */
import type { Move, Operator } from '../src/cli/demo/operator.js';
import { SOURCE } from '../src/cli/demo/stage.js';
import { nowMs } from '../src/dev/ledger/book.js';
import { holdsWithin } from '../src/dev/processes.js';
import type { DiskProbe } from './disk-probe.js';
import type { SlowTemporal } from './slow-temporal.js';
import { rounded } from './statistics.js';
import { isSlowed, type Run, type Switch } from './switches.js';

const RESHARD_DEADLINE_MS = 300_000;
const CUTOVER_DEADLINE_MS = 120_000;
/** Around the pause: what is held before it and what is cold after it belong to the stall. */
const MARGIN_MS = 500;
const SETTLE_MS = 1_500;
/** A look asks the orchestrator and every server; more often it would take from two processors what the pause needs. */
const LOOK_MS = 1_000;

/** What is measured of the clients; times in milliseconds since 1970. */
export interface WatchedLoad {
  /** that clients saw so far, whatever they were */
  readonly errors: number;
  longestGapBetween(fromMs: number, toMs: number): number;
  longestStallBetween(fromMs: number, toMs: number): number;
}

export class Switcher {
  readonly #operator: Operator;
  readonly #load: WatchedLoad;
  readonly #disk: DiskProbe;
  readonly #slowTemporal: SlowTemporal;

  constructor(operator: Operator, load: WatchedLoad, disk: DiskProbe, slowTemporal: SlowTemporal) {
    this.#operator = operator;
    this.#load = load;
    this.#disk = disk;
    this.#slowTemporal = slowTemporal;
  }

  /** A cutover and a rollback, so many times; a JSON line for each. */
  async repeat(
    { destination, publication }: { readonly destination: string; readonly publication: string },
    runs: number,
  ): Promise<readonly Run[]> {
    const task = await this.#operator.reshard(SOURCE, destination, publication);
    const done: Run[] = [];
    for (let number = 1; number <= runs; number += 1) {
      const errorsBefore = this.#load.errors;
      const temporalDelayMs = isSlowed(number) ? this.#slowTemporal.delayMs : 0;
      this.#slowTemporal.slow(temporalDelayMs > 0);
      // RESHARD itself makes the first cutover.
      if (number > 1) await this.#operator.command(`CUTOVER ${task}`);
      const cutover = await this.#switched(task);
      const reverse = await this.#operator.reverseTask(CUTOVER_DEADLINE_MS);
      const askedAtMs = nowMs();
      await this.#operator.command(`CUTOVER ${reverse}`);
      const commandMs = rounded(nowMs() - askedAtMs);
      const rollback = await this.#switched(reverse);
      const run = { cutover, rollback, errors: this.#load.errors - errorsBefore, temporalDelayMs, commandMs };
      done.push(run);
      process.stdout.write(`${JSON.stringify({ bench: 'stall', run: number, ...run })}\n`);
    }
    return done;
  }

  #epoch = 0;

  async #switched(task: string): Promise<Switch> {
    let aborted = 0;
    const deadlineMs = this.#epoch === 0 ? RESHARD_DEADLINE_MS : CUTOVER_DEADLINE_MS;
    const move = await this.#operator.untilMoved(task, this.#epoch, deadlineMs, {
      pollMs: LOOK_MS,
      onAborted: ({ epoch, reason }) => {
        aborted += 1;
        process.stderr.write(`bench: epoch ${epoch.toString()} was aborted: ${reason ?? 'no reason'}\n`);
      },
    });
    this.#epoch = move.epoch;
    await holdsWithin(() => nowMs() >= move.resumedAtMs + SETTLE_MS, 2 * SETTLE_MS);
    return this.#measured(move, aborted);
  }

  #measured(move: Move, aborted: number): Switch {
    const [from, to] = [move.pausedAtMs - MARGIN_MS, move.resumedAtMs + MARGIN_MS];
    return {
      epoch: move.epoch,
      gapMs: rounded(this.#load.longestGapBetween(from, to)),
      stallMs: rounded(this.#load.longestStallBetween(from, to)),
      longestSyncMs: this.#disk.longestBetween(from, to),
      pausedMs: move.pausedMs,
      aborted,
      stepMs: Object.fromEntries(move.steps.map(({ name, ms }) => [name, ms])),
    };
  }
}
