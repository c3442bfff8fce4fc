/** One task: say which fault a seed and an index stand for, and which faults the fixed set has. */
import { STEPS, type Step } from '../../src/cutover/epoch.js';
import { Random } from '../history/random.js';
import type { Weather } from '../../src/dev/chaos-proxy.js';

/** `step process` takes the step: a node with a worker in it, or the worker apart. */
export const PROCESSES = ['step process', 'other node', 'temporal', 'source', 'destination'] as const;
/** The engine's sessions at the server that serves, where it seals and decides: they take what they are sent, and act on it later. */
export const SESSION = 'engine session';
export const PATHS = ['node to source', 'node to destination', 'engine to node'] as const;
export type ProcessVictim = (typeof PROCESSES)[number];
export type PathVictim = (typeof PATHS)[number];

/** Before the step of this name, which is also after the step before it; `end`: after the last. */
export type Moment = Step | 'end';
export const MOMENTS: readonly [Moment, ...Moment[]] = [STEPS[0], ...STEPS.slice(1), 'end'];

/** `together`: each node has a worker in it; `apart`: the worker is a process of its own. */
export type Layout = 'together' | 'apart';

interface Place {
  readonly index: number;
  readonly layout: Layout;
  readonly moment: Moment;
  /** how long the fault lasts */
  readonly holdMs: number;
  /** chooses among nodes that are alike */
  readonly choice: number;
}

export type Fault = Place &
  (
    | { readonly victim: ProcessVictim; readonly kind: 'kill' | 'stop' }
    | { readonly victim: typeof SESSION; readonly kind: 'stop' }
    | { readonly victim: PathVictim; readonly kind: Exclude<Weather, 'calm'> }
  );

/** Faults that one system meets before it is ended and a fresh one started. */
export const FAULTS_PER_SYSTEM = 12;

/** A stopped process must oversleep the lease; a killed one may be back before its end, or after it. */
const STOP_LEASES = 1.5;
/** What a session that hung was sent is done when the nodes have long decided: a lease and a third after it fell silent, at the latest. */
const HANG_LEASES = 2.5;
const HOLD_LEASES: readonly [number, ...number[]] = [0.5, 1.5];

/** The fault with this index; the same again for the same seed, whatever was run before it. */
export function faultAt(seed: number, index: number, leaseMs: number): Fault {
  const random = new Random(seed, index);
  const system = Math.floor(index / FAULTS_PER_SYSTEM);
  const layout = system % 2 === 0 ? 'together' : 'apart';
  const moment = random.pick(MOMENTS);
  const choice = random.below(1_000);
  const hold = random.pick(HOLD_LEASES) * leaseMs;
  const place = { index, layout, moment, choice } as const;
  const victims = [...PROCESSES, ...PATHS, SESSION] as const;
  const victim = random.pick(victims);
  if (victim === SESSION) return { ...place, victim, kind: 'stop', holdMs: HANG_LEASES * leaseMs };
  if (isPath(victim)) {
    const kind = random.pick(['blackhole', 'half-open', 'reset', 'slow'] as const);
    return { ...place, victim, kind, holdMs: hold };
  }
  const kind = random.pick(['kill', 'stop'] as const);
  return { ...place, victim, kind, holdMs: kind === 'stop' ? STOP_LEASES * leaseMs : hold };
}

function isPath(victim: ProcessVictim | PathVictim): victim is PathVictim {
  return PATHS.some((path) => path === victim);
}

/** Victims at the moments they are hit: the layouts share them, so that each process is hit once at every moment. */
type FixedVictims = readonly (readonly [ProcessVictim | typeof SESSION | 'a path', readonly Moment[]])[];
const FIXED: Readonly<Record<Layout, FixedVictims>> = {
  together: [
    ['source', MOMENTS],
    ['destination', MOMENTS],
    ['a path', MOMENTS],
    // Where what comes late would decide or open something.
    [SESSION, ['sealSource', 'commitCutover', 'swapConfiguration']],
  ],
  apart: [
    ['step process', MOMENTS],
    ['other node', MOMENTS],
    ['temporal', MOMENTS],
  ],
};
const FIXED_KINDS = ['blackhole', 'half-open', 'reset', 'slow'] as const;

/** Each process at each moment once, and one path in turn, the kinds in turn: what every change must pass. */
export function fixedFaults(layout: Layout, leaseMs: number): readonly Fault[] {
  const pairs = FIXED[layout].flatMap(([victim, moments]) => moments.map((moment) => ({ victim, moment })));
  return pairs.map(({ victim, moment }, index): Fault => {
    const place = { index, layout, moment, choice: index } as const;
    const turn = index + Math.floor(index / MOMENTS.length);
    if (victim === 'a path') {
      const path = PATHS[index % PATHS.length] ?? PATHS[0];
      const kind = FIXED_KINDS[turn % FIXED_KINDS.length] ?? 'reset';
      return { ...place, victim: path, kind, holdMs: leaseMs * STOP_LEASES };
    }
    if (victim === SESSION) return { ...place, victim, kind: 'stop', holdMs: HANG_LEASES * leaseMs };
    const kill = turn % 2 === 0;
    return { ...place, victim, kind: kill ? 'kill' : 'stop', holdMs: leaseMs * (kill ? 0.5 : STOP_LEASES) };
  });
}
