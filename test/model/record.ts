/**
 * One task: the functions of src/postgres/record-schema.ts, guard by guard, on a state of the model.
 *
 * Each is one transaction, therefore one step; each has the name of the function it mirrors. An epoch's nonce is the number
 * of its attempt. What a function answers is what its caller may learn.
 */
import { invariant } from '../../src/errors/invariant.js';
import type { Guard } from './guards.js';
import { A0, B0, DECISION, ENTRY, FENCE, type Layout, QUEUE_MAX, SIDE_A, sideOf, THIRD, type State } from './state.js';

/** What the record says of an epoch to who asked it to abort. */
export type Decided = 'committed' | 'aborted';

export class RecordFunctions {
  readonly layout: Layout;
  readonly #without: ReadonlySet<Guard>;

  constructor(layout: Layout, without: ReadonlySet<Guard>) {
    this.layout = layout;
    this.#without = without;
  }

  has(guard: Guard): boolean {
    return !this.#without.has(guard);
  }

  // ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The database that keeps the decisions of a side: its shard 0. */
  recordOf(side: number): number {
    return side === SIDE_A ? A0 : B0;
  }

  databasesOf(side: number): readonly number[] {
    if (side !== SIDE_A) return [B0];
    return this.layout.bounds.shards === 2 ? [A0, THIRD] : [A0];
  }

  /** Side A may be down; then nobody reads or writes it. */
  reachable(s: State, side: number): boolean {
    return side !== SIDE_A || this.layout.whole.down.get(s) === 0;
  }

  decision(s: State, database: number, epoch: number): number {
    const { decision1, decision2 } = this.layout.database;
    return (epoch === 1 ? decision1 : decision2).get(s, database);
  }

  /** the attempt that began the epoch, as the row's nonce says */
  nonce(s: State, database: number, epoch: number): number {
    const { nonce1, nonce2 } = this.layout.database;
    return (epoch === 1 ? nonce1 : nonce2).get(s, database);
  }

  #setDecision(s: State, database: number, epoch: number, state: number, nonce: number): void {
    const { decision1, decision2, nonce1, nonce2 } = this.layout.database;
    (epoch === 1 ? decision1 : decision2).set(s, state, database);
    (epoch === 1 ? nonce1 : nonce2).set(s, nonce, database);
  }

  isCommitted(state: number): boolean {
    return state === DECISION.committed || state === DECISION.finalizing || state === DECISION.finalized;
  }

  timelineOf(s: State, side: number): number {
    return side === SIDE_A ? this.layout.whole.timeline.get(s) : 0;
  }

  flagIsUp(s: State, database: number): boolean {
    return this.layout.database.flag.get(s, database) === 1;
  }

  highestEpoch(s: State, database: number): number {
    for (let epoch = 2; epoch >= 1; epoch--) if (this.decision(s, database, epoch) !== DECISION.none) return epoch;
    return 0;
  }

  // ── the functions ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** `cutover.begin`. Answers the epoch, or 0 when it raises. */
  begin(s: State, database: number, peer: number, nonce: number): number {
    const { fenceEpoch } = this.layout.database;
    for (let epoch = 1; epoch <= 2; epoch++) {
      const state = this.decision(s, database, epoch);
      if (state === DECISION.preparing || state === DECISION.sealed || state === DECISION.finalizing) return 0;
    }
    if (!this.#mayBegin(s, database)) return 0;
    const epoch = 1 + Math.max(...[database, peer].flatMap((d) => [fenceEpoch.get(s, d), this.highestEpoch(s, d)]));
    // No more attempts than epochs, and each epoch is begun by an attempt of its own.
    invariant(epoch <= 2, 'an epoch beyond the bounds');
    this.#setDecision(s, database, epoch, DECISION.preparing, nonce);
    return epoch;
  }

  /** Every shard accepts writes, and on those without decisions the last one left its tombstone. */
  #mayBegin(s: State, database: number): boolean {
    const { fenceEpoch, fenceState } = this.layout.database;
    if (this.has('removalBarsTheNextEpoch') && this.layout.whole.removing.get(s) > 0) return false;
    const last = this.highestEpoch(s, database);
    return this.databasesOf(sideOf(database)).every((d) => {
      const serves = fenceState.get(s, d) === FENCE.open && !this.flagIsUp(s, d);
      if (this.has('beginNeedsTheServingSide') && !serves) return false;
      return d === database || fenceEpoch.get(s, d) >= last;
    });
  }

  /** `cutover.seal`. Whether it answered; false when it raised or still waits. */
  seal(s: State, database: number, epoch: number, nonce: number, pinned: number): boolean {
    const { fenceEpoch, fenceState, fenceNonce, flag } = this.layout.database;
    const { disarmed, streamless } = this.layout.whole;
    const standing = fenceEpoch.get(s, database);
    const state = fenceState.get(s, database);
    if (standing === epoch && fenceNonce.get(s, database) === nonce && state === FENCE.sealed) return true;
    if (standing >= epoch) return false;
    if (this.has('timelineIsPinned') && this.timelineOf(s, sideOf(database)) !== pinned) return false;
    if (this.has('sealWaitsForWriters') && this.has('fence') && this.layout.flight.get(s, sideOf(database)) > 0)
      return false;
    if (state !== FENCE.open) return false;
    // What is published is what is fenced: neither may be gone.
    if (disarmed.get(s) !== 0 || streamless.get(s) !== 0) return false;
    if (database === this.recordOf(sideOf(database))) {
      if (this.decision(s, database, epoch) !== DECISION.preparing || this.nonce(s, database, epoch) !== nonce)
        return false;
      this.#setDecision(s, database, epoch, DECISION.sealed, nonce);
    }
    this.append(s, database, ENTRY.seal + nonce);
    fenceEpoch.set(s, epoch, database);
    fenceState.set(s, FENCE.sealed, database);
    fenceNonce.set(s, nonce, database);
    flag.set(s, 1, database);
    return true;
  }

  /** `cutover.commit`. What stands afterwards; null when it raises. */
  commit(s: State, database: number, epoch: number, nonce: number, pinned: number): Decided | null {
    const { fenceEpoch, fenceState } = this.layout.database;
    const state = this.decision(s, database, epoch);
    if (state === DECISION.none || this.nonce(s, database, epoch) !== nonce) return null;
    if (state === DECISION.sealed) {
      const stands = fenceEpoch.get(s, database) === epoch && fenceState.get(s, database) === FENCE.sealed;
      if (this.has('commitChecksTheSeal') && !(stands && this.flagIsUp(s, database))) return null;
      if (this.has('timelineIsPinned') && this.timelineOf(s, sideOf(database)) !== pinned) return null;
      this.#setDecision(s, database, epoch, DECISION.committed, nonce);
      return 'committed';
    }
    return this.isCommitted(state) ? 'committed' : 'aborted';
  }

  /** `cutover.abort`. A row that is not there reads `unknown`, which its callers take for aborted. */
  abort(s: State, database: number, epoch: number): Decided {
    const state = this.decision(s, database, epoch);
    if (state === DECISION.none) return 'aborted';
    const undecided = state === DECISION.preparing || state === DECISION.sealed;
    if (undecided || !this.has('abortIsCompareAndSet'))
      this.#setDecision(s, database, epoch, DECISION.aborted, this.nonce(s, database, epoch));
    return this.isCommitted(this.decision(s, database, epoch)) ? 'committed' : 'aborted';
  }

  /** `cutover.release`. Whether it answered; false when it raised. */
  release(s: State, database: number, epoch: number): boolean {
    const { fenceEpoch, fenceState } = this.layout.database;
    const standing = fenceEpoch.get(s, database);
    const state = fenceState.get(s, database);
    const own = state === FENCE.sealed && standing === epoch;
    if (!(standing <= epoch && (state === FENCE.open || own))) return true;
    const decided = this.decision(s, database, epoch);
    if (decided !== DECISION.none && decided !== DECISION.aborted) return false;
    if (!own && !this.has('releaseLeavesATombstone')) return true;
    fenceEpoch.set(s, epoch, database);
    fenceState.set(s, FENCE.open, database);
    return true;
  }

  /** `cutover.lower`. */
  lower(s: State, database: number, epoch: number): void {
    const { fenceEpoch, fenceState, flag } = this.layout.database;
    const standing = fenceEpoch.get(s, database);
    const own = standing === epoch || (standing > epoch && this.has('lowerServesALaterRow'));
    if ((own && fenceState.get(s, database) === FENCE.open) || !this.has('lowerChecksTheEpoch'))
      flag.set(s, 0, database);
  }

  /** `cutover.ready`. Whether it answered; false when it raised. */
  ready(s: State, database: number, epoch: number, nonce: number): boolean {
    const { fenceEpoch, fenceState, fenceNonce, canaries } = this.layout.database;
    const standing = fenceEpoch.get(s, database);
    const state = fenceState.get(s, database);
    const repeated =
      standing === epoch && fenceNonce.get(s, database) === nonce && (state === FENCE.ready || state === FENCE.open);
    if (!repeated) {
      if (standing >= epoch) return false;
      if (state === FENCE.open || !this.flagIsUp(s, database)) return false;
      fenceEpoch.set(s, epoch, database);
      fenceState.set(s, FENCE.ready, database);
      fenceNonce.set(s, nonce, database);
    }
    // ON CONFLICT DO NOTHING: the canary of an attempt is written once.
    const written = canaries.get(s, database);
    if ((written & (1 << nonce)) === 0) {
      canaries.set(s, written | (1 << nonce), database);
      this.append(s, database, ENTRY.canary + nonce);
    }
    return true;
  }

  /** `cutover.open`: for who has read `committed`. The row and the copy of the decision; the flag follows by lower(). */
  open(s: State, database: number, epoch: number, nonce: number, pinnedPeer: number): void {
    const { fenceEpoch, fenceState, seals } = this.layout.database;
    if (fenceEpoch.get(s, database) !== epoch || fenceState.get(s, database) !== FENCE.ready) return;
    // A standby promoted since may have been ready before it had the last rows: the marker of the seal came behind them.
    const failedOver = this.timelineOf(s, sideOf(database)) !== pinnedPeer;
    const lacks = (seals.get(s, database) & (1 << nonce)) === 0;
    if (failedOver && lacks) return;
    if (this.decision(s, database, epoch) === DECISION.none)
      this.#setDecision(s, database, epoch, DECISION.committed, nonce);
    fenceState.set(s, FENCE.open, database);
  }

  /** `cutover.refuse`. Whether the door was opened by this epoch, or stands open for a later one. */
  refuse(s: State, database: number, epoch: number, nonce: number): boolean {
    const { fenceEpoch, fenceState, fenceNonce } = this.layout.database;
    const open = fenceState.get(s, database) === FENCE.open;
    const standing = fenceEpoch.get(s, database);
    // After a fail-over that lost an epoch its number is used again, by an attempt of another nonce.
    const own = standing < epoch || fenceNonce.get(s, database) === nonce || !this.has('refuseChecksTheNonce');
    if (!open && standing <= epoch && own) {
      fenceEpoch.set(s, epoch, database);
      fenceState.set(s, FENCE.refused, database);
      fenceNonce.set(s, nonce, database);
    }
    // A side that opened may have been sealed since, by a rollback: its copy of the decision stays.
    if (this.has('doorRemembersTheCommit') && this.isCommitted(this.decision(s, database, epoch))) return true;
    return open && fenceEpoch.get(s, database) >= epoch;
  }

  /** `cutover.keep`: a side that lost the commit that moved its traffic away is sealed again. Whether it changed anything. */
  keep(s: State, database: number, epoch: number, nonce: number): boolean {
    const { fenceEpoch, fenceState, fenceNonce, flag } = this.layout.database;
    const lost = fenceEpoch.get(s, database) < epoch;
    if (lost) {
      const own = this.decision(s, database, epoch);
      const undecided = own === DECISION.preparing || own === DECISION.sealed;
      if (own === DECISION.none || (undecided && this.nonce(s, database, epoch) === nonce))
        this.#setDecision(s, database, epoch, DECISION.committed, nonce);
      fenceEpoch.set(s, epoch, database);
      fenceState.set(s, FENCE.sealed, database);
      fenceNonce.set(s, nonce, database);
    }
    if (fenceState.get(s, database) === FENCE.open || this.flagIsUp(s, database)) return lost;
    flag.set(s, 1, database);
    return true;
  }

  /** `setFinal`: compare-and-set of a committed epoch on the way to its end. */
  setFinal(s: State, database: number, epoch: number, from: number, to: number): boolean {
    if (this.decision(s, database, epoch) !== from) return false;
    if (this.has('finalizeIsOfTheLastEpoch') && this.highestEpoch(s, database) !== epoch) return false;
    this.#setDecision(s, database, epoch, to, this.nonce(s, database, epoch));
    return true;
  }

  /** The write-ahead log of a database, as far as its subscriber has not applied it. */
  append(s: State, database: number, entry: number): void {
    const { entry0, entry1, entry2, entry3, entry4, ahead } = this.layout.database;
    const skipped = ahead.get(s, database);
    // A subscriber that is ahead of a source that failed over takes what comes at a position it knows for applied.
    if (skipped > 0) {
      ahead.set(s, skipped - 1, database);
      return;
    }
    const place = [entry0, entry1, entry2, entry3, entry4].find((e) => e.get(s, database) === 0);
    invariant(place, `more than ${QUEUE_MAX.toString()} entries in a stream`);
    place.set(s, entry, database);
  }

  /** Takes the oldest entry off; 0 when there is none. */
  shift(s: State, database: number): number {
    const { entry0, entry1, entry2, entry3, entry4 } = this.layout.database;
    const first = entry0.get(s, database);
    if (first === 0) return 0;
    entry0.set(s, entry1.get(s, database), database);
    entry1.set(s, entry2.get(s, database), database);
    entry2.set(s, entry3.get(s, database), database);
    entry3.set(s, entry4.get(s, database), database);
    entry4.set(s, 0, database);
    return first;
  }
}
