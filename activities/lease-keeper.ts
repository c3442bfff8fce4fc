/** One task: keep the leases of all nodes alive while a part of the pause works, and notice a node or a server that has fallen silent. */
import type { EpochPlan } from '../src/cutover/contract.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import type { FleetNode } from '../src/fleet/node.js';

/** Renewals in one lease: two may be lost before it ends. */
const RENEWALS_PER_LEASE = 3;
/** No statement of the pause takes a larger part of the lease: the longest is the seal, which waits half of it for other writers. */
const STATEMENT_SHARE = 0.6;

/** Asks a server with each renewal, on a connection that nothing else waits on. */
class Pulse {
  readonly #ask: () => Promise<unknown>;
  #answered = true;
  #asking = false;

  constructor(ask: () => Promise<unknown>) {
    this.#ask = ask;
  }

  /** Whether the last question was answered; asks the next one. */
  beat(): boolean {
    const answered = this.#answered;
    if (!this.#asking) void this.#question();
    return answered;
  }

  async #question(): Promise<void> {
    this.#asking = true;
    this.#answered = false;
    try {
      await this.#ask();
      this.#answered = true;
    } catch {
      // No answer is the answer; asked again with the next renewal.
    } finally {
      this.#asking = false;
    }
  }
}

/**
 * Renews three times a lease. A node that has not answered for two renewals is silent: its part of the
 * clients could not be told what was decided, so an undecided epoch is better aborted (docs/protocol.md, section 4).
 *
 * While a server does not answer, or one of its sessions does not that a step waits for, nothing is renewed: a step that hangs on it would hold the clients for as long as it hangs. Without
 * renewals the nodes decide, each by connections of its own. They do so as well once a part has taken longer than all its waits
 * together, whatever it hangs on.
 */
export class LeaseKeeper {
  /** rejects with the name of a node that has fallen silent; never resolves */
  readonly lost: Promise<never>;
  readonly #timer: NodeJS.Timeout;
  readonly #heardAt = new Map<FleetNode, number>();
  #ended = false;

  /**
   * @param servers asks a server of the move whether it is there
   * @param unansweredMs how long the longest wait of a step for an answer of a server has lasted
   */
  constructor(
    nodes: readonly FleetNode[],
    plan: EpochPlan,
    servers: readonly (() => Promise<unknown>)[],
    unansweredMs: () => number,
  ) {
    const { leaseMs, epoch, migration } = plan;
    const everyMs = leaseMs / RENEWALS_PER_LEASE;
    const silenceMs = 2 * everyMs;
    const beganAt = performance.now();
    const pulses = servers.map((ask) => new Pulse(ask));
    const patienceMs = plan.drainMs + plan.timeoutMs + leaseMs;
    let lose: (error: CutoverError) => void = () => undefined;
    this.lost = new Promise<never>((_, reject) => {
      lose = reject;
    });
    // Nobody may wait for it by then.
    this.lost.catch(() => undefined);
    for (const node of nodes) this.#heardAt.set(node, performance.now());
    const renew = async (node: FleetNode): Promise<void> => {
      let problem = 'it has not answered';
      try {
        await node.renew(migration.database, epoch, leaseMs);
        this.#heardAt.set(node, performance.now());
      } catch (error) {
        problem = messageOf(error);
      }
      const silentMs = performance.now() - (this.#heardAt.get(node) ?? 0);
      if (silentMs > silenceMs && !this.#ended)
        lose(
          new CutoverError('node_unreachable', {
            node: node.name,
            problem: `silent for ${Math.round(silentMs).toString()} ms: ${problem}`,
          }),
        );
    };
    this.#timer = setInterval(() => {
      if (performance.now() - beganAt > patienceMs) {
        const problem = `a step has had no answer within ${patienceMs.toString()} ms`;
        lose(new CutoverError('record_unreachable', { database: migration.database, problem }));
        this.end();
        return;
      }
      // All are asked, whatever the first one says. Time in which a node is not asked is no silence of its own.
      const present = pulses.map((pulse) => pulse.beat()).every(Boolean) && unansweredMs() <= STATEMENT_SHARE * leaseMs;
      for (const node of nodes)
        if (present) void renew(node);
        else this.#heardAt.set(node, (this.#heardAt.get(node) ?? 0) + everyMs);
    }, everyMs);
  }

  end(): void {
    this.#ended = true;
    clearInterval(this.#timer);
  }
}
