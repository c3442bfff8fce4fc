/**
 * One task: let events happen one after the other in virtual time, in an order that one number decides.
 *
 * Every event belongs to an actor (a process, a server, the network of a client). While an event runs, and until the
 * microtasks it caused are done, its actor is `current`: timers and connections made meanwhile are that actor's. The events of
 * a dead actor never happen; those of a stalled one happen when it goes on.
 */
import { invariant } from '../../src/errors/invariant.js';
import { Random } from '../history/random.js';

/** Somebody things happen to. A process that is started again is another actor. */
export class Actor {
  readonly name: string;
  alive = true;
  /** virtual time until which nothing of it happens, ms */
  stalledUntil = 0;

  constructor(name: string) {
    this.name = name;
  }
}

export interface Happening {
  at: number;
  readonly tie: number;
  readonly owner: Actor;
  readonly run: () => void;
  /** touches fakes only: no promise of the product waits for it */
  readonly quick: boolean;
  cancelled: boolean;
}

/** The real one: the simulator replaces the global timers while it runs. */
const turn = setImmediate;
const TIES = 2 ** 30;
/** A run that needs more has not come to an end. */
const EVENTS_MAX = 400_000;

export class Scheduler {
  readonly random: Random;
  /** virtual time, ms */
  now = 0;
  events = 0;
  current: Actor;
  /** who sets things going and who looks at them afterwards; never dies */
  readonly outside = new Actor('outside');
  readonly #heap: Happening[] = [];

  constructor(seed: number) {
    this.random = new Random(seed);
    this.current = this.outside;
  }

  /** A number between two bounds. */
  between(low: number, high: number): number {
    return low + (this.random.below(1_000_001) / 1_000_000) * (high - low);
  }

  /** True in `percent` of a hundred cases. */
  chance(percent: number): boolean {
    return this.random.below(100) < percent;
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[this.random.below(choices.length)];
    invariant(choice !== undefined, 'there is something to choose from');
    return choice;
  }

  after(owner: Actor, delayMs: number, run: () => void, quick = false): Happening {
    const at = this.now + Math.max(0, delayMs);
    const happening = { at, tie: this.random.below(TIES), owner, run, quick, cancelled: false };
    this.#push(happening);
    return happening;
  }

  /** Runs until `done`, `untilMs` of virtual time, or nothing is left. */
  async run(done: () => boolean, untilMs: number, afterEach: () => void): Promise<void> {
    while (!done()) {
      const next = this.#heap[0];
      if (!next || next.at > untilMs) return;
      this.#pop();
      const { owner } = next;
      if (next.cancelled || !owner.alive) continue;
      if (owner.stalledUntil > next.at) {
        next.at = owner.stalledUntil;
        this.#push(next);
        continue;
      }
      this.now = next.at;
      this.events += 1;
      invariant(this.events < EVENTS_MAX, `no end after ${EVENTS_MAX.toString()} events`);
      this.current = owner;
      next.run();
      if (!next.quick) await new Promise<void>((resolve) => void turn(resolve));
      this.current = this.outside;
      afterEach();
    }
  }

  #push(happening: Happening): void {
    const heap = this.#heap;
    let index = heap.push(happening) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent];
      if (!above || !before(happening, above)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = happening;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      const left = heap[child];
      if (!left) break;
      const right = heap[child + 1];
      if (right && before(right, left)) child += 1;
      const least = heap[child];
      if (!least || !before(least, last)) break;
      heap[index] = least;
      index = child;
    }
    heap[index] = last;
  }
}

function before(one: Happening, other: Happening): boolean {
  return one.at < other.at || (one.at === other.at && one.tie < other.tie);
}
