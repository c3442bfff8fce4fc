/**
 * One task: visit every state that can be reached, breadth first, and stop at the first that breaks an invariant.
 *
 * Breadth first: the trace to the state that is found is a shortest one. The other half of I4 is looked at whenever the
 * number of visited states has doubled: a state all of whose ways without the engine have been visited, and none of which
 * came to a serving side, breaks it.
 */
import type { Actor, Rule } from './rule.js';
import type { Invariant, Invariants } from './invariants.js';
import { Numbers, StateStore } from './store.js';
import type { World } from './world.js';

export interface Violation {
  readonly invariant: Invariant;
  /** the names of the rules, from the first state on */
  readonly trace: readonly string[];
}

export interface Result {
  readonly states: number;
  readonly transitions: number;
  /** the longest of the shortest ways to a state */
  readonly depth: number;
  readonly violation: Violation | null;
}

/** Who brings traffic back to one side when no engine is there: nodes, streams, and who promotes a standby. */
const WITHOUT_ENGINE: readonly Actor[] = ['node', 'stream', 'operator'];
const FIRST_LOOK = 1 << 10;

export class Explorer {
  readonly #rules: readonly Rule[];
  readonly #helps: readonly boolean[];
  readonly #invariants: Invariants;
  readonly #canonical: (s: Uint8Array) => void;
  readonly #store: StateStore;
  readonly #parent = new Numbers();
  readonly #rule = new Numbers();
  readonly #depth = new Numbers();
  /** the ways without the engine out of state i: #helpers from #helpersFrom(i) on */
  readonly #helpers = new Numbers();
  readonly #helpersFrom = new Numbers();
  readonly #current: Uint8Array;
  readonly #next: Uint8Array;
  readonly #currentWords: Int32Array;
  readonly #nextWords: Int32Array;

  constructor(world: World, rules: readonly Rule[], invariants: Invariants, limit: number) {
    const { width } = world.layout;
    this.#rules = rules;
    this.#helps = rules.map((rule) => WITHOUT_ENGINE.includes(rule.actor));
    this.#invariants = invariants;
    this.#canonical = (s) => {
      world.canonical(s);
    };
    this.#store = new StateStore(width, limit);
    this.#current = new Uint8Array(width);
    this.#next = new Uint8Array(width);
    this.#currentWords = new Int32Array(this.#current.buffer);
    this.#nextWords = new Int32Array(this.#next.buffer);
    this.#next.set(world.initial());
  }

  run(): Result {
    this.#visit(-1, -1, 0);
    let transitions = 0;
    let look = FIRST_LOOK;
    for (let i = 0; i < this.#store.count; i++) {
      if (i === look) {
        const stuck = this.#stuck(i);
        if (stuck >= 0) return this.#result(transitions, { invariant: 'I4', trace: this.#trace(stuck) });
        look *= 2;
      }
      this.#helpersFrom.push(this.#helpers.length);
      this.#store.read(i, this.#currentWords);
      for (let r = 0; r < this.#rules.length; r++) {
        this.#nextWords.set(this.#currentWords);
        if (this.#rules[r]?.step(this.#next) !== true) continue;
        transitions += 1;
        const before = this.#store.count;
        const number = this.#visit(i, r, this.#depth.at(i) + 1);
        if (this.#helps[r] === true) this.#helpers.push(number);
        if (number < before) continue;
        const invariant = this.#invariants.broken(this.#next);
        if (invariant) return this.#result(transitions, { invariant, trace: this.#trace(number) });
      }
    }
    const stuck = this.#stuck(this.#store.count);
    return this.#result(transitions, stuck < 0 ? null : { invariant: 'I4', trace: this.#trace(stuck) });
  }

  #visit(parent: number, rule: number, depth: number): number {
    this.#canonical(this.#next);
    const before = this.#store.count;
    const number = this.#store.add(this.#nextWords);
    if (this.#store.count > before) {
      this.#parent.push(parent);
      this.#rule.push(rule);
      this.#depth.push(depth);
    }
    return number;
  }

  /**
   * The first of the `visited` states from which no way without the engine leads to one serving side; -1 when there is none.
   * A way that leaves the visited states may still come to a good end.
   */
  #stuck(visited: number): number {
    if (!this.#invariants.waysOut) return -1;
    const good = new Uint8Array(visited);
    const state = new Uint8Array(this.#current.length);
    const words = new Int32Array(state.buffer);
    for (let i = 0; i < visited; i++) {
      this.#store.read(i, words);
      if (this.#invariants.served(state)) good[i] = 1;
    }
    // Ways mostly lead to higher numbers, so a sweep from the end settles nearly all; until one changes nothing.
    for (let changed = true; changed;) {
      changed = false;
      for (let i = visited - 1; i >= 0; i--)
        if (good[i] === 0 && this.#leadsToGood(i, visited, good)) {
          good[i] = 1;
          changed = true;
        }
    }
    return good.indexOf(0);
  }

  #leadsToGood(i: number, visited: number, good: Uint8Array): boolean {
    const end = i + 1 < this.#helpersFrom.length ? this.#helpersFrom.at(i + 1) : this.#helpers.length;
    for (let k = this.#helpersFrom.at(i); k < end; k++) {
      const target = this.#helpers.at(k);
      if (target >= visited || good[target] === 1) return true;
    }
    return false;
  }

  #trace(number: number): readonly string[] {
    const names: string[] = [];
    for (let i = number; this.#parent.at(i) >= 0; i = this.#parent.at(i))
      names.push(this.#rules[this.#rule.at(i)]?.name ?? '?');
    return names.reverse();
  }

  #result(transitions: number, violation: Violation | null): Result {
    return {
      states: this.#store.count,
      transitions,
      depth: this.#depth.at(this.#store.count - 1),
      violation,
    };
  }
}
