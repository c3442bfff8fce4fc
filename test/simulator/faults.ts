/**
 * One task: choose the faults of a seed and let each happen after the event it was chosen for.
 *
 * Events that count are the eight steps, the calls of the record's functions and the commands to nodes, of one attempt.
 */
import type { EpochPlan } from '../../src/cutover/contract.js';
import { Random } from '../history/random.js';
import type { World } from './world.js';

export const FAULT_KINDS = [
  'crash',
  'stall',
  'repetition',
  'message again',
  'abort by an operator',
  'database stalls',
  'database restarts',
  'stream stalls',
  'connection goes silent',
  'way back lost before',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

interface Fault {
  readonly kind: FaultKind;
  readonly attempt: number;
  /** events of the attempt that come before it */
  readonly after: number;
  readonly delayMs: number;
  readonly lengthMs: number;
  /** chooses the victim */
  readonly choice: number;
  /** its time has been set */
  fired: boolean;
  happened: boolean;
}

const WEIGHTS: readonly (readonly [FaultKind, number])[] = [
  ['crash', 25],
  ['stall', 22],
  ['repetition', 22],
  ['message again', 18],
  ['abort by an operator', 9],
  ['database stalls', 6],
  ['database restarts', 5],
  ['stream stalls', 4],
  ['connection goes silent', 4],
  ['way back lost before', 3],
];
/** The node's deadline of a statement: until then nothing tells that nobody answers. */
const SILENCE_NOTICED_MS = 5_500;
const EVENTS_OF_AN_ATTEMPT = 30;

export class Faults {
  readonly planned: readonly Fault[];
  /** which course of epochs the faults of the seed are about */
  readonly shape: 'any' | 'abort then retry' | 'there and back';
  readonly #world: World;
  #attempt = 0;
  #events = 0;

  constructor(world: World, seed: number) {
    this.#world = world;
    const random = new Random(seed, 7);
    this.shape = random.pick(['any', 'any', 'abort then retry', 'abort then retry', 'there and back']);
    const count = this.shape === 'any' ? random.pick([0, 0, 1, 1, 2, 3]) : 1 + random.below(3);
    const attempts = this.shape === 'any' ? ([1, 1, 1, 2, 2, 3] as const) : ([1, 2, 2, 2, 2] as const);
    this.planned = [
      ...(this.shape === 'abort then retry' ? [earlyAbort(random)] : []),
      ...Array.from({ length: count }, () => chosen(random, attempts)),
    ];
  }

  get description(): string {
    return this.planned
      .map((f) => `${f.kind} after event ${f.after.toString()} of attempt ${f.attempt.toString()}`)
      .join('; ');
  }

  /** Those that happened, in the order they were chosen. */
  get happenedKinds(): readonly FaultKind[] {
    return this.planned.filter((fault) => fault.happened).map((fault) => fault.kind);
  }

  get silenced(): boolean {
    return this.planned.some((fault) => fault.fired && fault.kind === 'connection goes silent');
  }

  /** Before anything runs. */
  begin(): void {
    for (const fault of this.planned) if (fault.kind === 'way back lost before') this.#fire(fault);
  }

  attemptBegins(plan: EpochPlan): void {
    this.#attempt += 1;
    this.#events = 0;
    this.#world.trace(() => `attempt ${this.#attempt.toString()}: epoch ${plan.epoch.toString()}`);
    this.happened();
  }

  /** The moves are over: what has not come yet comes late. */
  movesOver(): void {
    for (const fault of this.planned) {
      if (fault.fired) continue;
      fault.fired = true;
      this.#world.scheduler.after(this.#world.scheduler.outside, fault.delayMs, () => {
        this.#fire(fault);
      });
    }
  }

  /** One of the events that faults are counted by. */
  happened(): void {
    if (this.#attempt === 0) return;
    this.#events += 1;
    for (const fault of this.planned) {
      if (fault.fired || fault.attempt !== this.#attempt || fault.after > this.#events) continue;
      fault.fired = true;
      this.#world.scheduler.after(this.#world.scheduler.outside, fault.delayMs, () => {
        this.#fire(fault);
      });
    }
  }

  #fire(fault: Fault): void {
    fault.fired = true;
    fault.happened = true;
    const world = this.#world;
    const { scheduler } = world;
    world.trace(() => `FAULT: ${fault.kind}, ${fault.lengthMs.toFixed(0)} ms`);
    world.invariants.disturbed = true;
    const nth = <T>(list: readonly T[]): T | undefined => list[fault.choice % Math.max(1, list.length)];
    switch (fault.kind) {
      case 'crash': {
        const victim = nth(world.processes.filter((p) => p.running));
        victim?.crash();
        scheduler.after(scheduler.outside, fault.lengthMs, () => victim?.start());
        return;
      }
      case 'stall': {
        const victim = nth(world.processes.filter((p) => p.running));
        world.trace(() => `${victim?.actor.name ?? 'nobody'} stalls`);
        if (victim) victim.actor.stalledUntil = scheduler.now + fault.lengthMs;
        if (victim?.serves === true) world.invariants.allowanceMs += fault.lengthMs;
        return;
      }
      case 'repetition': {
        const call = nth(world.temporal.calls);
        const worker = nth(world.workers);
        if (call && worker) world.temporal.repeat(call, worker);
        return;
      }
      case 'message again': {
        // Who was stalled between two messages sends what follows as well.
        const first = fault.choice % Math.max(1, world.messages.length);
        for (const [index, message] of world.messages.slice(first, first + 1 + (fault.choice % 4)).entries())
          scheduler.after(scheduler.outside, index * scheduler.between(0, 2), () => {
            world.deliverAgain(message);
          });
        return;
      }
      case 'abort by an operator': {
        const plan = world.temporal.plans.at(-1);
        if (plan) world.temporal.operatorAborts(plan);
        return;
      }
      case 'database stalls': {
        const victim = nth(world.databases);
        world.invariants.allowanceMs += fault.lengthMs;
        if (victim) victim.stalledUntil = scheduler.now + fault.lengthMs;
        return;
      }
      case 'database restarts': {
        const victim = nth(world.databases);
        world.invariants.allowanceMs += fault.lengthMs;
        if (victim) world.restartDatabase(victim, fault.lengthMs);
        return;
      }
      case 'stream stalls':
        nth(world.streams)?.stall(fault.lengthMs);
        return;
      case 'connection goes silent': {
        const victim = nth([...world.clients].filter((client) => client.owner.alive));
        world.trace(() => `the connection of ${victim?.owner.name ?? 'nobody'} to ${victim?.host ?? 'nowhere'}`);
        if (victim) victim.silent = true;
        world.invariants.allowanceMs += SILENCE_NOTICED_MS;
        return;
      }
      case 'way back lost before': {
        const wayBack = world.streams[1];
        if (wayBack) wayBack.broken = true;
        return;
      }
    }
  }
}

/** An operator gives the first attempt up, or its proof takes too long: there is a second one, and leftovers of the first. */
function earlyAbort(random: Random): Fault {
  const kind = random.pick<FaultKind>(['abort by an operator', 'abort by an operator', 'stream stalls']);
  return { ...of(random, kind, 1), after: 1 + random.below(14), delayMs: 0, lengthMs: 400 + random.below(400) };
}

function chosen(random: Random, attempts: readonly [number, ...number[]]): Fault {
  const total = WEIGHTS.reduce((sum, [, weight]) => sum + weight, 0);
  let left = random.below(total);
  const [kind] = WEIGHTS.find(([, weight]) => (left -= weight) < 0) ?? ['crash'];
  return of(random, kind, random.pick(attempts));
}

function of(random: Random, kind: FaultKind, attempt: number): Fault {
  const longest = kind === 'crash' || kind === 'stall' ? 1_800 : 700;
  return {
    kind,
    attempt,
    after: 1 + random.below(EVENTS_OF_AN_ATTEMPT),
    delayMs: random.pick([0, 0, 0, 0, 0, 1, 10, 300, 800, 1_500]) * (random.below(100) / 100),
    lengthMs: 5 + random.below(longest),
    choice: random.below(1_000_000),
    fired: false,
    happened: false,
  };
}
