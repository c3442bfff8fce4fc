/** One task: keep the leases of all nodes alive while a part of the pause works, and notice a node that has fallen silent. */
import type { EpochPlan } from '../src/cutover/contract.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import type { FleetNode } from '../src/fleet/node.js';

/** Renewals in one lease: two may be lost before it ends. */
const RENEWALS_PER_LEASE = 3;

/**
 * Renews three times a lease. A node that has not answered for two renewals is silent: its part of the
 * clients could not be told what was decided, so an undecided epoch is better aborted (docs/protocol.md, section 4).
 *
 * A part that takes longer than all its waits together hangs on a server that went silent. Renewing on would hold the clients for as
 * long as the connection hangs; without renewals the nodes decide, each by connections of its own.
 */
export class LeaseKeeper {
  /** rejects with the name of a node that has fallen silent; never resolves */
  readonly lost: Promise<never>;
  readonly #timer: NodeJS.Timeout;
  readonly #heardAt = new Map<FleetNode, number>();
  #ended = false;

  constructor(nodes: readonly FleetNode[], plan: EpochPlan) {
    const { leaseMs, epoch, migration } = plan;
    const silenceMs = (2 * leaseMs) / RENEWALS_PER_LEASE;
    const beganAt = performance.now();
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
      for (const node of nodes) void renew(node);
    }, leaseMs / RENEWALS_PER_LEASE);
  }

  end(): void {
    this.#ended = true;
    clearInterval(this.#timer);
  }
}
