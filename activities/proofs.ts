/** One task: what has to be proven of the servers behind both sides inside the pause, beside parity and canary. */
import type { EpochPlan } from '../src/cutover/contract.js';
import { CutoverError } from '../src/errors/errors.js';
import type { Connection } from '../src/postgres/connection.js';
import { expectSide, expectTimeline, readIdentity } from '../src/postgres/record.js';
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
  await standbysFlushed(source, plan);
}

/**
 * The last look before the commit: what was proven was proven by the server that was pinned, and is on its standbys. A standby
 * promoted without it could not get it again: the source's slot has moved on.
 *
 * @throws CutoverError `standby_behind` | `failed_over` | `wrong_server`
 */
export async function destinationStands(context: EngineContext, plan: EpochPlan): Promise<void> {
  const destination = await context.connections.get(await context.directory.endpointOf(plan.destination), 'parity');
  await standbysFlushed(destination, plan);
  const identity = await readIdentity(destination);
  expectSide(identity, plan.destination);
  expectTimeline(identity, plan.destination, 'destination', `epoch ${plan.epoch.toString()} began`);
}

async function standbysFlushed(side: Connection, plan: EpochPlan): Promise<void> {
  let target: string | null = null;
  const answer = await poll(plan.timeoutMs, async () => {
    const standbys = await standbysBehind(side, target);
    target = standbys.target;
    return { done: standbys.behind.length === 0, missing: standbys.behind.join('; ') };
  });
  if (!answer.done) throw new CutoverError('standby_behind', { waitedMs: plan.timeoutMs, standbys: answer.missing });
}
