/** One task: one fault from its beginning to its verdict: load, move, injury, healing, and everything that must hold afterwards. */
import { setTimeout as delay } from 'node:timers/promises';
import { nowMs } from '../../src/dev/ledger/book.js';
import { messageOf } from '../../src/errors/errors.js';
import { until } from '../support/wait.js';
import {
  acceptingSides,
  contents,
  decisionOf,
  leftBehind,
  nothingPrepared,
  oneWriter,
  stalls,
  wrongSide,
} from './checks.js';
import { injure, type Injury } from './injury.js';
import type { Load, Seen } from './load.js';
import type { Fault } from './plan.js';
import type { StepReport } from './steps.js';
import type { FaultSystem, MoveOutcome } from './system.js';

export interface FaultReport {
  readonly fault: number;
  readonly victim: string;
  readonly kind: string;
  readonly moment: string;
  readonly layout: string;
  readonly heading: 'forward' | 'reverse';
  readonly hit: string;
  /** what was decided of the epoch in which it happened; null: nothing, or never begun */
  readonly decision: string | null;
  readonly moved: boolean;
  readonly attempts: number;
  /** what the move said when it ended without having moved */
  readonly refusal: string | null;
  /** the traffic was moved to where it had come from afterwards, under load and without a fault */
  readonly wentBack: boolean;
  readonly outageMs: number;
  readonly bystanderStallMs: number;
  readonly affectedStallMs: number;
  readonly acknowledged: number;
  readonly unknown: number;
  /** errors that clients read, by SQLSTATE or first words */
  readonly errors: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly violations: readonly string[];
}

interface Happened {
  readonly injury: Injury;
  readonly report: StepReport;
  readonly fromMs: number;
}

const REACHED_DEADLINE_MS = 90_000;
const AS_ONE_DEADLINE_MS = 30_000;
const REFUSED_DEADLINE_MS = 10_000;

export class FaultRun {
  readonly #system: FaultSystem;
  readonly #load: Load;
  readonly #wayBack: boolean;

  constructor(system: FaultSystem, load: Load, wayBack: boolean) {
    this.#system = system;
    this.#load = load;
    this.#wayBack = wayBack;
  }

  /** @throws Error when the fault could not even be made, or the system could not be brought to rest afterwards */
  async run(fault: Fault): Promise<FaultReport> {
    const startedMs = nowMs();
    const rollback = fault.index % 2 === 1;
    await this.#bringTo(rollback ? 'destination' : 'source');
    await this.#load.start();
    const happening = this.#arm(fault);
    const handle = await this.#system.startMove(rollback);
    const { injury, report, fromMs } = await happening;
    await delay(fault.holdMs);
    await injury.heal();
    const toMs = nowMs();
    const outcome = await this.#system.resultOf(handle);
    const violations = [...(await this.#asOne())];
    await this.#load.flows();
    if (!outcome.moved) violations.push(...(await this.#moveAfterAll(rollback)));
    const seen = await this.#load.stop();
    const decision = await decisionOf(this.#system, report.epoch);
    const outage = { nodes: this.#affected(fault, injury, decision), fromMs, toMs };
    const stalled = stalls(this.#load, seen, outage, this.#system.leaseMs);
    violations.push(...stalled.violations, ...(await this.#verdict(rollback, seen)));
    const back = this.#wayBack ? await this.#goBack(rollback) : { wentBack: false, violations: [] };
    violations.push(...back.violations);
    return {
      ...{ fault: fault.index, victim: fault.victim, kind: fault.kind, moment: fault.moment, layout: fault.layout },
      ...{ heading: rollback ? 'reverse' : 'forward', hit: injury.hit, decision, ...told(outcome) },
      wentBack: back.wentBack,
      outageMs: Math.round(toMs - fromMs),
      bystanderStallMs: stalled.bystanderMs,
      affectedStallMs: stalled.affectedMs,
      acknowledged: seen.acknowledged.length,
      unknown: seen.unknown.length,
      errors: errorsOf(seen),
      seconds: Math.round((nowMs() - startedMs) / 100) / 10,
      violations,
    };
  }

  /** The side that serves before the fault follows from its index alone, so that one fault can be repeated by itself. */
  async #bringTo(side: 'source' | 'destination'): Promise<void> {
    if ((await acceptingSides(this.#system)).includes(side)) return;
    const outcome = await this.#system.resultOf(await this.#system.startMove(side === 'source'));
    if (!outcome.moved) throw new Error(`a move without any fault failed: ${outcome.sentence}`);
  }

  /** Resolves once the fault was made, at the first step that fits. */
  #arm(fault: Fault): Promise<Happened> {
    const { steps } = this.#system;
    const happening = new Promise<Happened>((resolve, reject) => {
      const hurt = async (report: StepReport): Promise<void> => {
        steps.onStep = () => Promise.resolve();
        const fromMs = nowMs();
        resolve({ injury: await injure(this.#system, fault, report.process), report, fromMs });
      };
      steps.onStep = async (report) => {
        if (report.step === fault.moment) await hurt(report).catch(reject);
        else if (fault.moment === 'end' && report.step === 'resumeTraffic')
          void this.#resumed(report.epoch)
            .then(() => hurt(report))
            .catch(reject);
      };
    });
    const late = delay(REACHED_DEADLINE_MS, null, { ref: false }).then(() => {
      throw new Error(`the step ${fault.moment} was never reached`);
    });
    late.catch(() => undefined);
    return Promise.race([happening, late]);
  }

  async #resumed(epoch: number): Promise<void> {
    await until('a node has resumed', async () =>
      (await this.#system.nodeLines()).some((n) => Number(n.epoch) >= epoch && n.held_by === ''),
    );
  }

  /** All nodes stand at one epoch, hold nobody, and serve the side that alone accepts writes. */
  async #asOne(): Promise<readonly string[]> {
    const look = async (): Promise<boolean> => {
      const lines = await this.#system.nodeLines();
      const calm = lines.every((n) => n.state === 'serving' && n.problem === null && n.held_by === '');
      return lines.length === this.#system.nodes.length && calm && new Set(lines.map((n) => n.epoch)).size === 1;
    };
    try {
      await until('all nodes stand at one epoch', look, AS_ONE_DEADLINE_MS);
      return [];
    } catch {
      return [`the nodes do not stand as one: ${JSON.stringify(await this.#system.nodeLines())}`];
    }
  }

  /** A move that ended without moving must leave nothing that stops the next one. */
  async #moveAfterAll(rollback: boolean): Promise<readonly string[]> {
    const again = await this.#system.resultOf(await this.#system.startMove(rollback));
    const there = again.moved || again.sentence.includes('nothing to do');
    return there ? [] : [`the move after the fault failed as well: ${again.sentence}`];
  }

  /**
   * Whose clients may have to wait while the fault lasts. A server that does not serve, nor is to, keeps nobody waiting.
   */
  #affected(fault: Fault, injury: Injury, decision: string | null): readonly string[] {
    const committed = decision !== null && decision !== 'aborted';
    const towards = fault.index % 2 === 1 ? 'source' : 'destination';
    const server = (['source', 'destination'] as const).find(
      (s) => fault.victim === s || fault.victim === `node to ${s}`,
    );
    if (server === towards && !committed) return [];
    const afterCommit = ['swapConfiguration', 'resumeTraffic', 'end'].includes(fault.moment);
    if (server !== undefined && server !== towards && afterCommit) return [];
    return injury.nodes;
  }

  async #verdict(rollback: boolean, seen: Seen): Promise<readonly string[]> {
    const [system, load] = [this.#system, this.#load];
    const serving = rollback ? 'source' : 'destination';
    const violations: string[] = [];
    violations.push(...(await nothingPrepared(system)));
    violations.push(...(await oneWriter(system, serving)), ...(await this.#directRefused(serving)));
    await Promise.all(system.directWriters.map((writer) => writer.stop()));
    violations.push(...(await contents(system, load, serving)), ...(await wrongSide(system)));
    for (const writer of system.directWriters) writer.start();
    if (seen.reader.missed.length > 0)
      violations.push(`${seen.reader.missed.length.toString()} acknowledged writes were not found by a later read`);
    violations.push(...(await leftBehind(system)));
    return violations;
  }

  /** A fault must not cost the way back (I5): it is taken, with clients writing, and the same must hold on the other side. */
  async #goBack(rollback: boolean): Promise<{ readonly wentBack: boolean; readonly violations: readonly string[] }> {
    await this.#load.start();
    const outcome = await this.#system.resultOf(await this.#system.startMove(!rollback));
    await this.#load.flows();
    const seen = await this.#load.stop();
    if (!outcome.moved) return { wentBack: false, violations: [`no way back after the fault: ${outcome.sentence}`] };
    const violations = await this.#verdict(!rollback, seen);
    return { wentBack: true, violations: violations.map((violation) => `after the way back: ${violation}`) };
  }

  /** Who writes straight at the side that does not serve is told so by the fence. */
  async #directRefused(serving: string): Promise<readonly string[]> {
    const writers = this.#system.directWriters.filter(({ side }) => side !== serving);
    const before = writers.map(({ refused }) => refused);
    const all = (): boolean => writers.every(({ refused }, index) => refused > (before[index] ?? 0));
    return until('refused', all, REFUSED_DEADLINE_MS).then(
      () => [],
      (error: unknown) => [`a direct writer at the side that does not serve is not refused: ${messageOf(error)}`],
    );
  }
}

function told(outcome: MoveOutcome): Pick<FaultReport, 'moved' | 'attempts' | 'refusal'> {
  return { moved: outcome.moved, attempts: outcome.attempts, refusal: outcome.moved ? null : outcome.sentence };
}

const WORDS_SHOWN = 120;

function errorsOf(seen: Seen): Readonly<Record<string, number>> {
  const errors: Record<string, number> = {};
  for (const { sqlstate, message } of seen.refused) {
    const key = `${sqlstate ?? ''} ${message.slice(0, WORDS_SHOWN)}`.trim();
    errors[key] = (errors[key] ?? 0) + 1;
  }
  return errors;
}
