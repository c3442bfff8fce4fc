/**
 * One task: watch I1 to I5 while a simulation runs, and look at everything once it is healed and quiet.
 *
 * Nothing here believes the product: it looks at the flags, the rows and the decisions of the simulated databases, and at
 * where the nodes route.
 */
import { isCommitted, type Decision, type DecisionState } from '../../src/postgres/record.js';
import type { NodeState } from '../../src/fleet/node.js';
import { DATABASE } from './clients.js';
import type { AppRow, Database, LogEntry, Watcher } from './database.js';
import type { RunningNode } from './processes.js';
import type { World } from './world.js';
import type { Outcome } from './writes.js';

/** `unnoticed`: without a fault no client of a node reads an error. `simulation`: it cannot go on, which says nothing of the product. */
export type Invariant = 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'unnoticed' | 'simulation';

export interface Violation {
  readonly invariant: Invariant;
  readonly what: string;
  readonly atMs: number;
}

const DECIDED: readonly DecisionState[] = ['committed', 'finalizing', 'finalized', 'aborted'];
/** messages, scheduling and the look every 250 ms of a node that asks the record */
const DETECTION_MS = 450;

export class Invariants implements Watcher {
  violation: Violation | null = null;
  longestWaitMs = 0;
  /** what servers and nodes that stood still may add to a wait, ms; a crash of anybody adds nothing */
  allowanceMs = 0;
  /** whether clients may notice: a fault was injected */
  disturbed = false;
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  broken(invariant: Invariant, what: string): void {
    if (this.violation) return;
    this.violation = { invariant, what, atMs: this.#world.scheduler.now };
    this.#world.trace(() => `${invariant} IS BROKEN: ${what}`);
  }

  // ── while it runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

  flagChanged(database: Database): void {
    this.#world.trace(() => `${database.host}: the flag is ${database.up ? 'up' : 'down'}`);
    if (database.up) return;
    this.#oneWriter();
    const other = this.#world.otherSide(database);
    for (const row of other.rows.values())
      if (!database.rows.has(row.id)) {
        this.broken('I2', `${database.host} opens without write ${row.id}, committed at ${other.host}`);
        return;
      }
  }

  accepted(): void {
    this.#oneWriter();
  }

  committed(database: Database, entry: LogEntry): void {
    if (entry.origin === null && entry.rows.length > 0 && database.up && !this.#world.otherSide(database).up)
      this.broken('I1', `${database.host} commits a write while the other side accepts writes`);
  }

  #oneWriter(): void {
    const accepting = this.#world.databases.filter((d) => !d.up || d.writing.size > 0);
    if (accepting.length > 1) this.broken('I1', 'both sides accept writes');
  }

  duplicate(database: Database, row: AppRow): void {
    this.broken('I2', `${database.host} gets write ${row.id} with key ${row.key.toString()}, which it has already`);
  }

  decided(database: Database, decision: Decision, before: DecisionState | null): void {
    const { epoch, state } = decision;
    this.#world.trace(() => `${database.host}: epoch ${epoch.toString()} is ${state}`);
    if (before !== null && DECIDED.includes(before) && before !== state)
      this.broken('I3', `epoch ${epoch.toString()} was ${before} and becomes ${state}`);
    const there = this.#world.otherSide(database).decisions.get(epoch)?.state;
    if (there && DECIDED.includes(there) && DECIDED.includes(state) && isCommitted(there) !== isCommitted(state))
      this.broken('I3', `epoch ${epoch.toString()} is ${state} at ${database.host} and ${there} at the other side`);
  }

  waited(waitMs: number): void {
    this.longestWaitMs = Math.max(this.longestWaitMs, waitMs);
  }

  clientNoticed(name: string, outcome: Outcome): void {
    if (!this.disturbed) this.broken('unnoticed', `client ${name} reads an error: its write was ${outcome}`);
  }

  /** An open gate leads to the side of the decision that the node says it acted on. */
  lookAtNode(node: RunningNode): void {
    const { proxy } = node;
    if (!proxy.moved) return;
    proxy.moved = false;
    void node.node.state(DATABASE).then((state: NodeState) => {
      if (proxy.gate(DATABASE).closed) return;
      const host = proxy.route(DATABASE);
      const decided = this.#decision(state.epochResolved);
      if (decided && this.#sideOf(decided) !== host)
        this.broken(
          'I3',
          `${node.actor.name} says it acted on epoch ${decided.epoch.toString()} (${decided.state}) and serves ${host}`,
        );
    });
  }

  #decision(epoch: number): Decision | undefined {
    const known = this.#world.databases.flatMap((d) => d.decisions.get(epoch) ?? []);
    return known.find((d) => DECIDED.includes(d.state));
  }

  #sideOf(decision: Decision): string {
    const side = isCommitted(decision.state) ? decision.destination : decision.source;
    return this.#world.databases.find((d) => d.systemIdentifier === side.systemIdentifier)?.host ?? 'nowhere';
  }

  // ── once everything is healed and quiet ───────────────────────────────────────────────────────────────────────────────

  lookAtTheEnd(): void {
    const world = this.#world;
    const epochs = new Set(world.databases.flatMap((d) => [...d.decisions.keys()]));
    const decided = [...epochs].sort((a, b) => b - a).flatMap((epoch) => this.#decision(epoch) ?? []);
    const host = decided[0] ? this.#sideOf(decided[0]) : world.source.host;
    const serving = world.databaseAt(host);
    if (serving.up) this.broken('I4', `${host}, which serves, refuses writes for good`);
    if (!world.otherSide(serving).up)
      this.broken('I1', `${world.otherSide(serving).host} accepts writes and does not serve`);
    for (const process of world.processes) this.#lookAtProcess(process.node, host);
    this.#lookAtRows(serving);
    const { leaseMs, drainMs, timeoutMs } = world.patience;
    // Drain, the seal's wait for writers (half a lease), the proof; then the engine dies and the lease is waited for.
    const boundMs = drainMs + 0.5 * leaseMs + timeoutMs + leaseMs + DETECTION_MS + this.allowanceMs;
    if (this.longestWaitMs > boundMs)
      this.broken('I4', `a client waited ${this.longestWaitMs.toFixed(0)} ms, the bound is ${boundMs.toFixed(0)} ms`);
  }

  #lookAtProcess(node: RunningNode | null, host: string): void {
    if (!node) return;
    const { actor, proxy, clients } = node;
    const { reasons } = proxy.gate(DATABASE);
    if (reasons.length > 0) this.broken('I4', `${actor.name} holds its clients for good: ${reasons.join(', ')}`);
    if (proxy.route(DATABASE) !== host) this.broken('I3', `${actor.name} serves ${proxy.route(DATABASE)}, not ${host}`);
    if (clients.some((client) => client.waitingSince !== null))
      this.broken('I4', `a client of ${actor.name} waits for good`);
  }

  #lookAtRows(serving: Database): void {
    const other = this.#world.otherSide(serving);
    for (const id of this.#world.book.acknowledged)
      if (!serving.rows.has(id)) {
        this.broken('I2', `write ${id} was acknowledged and is not at ${serving.host}`);
        return;
      }
    const apart = [...serving.rows.keys()].filter((id) => !other.rows.has(id));
    const extra = [...other.rows.keys()].filter((id) => !serving.rows.has(id));
    if (extra.length > 0) this.broken('I2', `${other.host} has writes that ${serving.host} lacks: ${extra[0] ?? ''}`);
    if (apart.length > 0)
      this.broken('I5', `${apart.length.toString()} writes of ${serving.host} do not arrive at ${other.host}`);
  }
}
