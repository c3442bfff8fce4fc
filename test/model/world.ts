/** One task: what every actor of the model needs: the record, what engines know, and the epoch brought to its end. */
import {
  EVENT_OF,
  PHASE_AFTER,
  PHASES,
  TRANSITIONS,
  type Command,
  type Outcome,
  type Phase,
} from '../../src/cutover/epoch.js';
import { invariant } from '../../src/errors/invariant.js';
import type { Guard } from './guards.js';
import { RecordFunctions, type Decided } from './record.js';
import { DECISION, FENCE, GATE, KNOWN, Layout, otherSide, SIDE_A, type Bounds, type State } from './state.js';

export type Transitions = typeof TRANSITIONS;

/** What the records that can be read say together (`servingOf` of src/fleet/resolution.ts). */
export interface Serving {
  epoch: number;
  side: number;
  /** the attempt whose epoch somebody began and nobody decided; -1 when there is none */
  open: number;
  /** the attempt of the last decision, whose side still refuses writes; -1 when there is none */
  unfinished: number;
}

const phaseNumber = new Map<Phase, number>(PHASES.map((phase, place) => [phase, place + 1]));

export class World {
  readonly bounds: Bounds;
  readonly layout: Layout;
  readonly record: RecordFunctions;
  readonly #transitions: Transitions;

  constructor(bounds: Bounds, without: readonly Guard[] = [], transitions: Transitions = TRANSITIONS) {
    this.bounds = bounds;
    this.layout = new Layout(bounds);
    this.record = new RecordFunctions(this.layout, new Set(without));
    this.#transitions = transitions;
  }

  has(guard: Guard): boolean {
    return this.record.has(guard);
  }

  /** Side A serves, side B is fenced since its schema was made, and nothing has begun. */
  initial(): State {
    const { layout } = this;
    const s = new Uint8Array(layout.width);
    layout.database.fenceState.set(s, FENCE.closed, this.record.recordOf(1));
    layout.database.flag.set(s, 1, this.record.recordOf(1));
    layout.whole.timeline.set(s, 1);
    layout.whole.wayBack.set(s, this.has('wayBackIsMadeAhead') ? 1 : 0);
    return s;
  }

  // ── the story of an attempt, by the product's own table ───────────────────────────────────────────────────────────────

  phase(s: State, attempt: number): Phase | null {
    return PHASES[this.layout.attempt.phase.get(s, attempt) - 1] ?? null;
  }

  /** What the transition table says of a step now; `refuse` before the epoch has begun. */
  outcome(s: State, attempt: number, command: Command): Outcome {
    const phase = this.phase(s, attempt);
    return phase === null ? 'refuse' : this.#transitions[phase][command];
  }

  outcomeIn(phase: Phase, command: Command): Outcome {
    return this.#transitions[phase][command];
  }

  /** The step was done: its event leads to the next phase, where the table calls for one. */
  advance(s: State, attempt: number, command: Command): void {
    if (this.outcome(s, attempt, command) !== 'do') return;
    const number = phaseNumber.get(PHASE_AFTER[EVENT_OF[command]]);
    invariant(number, 'every event leads to a phase');
    this.layout.attempt.phase.set(s, number, attempt);
  }

  knows(s: State, attempt: number, fact: number): boolean {
    return (this.layout.attempt.known.get(s, attempt) & fact) === fact;
  }

  learn(s: State, attempt: number, fact: number): void {
    const { known } = this.layout.attempt;
    known.set(s, known.get(s, attempt) | fact, attempt);
  }

  epochOf(s: State, attempt: number): number {
    return this.layout.attempt.epoch.get(s, attempt);
  }

  sourceOf(s: State, attempt: number): number {
    return this.layout.attempt.source.get(s, attempt);
  }

  destinationOf(s: State, attempt: number): number {
    return otherSide(this.sourceOf(s, attempt));
  }

  // ── resolveEpoch of src/fleet/resolution.ts, in the calls between which a process may stall ───────────────────────────

  /**
   * Undecided → tries the abort. What the record then says; null when nobody can say.
   *
   * The door and the abort are one step here: what may come between them is only a late `open`, which finds the door shut.
   */
  askForAbort(s: State, attempt: number): Decided | null {
    const epoch = this.epochOf(s, attempt);
    const source = this.sourceOf(s, attempt);
    const destination = otherSide(source);
    if (!this.record.reachable(s, source)) return this.#byDestinationAlone(s, epoch, destination);
    const row = this.record.recordOf(source);
    const state = this.record.decision(s, row, epoch);
    if (state !== DECISION.none && !this.record.isCommitted(state) && this.#failedOver(s, row, epoch)) {
      if (!this.record.reachable(s, destination)) return null;
      if (this.record.refuse(s, this.record.recordOf(destination), epoch, this.record.nonce(s, row, epoch)))
        return this.#byDestinationAlone(s, epoch, destination);
    }
    return this.record.abort(s, row, epoch);
  }

  #failedOver(s: State, row: number, epoch: number): boolean {
    if (!this.has('doorComesBeforeTheAbort') || !this.has('timelineIsPinned')) return false;
    const pinned = this.layout.attempt.pinned.get(s, this.record.nonce(s, row, epoch));
    return pinned !== this.record.timelineOf(s, this.sourceOf(s, this.record.nonce(s, row, epoch)));
  }

  #byDestinationAlone(s: State, epoch: number, destination: number): Decided | null {
    if (!this.record.reachable(s, destination)) return null;
    const state = this.record.decision(s, this.record.recordOf(destination), epoch);
    return this.record.isCommitted(state) ? 'committed' : null;
  }

  /** `openDestination`: row first, flag second. False when the destination cannot be reached. */
  goForward(s: State, attempt: number): boolean {
    const destination = this.destinationOf(s, attempt);
    if (!this.record.reachable(s, destination)) return false;
    const database = this.record.recordOf(destination);
    this.openDoor(s, attempt);
    this.record.lower(s, database, this.epochOf(s, attempt));
    return true;
  }

  /** `cutover.open` alone. */
  openDoor(s: State, attempt: number): void {
    const database = this.record.recordOf(this.destinationOf(s, attempt));
    const pinnedPeer = this.layout.attempt.pinnedPeer.get(s, attempt);
    this.record.open(s, database, this.epochOf(s, attempt), attempt, pinnedPeer);
  }

  /** `releaseSource` on every shard, then `refuseDestination`. False when the source raised or cannot be reached. */
  goBack(s: State, attempt: number): boolean {
    const source = this.sourceOf(s, attempt);
    const epoch = this.epochOf(s, attempt);
    if (!this.record.reachable(s, source)) return false;
    for (const database of this.record.databasesOf(source)) {
      if (!this.record.release(s, database, epoch)) return false;
      this.record.lower(s, database, epoch);
    }
    const destination = otherSide(source);
    if (this.record.reachable(s, destination)) this.record.refuse(s, this.record.recordOf(destination), epoch, attempt);
    return true;
  }

  /** Whether `openDestination` has answered somebody: the door was opened by this epoch and the flag lowered. */
  hasOpened(s: State, attempt: number): boolean {
    const database = this.record.recordOf(this.destinationOf(s, attempt));
    const epoch = this.epochOf(s, attempt);
    if (this.layout.database.fenceEpoch.get(s, database) > epoch)
      return this.record.isCommitted(this.record.decision(s, database, epoch));
    return this.#standsOpen(s, database, epoch);
  }

  /** Whether `releaseSource` has answered somebody on every shard: the row is this epoch's, or a later one's. */
  hasReleased(s: State, attempt: number): boolean {
    const epoch = this.epochOf(s, attempt);
    return this.record
      .databasesOf(this.sourceOf(s, attempt))
      .every((d) => this.layout.database.fenceEpoch.get(s, d) > epoch || this.#standsOpen(s, d, epoch));
  }

  #standsOpen(s: State, database: number, epoch: number): boolean {
    const { fenceEpoch, fenceState } = this.layout.database;
    if (fenceEpoch.get(s, database) !== epoch || fenceState.get(s, database) !== FENCE.open) return false;
    return !this.record.flagIsUp(s, database);
  }

  /**
   * Of the states that differ in nothing that can still be told apart, one stands for all: nodes in any order, and a node that
   * holds clients whichever side it routes to, since every step that opens its gate sets the side.
   */
  canonical(s: State): void {
    const { hold, route } = this.layout.node;
    if (this.has('resumeSetsTheRoute'))
      for (let n = 0; n < this.bounds.nodes; n++) if (hold.get(s, n) !== 0) route.set(s, 0, n);
    this.layout.sortNodes(s);
  }

  // ── servingOf of src/fleet/resolution.ts ──────────────────────────────────────────────────────────────────────────────

  /** The highest decided epoch says who serves. Null when no epoch ever began, as far as can be read. */
  servingOf(s: State): Serving | null {
    let newest = 0;
    let last = 0;
    for (let epoch = 2; epoch >= 1 && last === 0; epoch--) {
      const state = this.#mergedState(s, epoch);
      if (state === DECISION.none) continue;
      if (newest === 0) newest = epoch;
      if (this.#isDecided(state)) last = epoch;
    }
    if (newest === 0) return null;
    const base = this.#mergedAttempt(s, last === 0 ? newest : last);
    const moved = last !== 0 && this.record.isCommitted(this.#mergedState(s, last));
    const side = moved ? this.destinationOf(s, base) : this.sourceOf(s, base);
    const unfinished = this.record.reachable(s, side) && this.#stillBars(s, side, last);
    return {
      epoch: last,
      side,
      open: newest === last ? -1 : this.#mergedAttempt(s, newest),
      unfinished: newest === last && unfinished ? base : -1,
    };
  }

  /**
   * Whether who decided died before acting on it. On a shard without the decision's row only the tombstone keeps a late seal
   * out, so a shard that does not have it yet is not finished either.
   */
  #stillBars(s: State, side: number, epoch: number): boolean {
    const [first, ...others] = this.record.databasesOf(side);
    if (first === undefined || this.record.flagIsUp(s, first)) return true;
    if (!this.has('everyShardIsAsked')) return false;
    return others.some((d) => this.record.flagIsUp(s, d) || this.layout.database.fenceEpoch.get(s, d) < epoch);
  }

  #isDecided(state: number): boolean {
    return state === DECISION.aborted || this.record.isCommitted(state);
  }

  /** The row of side A, unless only side B has one or only side B knows the outcome; 0 or the database to read it from. */
  #knownBy(s: State, epoch: number): number {
    const own = this.record.reachable(s, SIDE_A) ? this.record.decision(s, 0, epoch) : DECISION.none;
    const copy = this.record.decision(s, 1, epoch);
    if (own === DECISION.none) return 1;
    return !this.#isDecided(own) && this.#isDecided(copy) ? 1 : 0;
  }

  #mergedState(s: State, epoch: number): number {
    const database = this.#knownBy(s, epoch);
    return this.record.decision(s, database, epoch);
  }

  #mergedAttempt(s: State, epoch: number): number {
    return this.record.nonce(s, this.#knownBy(s, epoch), epoch);
  }

  /** The attempt whose commit stands last, wherever it is written; -1 before any. */
  lastCommitted(s: State): number {
    for (let epoch = 2; epoch >= 1; epoch--)
      for (let database = 0; database < 2; database++)
        if (this.record.isCommitted(this.record.decision(s, database, epoch)))
          return this.record.nonce(s, database, epoch);
    return -1;
  }

  /** The side that was to serve last. */
  decidedSide(s: State): number {
    const last = this.lastCommitted(s);
    return last < 0 ? SIDE_A : this.destinationOf(s, last);
  }

  // ── who accepts an application write ──────────────────────────────────────────────────────────────────────────────────

  /** Whether a new write would be accepted at a database: by its fence or, without one, by a gate that leads there. */
  admits(s: State, database: number): boolean {
    const side = database === 1 ? 1 : 0;
    if (!this.record.reachable(s, side)) return false;
    if (this.has('fence'))
      return (
        this.layout.database.flag.get(s, database) === 0 || (this.layout.whole.disarmed.get(s) & (1 << side)) !== 0
      );
    const { gate, route } = this.layout.node;
    for (let node = 0; node < this.bounds.nodes; node++)
      if (gate.get(s, node) === GATE.open && route.get(s, node) === side) return true;
    return false;
  }

  /** Whether a cluster accepts writes: new ones, or one that has begun and may still commit. */
  accepts(s: State, side: number): boolean {
    if (!this.record.reachable(s, side)) return false;
    if (this.layout.flight.get(s, side) > 0) return true;
    for (const database of this.record.databasesOf(side)) if (this.admits(s, database)) return true;
    return this.#nodeWrites(s, side);
  }

  #nodeWrites(s: State, side: number): boolean {
    const { flight } = this.layout.node;
    for (let node = 0; node < this.bounds.nodes; node++) if (flight.get(s, node) === side + 1) return true;
    return false;
  }

  /** Marks a fact that a node learnt too: a call it sent may be carried out after it died. */
  heard(s: State, attempt: number, decided: Decided): void {
    this.learn(s, attempt, decided === 'committed' ? KNOWN.committed : KNOWN.aborted);
  }
}
