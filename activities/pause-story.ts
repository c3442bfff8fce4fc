/** One task: note what was done in one run through the pause, with its milliseconds, and where it failed. */
import type { EpochPlan } from '../src/cutover/contract.js';
import {
  begun,
  decide,
  evolve,
  SEQUENCE_OF,
  type EpochEvent,
  type EpochState,
  type Step,
} from '../src/cutover/epoch.js';
import type { RecordedEvent } from '../src/postgres/record.js';

/** Clients are held from the beginning of the first step and let go by the end of the last one. */
const TIMED: Partial<Record<Step, (start: number, end: number) => number>> = {
  pauseTraffic: (start) => start,
  resumeTraffic: (_, end) => end,
};

/** ISO time on the monotonic clock: a clock of the machine that is set within the pause must not change how long it was. */
function isoTime(monotonicMs: number): string {
  return new Date(performance.timeOrigin + monotonicMs).toISOString();
}

/** The story of one run through the pause: what was done, in the state machine's own events. */
export class Story {
  #state: EpochState;
  readonly events: EpochEvent[] = [];

  constructor(epoch: number, earlier: readonly EpochEvent[] = []) {
    this.#state = earlier.reduce(evolve, begun(epoch));
  }

  /** Runs a step and notes its event with its milliseconds, and when clients were held and let go: what `paused_ms` is made of. */
  async step<T>(step: Step, work: () => Promise<T>, tell: (result: T) => Record<string, unknown>): Promise<T> {
    const start = performance.now();
    const result = await work();
    const end = performance.now();
    const at = TIMED[step]?.(start, end);
    this.done(step, { ms: roundMs(end - start), ...tell(result), ...(at === undefined ? {} : { at: isoTime(at) }) });
    return result;
  }

  done(step: Step, data: Record<string, unknown>): void {
    for (const event of decide(this.#state, step, data)) {
      this.#state = evolve(this.#state, event);
      this.events.push(event);
    }
  }

  get recorded(): readonly RecordedEvent[] {
    return this.events.map((e) => ({ sequence: SEQUENCE_OF[e.type], type: e.type, data: e.data }));
  }
}

export type Parity = { readonly parity: 'exact' } | { readonly parity: 'waived'; readonly reason: string };

/** What the audit trail says for good of a swap that an operator wanted without parity. */
export function waiver(waitedMs: number, missing: string): string {
  return (
    `parity was waived (acceptLoss): after ${waitedMs.toString()} ms the destination was not level (${missing}); ` +
    'writes acknowledged before the switch may be missing on the side that serves now'
  );
}

/** What the audit trail says for good of a move without a fence; nothing where there was one. */
export function unfenced(plan: EpochPlan): Record<string, unknown> {
  if (plan.fence !== 'off') return {};
  const reason =
    'the fence was off (cutover_fence): a write that bypassed the proxy may be lost, or have been made on the wrong side';
  return { fence: 'off', reason };
}

/** What the seal of one shard of the source answered. */
export interface Sealed {
  readonly lsn: string;
  /** how many tables it found published; null in a story that does not say */
  readonly tables: number | null;
}

/** The seals of a story, by shard. Of a source with one shard `lsn` is all that must be known. */
export function sealsTold(earlier: readonly EpochEvent[], lsn: string): readonly Sealed[] {
  const data = earlier.find((event) => event.type === 'SourceSealed')?.data;
  if (Array.isArray(data?.shards)) return data.shards as readonly Sealed[];
  return [{ lsn, tables: typeof data?.tables === 'number' ? data.tables : null }];
}

/** Of steps that run side by side the one that fails first is where the attempt failed. */
export function firstFailureAt(at: (step: Step) => void): <T>(step: Step, work: Promise<T>) => Promise<T> {
  let failed = false;
  return async (step, work) => {
    try {
      return await work;
    } catch (error) {
      if (!failed) at(step);
      failed = true;
      throw error;
    }
  };
}

/** Hundredths of a millisecond are what the clock is worth. */
export function roundMs(ms: number): number {
  return Math.round(ms * 100) / 100;
}
