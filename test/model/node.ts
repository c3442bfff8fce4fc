/**
 * One task: the node of src/fleet/local-node.ts: what it does when it is told, and what it does by itself.
 *
 * Time is not modelled: a lease may end at any moment after the pause began, and a node may stall between any two steps, since
 * nothing makes it take the next one. A SIGSTOP is a stall; a crash forgets everything.
 */
import { range, type Rule } from './rule.js';
import { DECISION, FOLLOWS, GATE, type State } from './state.js';
import type { Serving, World } from './world.js';

/** In `followed`, beside the attempt: the gate was closed to ask the record, and opens when that is done. */
const RECOVERING = 8;

/** Why the record was read. */
type Why = 'starting' | 'reloading' | 'refused' | 'watching';

export class Nodes {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  rules(): Rule[] {
    return range(this.#world.bounds.nodes).flatMap((n) => this.#rulesOf(n));
  }

  #rulesOf(n: number): Rule[] {
    const node = (name: string, step: (s: State) => boolean): Rule => ({
      name: `node ${n.toString()}: ${name}`,
      actor: 'node',
      step,
    });
    const crash: Rule = {
      name: `node ${n.toString()} dies`,
      actor: 'fault',
      step: (s) => this.#die(s, n),
    };
    return [
      ...(this.#world.bounds.nodeCrashes ? [crash] : []),
      node('starts', (s) => this.#start(s, n)),
      ...(this.#world.has('lowerComesAfterTheAbort')
        ? []
        : [node('lease over: lowers the flag before it asks', (s) => this.#lowerEarly(s, n))]),
      node('lease over: resolveEpoch', (s) => this.#leaseOver(s, n)),
      node('refused by the fence: asks the record', (s) => this.#onFenceRefusal(s, n)),
      node('reads the record again', (s) => this.#watch(s, n)),
      node('reloads its files and asks the record', (s) => this.#reload(s, n)),
      node('finishes the decision it read', (s) => this.#finish(s, n)),
    ];
  }

  // ── told by an engine ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** False when the node refuses: an epoch that it knows resolved, or lower than the highest it has seen. */
  pause(s: State, n: number, attempt: number): boolean {
    const { gate, seen, resolved, hold } = this.#world.layout.node;
    const epoch = this.#world.epochOf(s, attempt);
    if (gate.get(s, n) === GATE.down) return false;
    if (epoch <= resolved.get(s, n) || epoch < seen.get(s, n)) return false;
    seen.set(s, epoch, n);
    gate.set(s, GATE.closed, n);
    hold.set(s, attempt + 1, n);
    return true;
  }

  drained(s: State, n: number): boolean {
    return this.#world.layout.node.flight.get(s, n) === 0;
  }

  /** Whether the node is there to be told anything. */
  runs(s: State, n: number): boolean {
    return this.#world.layout.node.gate.get(s, n) !== GATE.down;
  }

  swap(s: State, n: number, attempt: number, side: number): void {
    const { seen, resolved, route } = this.#world.layout.node;
    const epoch = this.#world.epochOf(s, attempt);
    if (epoch < seen.get(s, n) || epoch < resolved.get(s, n)) return;
    route.set(s, this.#world.has('swapSetsTheSide') ? side : 1 - route.get(s, n), n);
  }

  resume(s: State, n: number, attempt: number, side: number): void {
    const { seen, resolved } = this.#world.layout.node;
    const epoch = this.#world.epochOf(s, attempt);
    if (epoch < seen.get(s, n) || epoch <= resolved.get(s, n)) return;
    this.#settle(s, n, epoch, this.#world.has('resumeSetsTheRoute') ? side : this.#world.layout.node.route.get(s, n));
  }

  /** The one place where a gate opens. */
  #settle(s: State, n: number, epoch: number, side: number): void {
    const { gate, seen, resolved, hold, route, followed } = this.#world.layout.node;
    if (this.#world.has('settleChecksTheEpoch') && epoch < resolved.get(s, n)) return;
    route.set(s, side, n);
    resolved.set(s, Math.max(resolved.get(s, n), epoch), n);
    seen.set(s, Math.max(seen.get(s, n), epoch), n);
    const held = hold.get(s, n);
    if (held !== 0 && this.#world.epochOf(s, held - 1) <= epoch) hold.set(s, 0, n);
    if (hold.get(s, n) === 0 && (followed.get(s, n) & RECOVERING) === 0) gate.set(s, GATE.open, n);
  }

  // ── its life ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  #die(s: State, n: number): boolean {
    const { layout } = this.#world;
    const { gate, flight } = layout.node;
    if (gate.get(s, n) === GATE.down) return false;
    const side = flight.get(s, n) - 1;
    // PostgreSQL does not notice at once: what the dead node's client began may still commit.
    if (side >= 0) layout.flight.set(s, layout.flight.get(s, side) + 1, side);
    for (const field of Object.values(layout.node)) field.set(s, 0, n);
    gate.set(s, GATE.down, n);
    return true;
  }

  /** Its files name side A: they may never have been saved. Nobody is served before the record was asked. */
  #start(s: State, n: number): boolean {
    const { gate } = this.#world.layout.node;
    if (gate.get(s, n) !== GATE.down) return false;
    gate.set(s, GATE.open, n);
    if (!this.#world.has('startingNodeAsks')) return true;
    const serving = this.#world.servingOf(s);
    if (serving) this.#follow(s, n, serving, 'starting');
    return true;
  }

  // ── its lease is over ─────────────────────────────────────────────────────────────────────────────────────────────────

  #lowerEarly(s: State, n: number): boolean {
    const held = this.#world.layout.node.hold.get(s, n);
    if (held === 0) return false;
    const source = this.#world.sourceOf(s, held - 1);
    const state = this.#stateOf(s, held - 1);
    if (!this.#world.record.reachable(s, source)) return false;
    if (state !== DECISION.preparing && state !== DECISION.sealed) return false;
    for (const d of this.#world.record.databasesOf(source)) this.#world.layout.database.flag.set(s, 0, d);
    return true;
  }

  /**
   * `resolveEpoch` and settle, in one step: whatever may come between its calls comes between the same calls of an engine
   * that gives up, which are steps of their own, and the calls of the node then find their work done.
   */
  #leaseOver(s: State, n: number): boolean {
    const { hold } = this.#world.layout.node;
    const held = hold.get(s, n);
    if (held === 0) return false;
    const attempt = held - 1;
    const source = this.#world.sourceOf(s, attempt);
    const before = this.#stateOf(s, attempt);
    const decided = this.#world.askForAbort(s, attempt);
    if (decided === null) return false;
    this.#world.heard(s, attempt, decided);
    const acts =
      decided === 'committed'
        ? this.#world.has('whoeverGoesForwardOpens')
        : this.#world.has('everyAborterLowers') || before !== this.#stateOf(s, attempt);
    // Where the decided side cannot be made to accept writes the node stays closed and begins anew.
    if (acts && !(decided === 'committed' ? this.#world.goForward(s, attempt) : this.#world.goBack(s, attempt)))
      return true;
    this.#settle(s, n, this.#world.epochOf(s, attempt), decided === 'committed' ? 1 - source : source);
    return true;
  }

  #stateOf(s: State, attempt: number): number {
    const row = this.#world.record.recordOf(this.#world.sourceOf(s, attempt));
    return this.#world.record.decision(s, row, this.#world.epochOf(s, attempt));
  }

  // ── it asks the record ────────────────────────────────────────────────────────────────────────────────────────────────

  #onFenceRefusal(s: State, n: number): boolean {
    const { gate, route } = this.#world.layout.node;
    if (!this.#world.has('fenceRefusalAsksTheRecord') || gate.get(s, n) !== GATE.open) return false;
    const side = route.get(s, n);
    if (!this.#world.record.reachable(s, side)) return false;
    if (this.#world.record.databasesOf(side).every((d) => this.#world.admits(s, d))) return false;
    const serving = this.#world.servingOf(s);
    return serving !== null && this.#follow(s, n, serving, 'refused');
  }

  #watch(s: State, n: number): boolean {
    const { gate, follows } = this.#world.layout.node;
    if (gate.get(s, n) === GATE.down || follows.get(s, n) !== FOLLOWS.nothing) return false;
    const serving = this.#world.servingOf(s);
    return serving !== null && this.#follow(s, n, serving, 'watching');
  }

  /** As at the start, but with clients let through meanwhile. */
  #reload(s: State, n: number): boolean {
    const { gate, follows } = this.#world.layout.node;
    if (gate.get(s, n) === GATE.down || follows.get(s, n) !== FOLLOWS.nothing) return false;
    const serving = this.#world.servingOf(s);
    return serving !== null && this.#follow(s, n, serving, 'reloading');
  }

  /** Acts on what was read. An epoch found open is held like a pause of its own, unless the node only watches. */
  #follow(s: State, n: number, serving: Serving, why: Why): boolean {
    const { gate, seen, resolved, hold, follows, followed } = this.#world.layout.node;
    // A refusal proves that what this node believes decided is not in force: its record may have lost it in a fail-over.
    const again = why === 'refused' && this.#world.has('fenceRefusalResolvesAgain');
    if (serving.epoch < resolved.get(s, n) && !again) return false;
    if (serving.open >= 0 && why !== 'watching') {
      const epoch = this.#world.epochOf(s, serving.open);
      if (epoch > resolved.get(s, n) || again) {
        if (hold.get(s, n) === serving.open + 1) return false;
        seen.set(s, Math.max(seen.get(s, n), epoch), n);
        resolved.set(s, Math.min(resolved.get(s, n), epoch - 1), n);
        gate.set(s, GATE.closed, n);
        hold.set(s, serving.open + 1, n);
        return true;
      }
    }
    if (serving.unfinished < 0) {
      this.#settle(s, n, serving.epoch, serving.side);
      return true;
    }
    const closed = why === 'starting' || why === 'refused';
    const forward = serving.side !== this.#world.sourceOf(s, serving.unfinished);
    follows.set(s, forward ? FOLLOWS.commit : FOLLOWS.abort, n);
    followed.set(s, serving.unfinished + 1 + (closed ? RECOVERING : 0), n);
    if (closed) gate.set(s, GATE.closed, n);
    return true;
  }

  /**
   * `#finish` and settle: the whole of resolveEpoch again. What fails is logged; the decided side is routed to all the same.
   * Since the record was read, anything may have happened.
   */
  #finish(s: State, n: number): boolean {
    const { gate, hold, follows, followed } = this.#world.layout.node;
    const read = follows.get(s, n);
    if (read === FOLLOWS.nothing) return false;
    const attempt = (followed.get(s, n) & ~RECOVERING) - 1;
    const recovering = (followed.get(s, n) & RECOVERING) !== 0;
    const decided = this.#world.askForAbort(s, attempt);
    if (decided !== null) {
      this.#world.heard(s, attempt, decided);
      if (decided === 'aborted') this.#world.goBack(s, attempt);
      else if (this.#world.has('whoeverGoesForwardOpens')) this.#world.goForward(s, attempt);
    }
    follows.set(s, FOLLOWS.nothing, n);
    followed.set(s, 0, n);
    const source = this.#world.sourceOf(s, attempt);
    this.#settle(s, n, this.#world.epochOf(s, attempt), read === FOLLOWS.commit ? 1 - source : source);
    if (recovering && hold.get(s, n) === 0) gate.set(s, GATE.open, n);
    return true;
  }
}
