/**
 * One task: say of one state whether I1 to I5 hold in it (src/cutover/SPEC.md), and whether it is where I4 wants to end.
 *
 * I4 has two halves. Here is what can be seen in a state: a client that is let through is not refused. The other half, that
 * from every state a way without the engine leads to one serving side, is a property of the graph: explore.ts.
 */
import { DECISION, ENTRY, GATE, KNOWN, SIDE_A, SIDE_B, type State } from './state.js';
import type { World } from './world.js';

export const INVARIANTS = ['I1', 'I2', 'I3', 'I4', 'I5'] as const;
export type Invariant = (typeof INVARIANTS)[number];

/** What is looked at, and whether a state breaks it. */
type Look = readonly [Invariant, (s: State) => boolean];

export class Invariants {
  readonly #world: World;
  readonly #looks: readonly Look[];
  /** whether the half of I4 that is a property of the graph is looked at */
  readonly waysOut: boolean;

  constructor(world: World, watched: readonly Invariant[]) {
    this.#world = world;
    this.waysOut = watched.includes('I4');
    const looks: Look[] = [
      ['I1', (s) => this.#world.accepts(s, SIDE_A) && this.#world.accepts(s, SIDE_B)],
      ['I2', (s) => this.#writeMissing(s)],
      ['I3', (s) => this.#twoDecisions(s)],
      ['I5', (s) => this.#doesNotFlowBack(s)],
    ];
    // After a fail-over a node may stand at a decision that the record has lost, until the fence sends it to ask.
    if (!world.bounds.failover)
      looks.push(['I3', (s) => this.#wrongRoute(s)], ['I4', (s) => this.#refusedBehindOpenGate(s)]);
    this.#looks = looks.filter(([invariant]) => watched.includes(invariant));
  }

  /** The first invariant that does not hold in `s`; null when all do. */
  broken(s: State): Invariant | null {
    for (const [invariant, breaks] of this.#looks) if (breaks(s)) return invariant;
    return null;
  }

  /** Traffic flows on exactly one side: every node is open and leads to the only cluster that accepts writes. */
  served(s: State): boolean {
    const { gate, route } = this.#world.layout.node;
    const side = route.get(s, 0);
    if (!this.#world.record.databasesOf(side).every((d) => this.#world.admits(s, d))) return false;
    if (this.#world.accepts(s, 1 - side)) return false;
    for (let n = 0; n < this.#world.bounds.nodes; n++)
      if (gate.get(s, n) !== GATE.open || route.get(s, n) !== side) return false;
    return true;
  }

  /** I2: an acknowledged write is not on a side that accepts writes. */
  #writeMissing(s: State): boolean {
    const acknowledged = this.#world.layout.whole.acknowledged.get(s);
    return [SIDE_A, SIDE_B].some(
      (side) => this.#world.accepts(s, side) && (acknowledged & ~this.#dataOf(s, side)) !== 0,
    );
  }

  #dataOf(s: State, side: number): number {
    const { data } = this.#world.layout.database;
    return this.#world.record.databasesOf(side).reduce((all, d) => all | data.get(s, d), 0);
  }

  /** I3: two answers were given, or stand in the two records. An answer that its cluster lost and nobody kept is none. */
  #twoDecisions(s: State): boolean {
    for (let a = 0; a < this.#world.bounds.attempts; a++) {
      if (!this.#world.bounds.failover && this.#world.knows(s, a, KNOWN.committed | KNOWN.aborted)) return true;
      const epoch = this.#world.epochOf(s, a);
      const [one, two] = [0, 1].map((d) =>
        this.#world.record.nonce(s, d, epoch) === a ? this.#world.record.decision(s, d, epoch) : DECISION.none,
      );
      if (one === undefined || two === undefined || epoch === 0) continue;
      if (one === DECISION.aborted && this.#world.record.isCommitted(two)) return true;
      if (two === DECISION.aborted && this.#world.record.isCommitted(one)) return true;
    }
    return false;
  }

  /** I3: a node with an open gate leads to another side than the one that was decided. */
  #wrongRoute(s: State): boolean {
    const { gate, route } = this.#world.layout.node;
    const side = this.#world.decidedSide(s);
    for (let n = 0; n < this.#world.bounds.nodes; n++)
      if (gate.get(s, n) === GATE.open && route.get(s, n) !== side) return true;
    return false;
  }

  /** I4: a client is let through to a side that refuses it. */
  #refusedBehindOpenGate(s: State): boolean {
    const { gate, route } = this.#world.layout.node;
    for (let n = 0; n < this.#world.bounds.nodes; n++) {
      if (gate.get(s, n) !== GATE.open) continue;
      if (!this.#world.record.databasesOf(route.get(s, n)).every((d) => this.#world.admits(s, d))) return true;
    }
    return false;
  }

  /** I5: from commit to finalize, an acknowledged write is neither on the old side nor on its way there. */
  #doesNotFlowBack(s: State): boolean {
    const { layout, record } = this.#world;
    const last = this.#world.lastCommitted(s);
    if (last < 0) return false;
    const serving = this.#world.destinationOf(s, last);
    const row = record.decision(s, record.recordOf(serving), this.#world.epochOf(s, last));
    if (row === DECISION.finalizing || row === DECISION.finalized) return false;
    if (layout.whole.removing.get(s) > 0 && serving === SIDE_A) return false;
    // A migration whose old side failed over is not reversible, and says so; a rollback of it is refused.
    if (layout.whole.timeline.get(s) !== 1) return false;
    const missing = layout.whole.acknowledged.get(s) & ~this.#dataOf(s, 1 - serving);
    if (missing === 0) return false;
    if (layout.whole.streamless.get(s) === 1) return true;
    return (missing & ~this.#onTheWay(s, serving)) !== 0;
  }

  #onTheWay(s: State, side: number): number {
    const { entry0, entry1, entry2, entry3, entry4 } = this.#world.layout.database;
    let writes = 0;
    for (const d of this.#world.record.databasesOf(side))
      for (const entry of [entry0, entry1, entry2, entry3, entry4]) {
        const value = entry.get(s, d);
        if (value >= ENTRY.write && value < ENTRY.seal) writes |= 1 << (value - ENTRY.write);
      }
    return writes;
  }
}
