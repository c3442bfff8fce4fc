/**
 * One task: the engine of activities/critical-section.ts: eight steps and the way back, each of them again at any later time.
 *
 * The phase of an attempt is how far any run of it has come, by the product's own transition table; a run that stands still
 * and goes on later, or begins anew in another process, takes a step that the table calls `repeat`. What a process once
 * read it may act on at any later time: `known` never forgets. So every order in which several engines could act is here.
 */
import type { Nodes } from './node.js';
import { range, type Rule } from './rule.js';
import { FENCE, KNOWN, SIDE_A, SIDE_B, THIRD, type State } from './state.js';
import type { World } from './world.js';

const SIDE_NAMES = ['A', 'B'] as const;

export class Engines {
  readonly #world: World;
  readonly #nodes: Nodes;

  constructor(world: World, nodes: Nodes) {
    this.#world = world;
    this.#nodes = nodes;
  }

  rules(): Rule[] {
    const { attempts } = this.#world.bounds;
    return range(attempts).flatMap((a) => [
      ...this.#beginning(a),
      ...this.#steps(a),
      ...this.#wayBack(a),
      ...this.#lateCalls(a),
      ...range(this.#world.bounds.nodes).flatMap((n) => this.#perNode(a, n)),
    ]);
  }

  #rule(a: number, name: string, step: (s: State) => boolean): Rule {
    return { name: `engine, attempt ${(a + 1).toString()}: ${name}`, actor: 'engine', step };
  }

  // ── step 0 ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #beginning(a: number): Rule[] {
    const { next } = this.#world.bounds;
    const headings = a === 0 || next === 'retry' ? [SIDE_A] : next === 'rollback' ? [SIDE_B] : [SIDE_A, SIDE_B];
    return headings.map((source) =>
      this.#rule(a, `begin, source ${SIDE_NAMES[source] ?? ''}`, (s) => this.#begin(s, a, source)),
    );
  }

  /** Who asked saw that side serve, at some time. */
  #begin(s: State, a: number, source: number): boolean {
    const { layout, record } = this.#world;
    if (this.#world.epochOf(s, a) !== 0 || (a > 0 && this.#world.epochOf(s, a - 1) === 0)) return false;
    if (!record.reachable(s, SIDE_A)) return false;
    if (source === SIDE_B && layout.database.fenceState.get(s, record.recordOf(SIDE_B)) !== FENCE.open) return false;
    if (this.#world.has('beginNeedsStreamsWithoutGap') && layout.whole.gap.get(s) === 1) return false;
    if (source === SIDE_B && this.#world.has('rollbackNeedsTheTimeline') && this.#failedOverSince(s, 0)) return false;
    const epoch = record.begin(s, record.recordOf(source), record.recordOf(1 - source), a);
    if (epoch === 0) return false;
    layout.attempt.epoch.set(s, epoch, a);
    layout.attempt.source.set(s, source, a);
    layout.attempt.pinned.set(s, record.timelineOf(s, source), a);
    layout.attempt.pinnedPeer.set(s, record.timelineOf(s, 1 - source), a);
    layout.attempt.phase.set(s, 1, a);
    return true;
  }

  #failedOverSince(s: State, attempt: number): boolean {
    return this.#world.layout.attempt.pinned.get(s, attempt) !== this.#world.record.timelineOf(s, SIDE_A);
  }

  // ── steps 2 to 7; step 1 and step 8 are per node ──────────────────────────────────────────────────────────────────────

  #steps(a: number): Rule[] {
    const shards = range(this.#world.bounds.shards);
    return [
      ...(this.#world.has('parityIsOfThisSeal')
        ? []
        : [this.#rule(a, 'awaitParity looks before the seal', (s) => this.#sampleEarly(s, a))]),
      ...shards.map((shard) => this.#rule(a, `sealSource, shard ${shard.toString()}`, (s) => this.#seal(s, a, shard))),
      this.#rule(a, 'awaitParity and advanceSequences', (s) => this.#awaitParity(s, a)),
      this.#rule(a, 'createReverseReplication: ready', (s) => this.#ready(s, a)),
      this.#rule(a, 'createReverseReplication: the canary is back', (s) => this.#canaryIsBack(s, a)),
      this.#rule(a, 'commitCutover', (s) => this.#commit(s, a)),
      this.#rule(a, 'opens the destination', (s) => this.#open(s, a)),
      this.#rule(a, 'swapConfiguration, every node', (s) => this.#swapAll(s, a)),
    ];
  }

  #seal(s: State, a: number, shard: number): boolean {
    const { layout, record } = this.#world;
    if (this.#world.outcome(s, a, 'sealSource') === 'refuse') return false;
    const source = this.#world.sourceOf(s, a);
    const database = record.databasesOf(source)[shard];
    if (database === undefined || !record.reachable(s, source)) return false;
    if (!record.seal(s, database, this.#world.epochOf(s, a), a, layout.attempt.pinned.get(s, a))) return false;
    this.#world.learn(s, a, shard === 0 ? KNOWN.sealedShard0 : KNOWN.sealedShard1);
    const shards = record.databasesOf(source).length;
    if (this.#world.knows(s, a, shards === 1 ? KNOWN.sealedShard0 : KNOWN.sealedShard0 | KNOWN.sealedShard1))
      this.#world.advance(s, a, 'sealSource');
    return true;
  }

  /** The variant that looks at a lag sampled before the source went quiet. */
  #sampleEarly(s: State, a: number): boolean {
    const { layout, record } = this.#world;
    if (this.#world.phase(s, a) !== 'paused') return false;
    const entries = record.databasesOf(this.#world.sourceOf(s, a)).map((d) => layout.database.entry0.get(s, d));
    if (entries.some((entry) => entry !== 0)) return false;
    layout.whole.sampled.set(s, layout.whole.sampled.get(s) | (1 << a));
    return true;
  }

  #awaitParity(s: State, a: number): boolean {
    if (this.#world.outcome(s, a, 'awaitParity') !== 'do') return false;
    const { layout, record } = this.#world;
    const source = this.#world.sourceOf(s, a);
    const destination = 1 - source;
    if (!record.reachable(s, SIDE_A)) return false;
    const early = !this.#world.has('parityIsOfThisSeal') && (layout.whole.sampled.get(s) & (1 << a)) !== 0;
    if (!early) {
      const arrived = layout.database.seals.get(s, record.recordOf(destination));
      for (const d of record.databasesOf(source)) if ((arrived & this.#sealBit(d, a)) === 0) return false;
    }
    if (!this.#standbyHasTheSeal(s, a, source)) return false;
    this.#world.advance(s, a, 'awaitParity');
    // Beside it, and it writes nothing that the model knows: sequences of a side that does not serve only go on.
    this.#world.advance(s, a, 'advanceSequences');
    return true;
  }

  #sealBit(database: number, attempt: number): number {
    return 1 << (attempt + (database === THIRD ? 4 : 0));
  }

  /** A standby that may be promoted must not come up without the seal: it would take writes. */
  #standbyHasTheSeal(s: State, a: number, source: number): boolean {
    const { bounds, layout } = this.#world;
    const exists = bounds.failover && source === SIDE_A && layout.whole.timeline.get(s) === 1;
    if (!exists || !this.#world.has('standbysHaveTheSeal')) return true;
    const { fenceEpoch, fenceNonce } = layout.database;
    return fenceEpoch.get(s, THIRD) === this.#world.epochOf(s, a) && fenceNonce.get(s, THIRD) === a;
  }

  /** May be called beside step 3 (docs/decisions/0003): all that it needs is that the seal has answered. */
  #ready(s: State, a: number): boolean {
    const { record } = this.#world;
    if (this.#world.outcome(s, a, 'awaitParity') === 'refuse') return false;
    const destination = this.#world.destinationOf(s, a);
    if (!record.reachable(s, destination)) return false;
    return record.ready(s, record.recordOf(destination), this.#world.epochOf(s, a), a);
  }

  #canaryIsBack(s: State, a: number): boolean {
    if (this.#world.outcome(s, a, 'createReverseReplication') !== 'do') return false;
    const { layout, record } = this.#world;
    const source = this.#world.sourceOf(s, a);
    if (!record.reachable(s, source)) return false;
    const waits = this.#world.has('wayBackIsMadeAhead');
    if (waits && (layout.database.canaries.get(s, record.recordOf(source)) & (1 << a)) === 0) return false;
    if (!this.#destinationKeeps(s, a, 1 - source)) return false;
    this.#world.advance(s, a, 'createReverseReplication');
    return true;
  }

  /** What was proven must outlive the destination's server: it has not failed over since, and its standby has it too. */
  #destinationKeeps(s: State, a: number, destination: number): boolean {
    if (!this.#world.has('destinationOutlivesItsServer')) return true;
    const { bounds, layout, record } = this.#world;
    const timeline = record.timelineOf(s, destination);
    if (!record.reachable(s, destination) || layout.attempt.pinnedPeer.get(s, a) !== timeline) return false;
    if (!bounds.failover || destination !== SIDE_A || timeline !== 1) return true;
    const { fenceEpoch, fenceNonce, seals } = layout.database;
    const stamped = fenceEpoch.get(s, THIRD) === this.#world.epochOf(s, a) && fenceNonce.get(s, THIRD) === a;
    return stamped && (seals.get(s, THIRD) & this.#sealBit(record.recordOf(1 - destination), a)) !== 0;
  }

  #commit(s: State, a: number): boolean {
    if (this.#world.outcome(s, a, 'commitCutover') === 'refuse') return false;
    const { layout, record } = this.#world;
    const source = this.#world.sourceOf(s, a);
    if (!record.reachable(s, source)) return false;
    const pinned = layout.attempt.pinned.get(s, a);
    const decided = record.commit(s, record.recordOf(source), this.#world.epochOf(s, a), a, pinned);
    if (decided !== 'committed') return false;
    this.#world.learn(s, a, KNOWN.committed);
    this.#world.advance(s, a, 'commitCutover');
    return true;
  }

  #open(s: State, a: number): boolean {
    return this.#mayOpen(s, a) && this.#world.goForward(s, a);
  }

  #mayOpen(s: State, a: number): boolean {
    if (this.#world.knows(s, a, KNOWN.committed)) return true;
    return !this.#world.has('openNeedsTheCommit') && this.#world.phase(s, a) === 'ready';
  }

  #swapAll(s: State, a: number): boolean {
    const { nodes } = this.#world.bounds;
    if (this.#world.outcome(s, a, 'swapConfiguration') !== 'do' || !this.#hasOpened(s, a)) return false;
    for (let n = 0; n < nodes; n++) {
      if (!this.#nodes.runs(s, n)) return false;
      this.#nodes.swap(s, n, a, this.#world.destinationOf(s, a));
    }
    this.#world.advance(s, a, 'swapConfiguration');
    return true;
  }

  // ── the way out before step 6 ─────────────────────────────────────────────────────────────────────────────────────────

  #wayBack(a: number): Rule[] {
    return [
      this.#rule(a, 'returnToSource: resolveEpoch asks for the abort', (s) => this.#abort(s, a)),
      this.#rule(a, 'returnToSource: releases the source', (s) => this.#release(s, a)),
    ];
  }

  #abort(s: State, a: number): boolean {
    if (this.#world.epochOf(s, a) === 0 || this.#world.outcomeIn('preparing', 'abort') === 'refuse') return false;
    const decided = this.#world.askForAbort(s, a);
    if (decided === null) return false;
    this.#world.heard(s, a, decided);
    return true;
  }

  #release(s: State, a: number): boolean {
    return this.#world.knows(s, a, KNOWN.aborted) && this.#world.goBack(s, a);
  }

  // ── calls of a process that stalled before it sent the next one ───────────────────────────────────────────────────────

  #lateCalls(a: number): Rule[] {
    const databases = [SIDE_A, SIDE_B].flatMap((side) => this.#world.record.databasesOf(side));
    return [
      this.#rule(a, 'open, and no lower', (s) => this.#openAlone(s, a)),
      this.#rule(a, 'refuse', (s) => this.#refuseAlone(s, a)),
      ...databases.flatMap((d) => [
        this.#rule(a, `release of database ${d.toString()}, and no lower`, (s) => this.#releaseAlone(s, a, d)),
        this.#rule(a, `lower of database ${d.toString()}`, (s) => this.#lowerAlone(s, a, d)),
      ]),
    ];
  }

  #openAlone(s: State, a: number): boolean {
    const { record } = this.#world;
    const destination = this.#world.destinationOf(s, a);
    if (!this.#mayOpen(s, a) || !record.reachable(s, destination)) return false;
    this.#world.openDoor(s, a);
    return true;
  }

  #refuseAlone(s: State, a: number): boolean {
    const { record } = this.#world;
    const destination = this.#world.destinationOf(s, a);
    if (!this.#world.knows(s, a, KNOWN.aborted) || !record.reachable(s, destination)) return false;
    record.refuse(s, record.recordOf(destination), this.#world.epochOf(s, a), a);
    return true;
  }

  #releaseAlone(s: State, a: number, database: number): boolean {
    if (!this.#isSourceDatabase(s, a, database) || !this.#world.knows(s, a, KNOWN.aborted)) return false;
    return this.#world.record.release(s, database, this.#world.epochOf(s, a));
  }

  #lowerAlone(s: State, a: number, database: number): boolean {
    const fact = this.#isSourceDatabase(s, a, database) ? KNOWN.aborted : KNOWN.committed;
    if (!this.#world.knows(s, a, fact) || !this.#world.record.reachable(s, database === 1 ? 1 : 0)) return false;
    this.#world.record.lower(s, database, this.#world.epochOf(s, a));
    return true;
  }

  #isSourceDatabase(s: State, a: number, database: number): boolean {
    const source = this.#world.sourceOf(s, a);
    return this.#world.record.reachable(s, source) && this.#world.record.databasesOf(source).includes(database);
  }

  // ── nodes told one by one ─────────────────────────────────────────────────────────────────────────────────────────────

  #perNode(a: number, n: number): Rule[] {
    const at = n.toString();
    return [
      this.#rule(a, `pauseTraffic, node ${at}`, (s) => this.#pause(s, a, n)),
      this.#rule(a, `swapConfiguration, node ${at}`, (s) => this.#swapOne(s, a, n)),
      this.#rule(a, `resumeTraffic on the destination, node ${at}`, (s) => this.#resume(s, a, n)),
      this.#rule(a, `returnTraffic to the source, node ${at}`, (s) => this.#returnTraffic(s, a, n)),
    ];
  }

  #pause(s: State, a: number, n: number): boolean {
    const { answered } = this.#world.layout.node;
    const outcome = this.#world.outcome(s, a, 'pauseTraffic');
    if (outcome === 'refuse' || !this.#nodes.pause(s, n, a)) return false;
    if (outcome !== 'do' || !this.#nodes.drained(s, n)) return true;
    answered.set(s, answered.get(s, n) | (1 << a), n);
    for (const other of range(this.#world.bounds.nodes)) if ((answered.get(s, other) & (1 << a)) === 0) return true;
    this.#world.advance(s, a, 'pauseTraffic');
    for (const other of range(this.#world.bounds.nodes)) answered.set(s, answered.get(s, other) & ~(1 << a), other);
    return true;
  }

  #swapOne(s: State, a: number, n: number): boolean {
    if (!this.#world.knows(s, a, KNOWN.committed) || !this.#nodes.runs(s, n)) return false;
    this.#nodes.swap(s, n, a, this.#world.destinationOf(s, a));
    return true;
  }

  /** By the run that came to step 8, or by one that gave up, read `committed` and went forward. */
  #resume(s: State, a: number, n: number): boolean {
    const stepped = this.#world.outcome(s, a, 'resumeTraffic') !== 'refuse';
    if (!(stepped || this.#hasOpened(s, a)) || !this.#nodes.runs(s, n)) return false;
    this.#nodes.resume(s, n, a, this.#world.destinationOf(s, a));
    const { resolved } = this.#world.layout.node;
    const epoch = this.#world.epochOf(s, a);
    if (range(this.#world.bounds.nodes).every((i) => resolved.get(s, i) >= epoch))
      this.#world.advance(s, a, 'resumeTraffic');
    return true;
  }

  #hasOpened(s: State, a: number): boolean {
    return this.#world.knows(s, a, KNOWN.committed) && this.#world.hasOpened(s, a);
  }

  #returnTraffic(s: State, a: number, n: number): boolean {
    if (this.#world.has('lowerComesBeforeResume') && !this.#world.hasReleased(s, a)) return false;
    if (!this.#world.knows(s, a, KNOWN.aborted) || this.#world.outcomeIn('aborted', 'returnTraffic') === 'refuse')
      return false;
    if (!this.#nodes.runs(s, n)) return false;
    this.#nodes.swap(s, n, a, this.#world.sourceOf(s, a));
    this.#nodes.resume(s, n, a, this.#world.sourceOf(s, a));
    return true;
  }
}
