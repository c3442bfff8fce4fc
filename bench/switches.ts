/** One task: sum up what the writers saw of many switches. */
import { median, rounded } from './statistics.js';

/** What the writers saw of one switch. */
export interface Switch {
  readonly epoch: number;
  /** longest time between two consecutive acknowledged writes of all writers */
  readonly gapMs: number;
  /** longest wait of one writer for one answer */
  readonly stallMs: number;
  /** longest time that the disk needed for a page beside it (disk-probe.ts) */
  readonly longestSyncMs: number;
  readonly pausedMs: number;
  /** attempts that were given up before this one */
  readonly aborted: number;
  readonly stepMs: Readonly<Record<string, number>>;
}

export interface Run {
  readonly cutover: Switch;
  readonly rollback: Switch;
  readonly errors: number;
  /** how much longer each call to Temporal took */
  readonly temporalDelayMs: number;
  /** from the rollback's command to its answer, for which Temporal is called: shows whether it was slow */
  readonly commandMs: number;
}

/**
 * Whether calls to Temporal take longer in this run, the first one being 1. From the second run on slowed, not, not, slowed: what drifts
 * while the bench goes on drifts for both alike.
 */
export function isSlowed(run: number): boolean {
  return run % 4 === 1 || run % 4 === 2;
}

/** The switches with a slowed Temporal beside those without, of the same minutes; the first run is cold and in neither. */
export function slowedSummary(temporalDelayMs: number, runs: readonly Run[]): Readonly<Record<string, unknown>> {
  if (temporalDelayMs === 0) return { temporalDelayMs };
  const switchesOf = (slowed: boolean): readonly Switch[] =>
    runs
      .slice(1)
      .filter((run) => run.temporalDelayMs > 0 === slowed)
      .flatMap(({ cutover, rollback }) => [cutover, rollback]);
  const [slowed, usual] = [switchesOf(true), switchesOf(false)];
  if (slowed.length === 0 || usual.length === 0) return { temporalDelayMs };
  const gap = (switches: readonly Switch[]): number => median(switches.map(({ gapMs }) => gapMs));
  const growthPercent = rounded((gap(slowed) / gap(usual) - 1) * 100);
  return { temporalDelayMs, slowed: sumOf(slowed), usual: sumOf(usual), medianGapGrowthPercent: growthPercent };
}

/** A disk that needs longer for one page stands still: no server can acknowledge a write in that time. */
const SYNC_MS_MAX = 50;

/** The worst of those switches in which the disk did not stand still, and how many those are. */
function onQuickDisk(switches: readonly Switch[]): Readonly<Record<string, unknown>> {
  const quick = switches.filter(({ longestSyncMs }) => longestSyncMs <= SYNC_MS_MAX);
  return { switches: quick.length, worstGapMs: rounded(Math.max(0, ...quick.map(({ gapMs }) => gapMs))) };
}

/** Medians and the worst of some switches. */
export function sumOf(switches: readonly Switch[]): Readonly<Record<string, unknown>> {
  const gaps = switches.map(({ gapMs }) => gapMs);
  const names = Object.keys(switches[0]?.stepMs ?? {});
  const step = (name: string): number => rounded(median(switches.map(({ stepMs }) => stepMs[name] ?? NaN)), 2);
  return {
    medianGapMs: rounded(median(gaps)),
    worstGapMs: rounded(Math.max(...gaps)),
    longestSyncMs: Math.max(...switches.map(({ longestSyncMs }) => longestSyncMs)),
    onQuickDisk: onQuickDisk(switches),
    medianStallMs: rounded(median(switches.map(({ stallMs }) => stallMs))),
    medianPausedMs: rounded(median(switches.map(({ pausedMs }) => pausedMs))),
    worstPausedMs: rounded(Math.max(...switches.map(({ pausedMs }) => pausedMs))),
    aborted: switches.reduce((sum, { aborted }) => sum + aborted, 0),
    medianStepMs: Object.fromEntries(names.map((name) => [name, step(name)])),
  };
}
