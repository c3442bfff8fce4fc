/**
 * One task: hold the clients of one database at a transaction boundary.
 *
 * A gate is closed by a *set of named reasons*, so that MAINTENANCE, PAUSE and a cutover never open each other's.
 * While any reason stands, a client inside a transaction finishes it and every other client waits with its bytes unread.
 */
import type { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';

export type GateReason = 'maintenance' | 'pause' | 'cutover' | 'recovery';

/** A client that still runs a transaction while the gate is closed. */
export interface Holder {
  readonly clientId: number;
  readonly user: string;
  readonly application: string;
  /** process id of the server session the client holds */
  readonly serverPid: number;
  readonly transactionMs: number;
}

export interface Drain {
  readonly drained: boolean;
  readonly waitedMs: number;
  /** who was still running at the deadline; empty when drained */
  readonly holders: readonly Holder[];
}

/** What a gate needs of the sessions behind it. */
export interface GateClients {
  /** sessions that hold a server for this database right now */
  holders(): readonly Holder[];
}

/** Why nobody can say when the gate will open, and how long a client waits before it is told so. */
export interface Outage {
  readonly problem: CutoverError;
  readonly patienceMs: number;
}

/** What one reason has done to the clients since start. */
export interface PastHolds {
  readonly count: number;
  readonly lastMs: number;
}

export class Gate {
  readonly #reasons = new Set<GateReason>();
  /** by the monotonic clock, of the reasons that stand */
  readonly #closedAtMs = new Map<GateReason, number>();
  readonly #holds = new Map<GateReason, PastHolds>();
  /** what lets a waiting client go, and what tells it that its patience has changed */
  readonly #waiting = new Map<() => void, () => void>();
  #outage: Outage | null = null;
  readonly #draining = new Set<() => void>();
  readonly #clients: GateClients;

  constructor(clients: GateClients) {
    this.#clients = clients;
  }

  get reasons(): readonly GateReason[] {
    return [...this.#reasons];
  }

  get closed(): boolean {
    return this.#reasons.size > 0;
  }

  /** sessions that hold a server for this database right now */
  get holders(): readonly Holder[] {
    return this.#clients.holders();
  }

  /** clients that wait at this gate */
  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** Closes for `reason`; may be called again. */
  close(reason: GateReason): void {
    if (!this.#reasons.has(reason)) this.#closedAtMs.set(reason, performance.now());
    this.#reasons.add(reason);
  }

  /** Takes `reason` away and lets the waiting clients go in order of arrival once none is left; may be called again. */
  open(reason: GateReason): void {
    if (this.#reasons.delete(reason)) this.#remember(reason);
    if (this.#reasons.size > 0) return;
    this.#outage = null;
    const waiting = [...this.#waiting.keys()];
    this.#waiting.clear();
    for (const go of waiting) go();
  }

  /** How often `reason` has held clients, and how long the last time; null where it never has, or has not come to an end. */
  holdsFor(reason: GateReason): PastHolds | null {
    return this.#holds.get(reason) ?? null;
  }

  #remember(reason: GateReason): void {
    const lastMs = performance.now() - (this.#closedAtMs.get(reason) ?? 0);
    this.#closedAtMs.delete(reason);
    this.#holds.set(reason, { count: (this.#holds.get(reason)?.count ?? 0) + 1, lastMs });
  }

  get outage(): Outage | null {
    return this.#outage;
  }

  /** Clients that wait, and those who come, are answered sooner, with the problem; until the gate opens. May be called again. */
  fail(outage: Outage): void {
    invariant(this.closed, 'fail() asked of an open gate');
    this.#outage = outage;
    for (const hurry of [...this.#waiting.values()]) hurry();
  }

  /**
   * Calls `go` once the gate is open: at once, on this very call, when it is open now.
   *
   * @param hurry called when the gate fails: the wait may have lasted long enough
   * @returns a function that takes the wait back (the client left or timed out)
   */
  pass(go: () => void, hurry: () => void = () => undefined): () => void {
    if (!this.closed) {
      go();
      return () => undefined;
    }
    this.#waiting.set(go, hurry);
    return () => this.#waiting.delete(go);
  }

  /** To be called by the proxy whenever a session gives its server back. */
  released(): void {
    if (this.#draining.size === 0 || this.#clients.holders().length > 0) return;
    const draining = [...this.#draining];
    this.#draining.clear();
    for (const done of draining) done();
  }

  /**
   * Resolves when no client holds a server, or at the deadline with the list of those who do.
   * The gate must be closed, otherwise the answer would be stale at once.
   */
  drained(deadlineMs: number): Promise<Drain> {
    invariant(this.closed, 'drained() asked of an open gate');
    const start = performance.now();
    const answer = (): Drain => {
      const holders = this.#clients.holders();
      return { drained: holders.length === 0, waitedMs: performance.now() - start, holders };
    };
    if (this.#clients.holders().length === 0) return Promise.resolve(answer());
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        this.#draining.delete(finish);
        resolve(answer());
      };
      const timer = setTimeout(finish, deadlineMs);
      this.#draining.add(finish);
    });
  }
}
