/** One task: what has to be proven of the source's standbys inside the pause, beside the parity of the destination. */
import type { EpochPlan } from '../src/cutover/contract.js';
import { CutoverError } from '../src/errors/errors.js';
import { standbysBehind } from '../src/postgres/standbys.js';
import type { EngineContext } from './context.js';
import { poll } from './poll.js';

/**
 * A fail-over to a standby without the seal would undo it after the destination has opened.
 *
 * @throws CutoverError `standby_behind` naming those that have not flushed it within the time of the pause
 */
export async function standbysHaveSeal(context: EngineContext, plan: EpochPlan): Promise<void> {
  // The connection that sealed: it has nothing else to do now.
  const source = await context.connections.get(await context.directory.endpointOf(plan.source), 'seal');
  let target: string | null = null;
  const answer = await poll(plan.timeoutMs, async () => {
    const standbys = await standbysBehind(source, target);
    target = standbys.target;
    return { done: standbys.behind.length === 0, missing: standbys.behind.join('; ') };
  });
  if (!answer.done) throw new CutoverError('standby_behind', { waitedMs: plan.timeoutMs, standbys: answer.missing });
}
