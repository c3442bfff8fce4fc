/** One task: what has to be proven of the servers behind both sides inside the pause, beside parity and canary. */
import type { EpochPlan } from '../src/cutover/contract.js';
import { shardsOf, sideKey } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import type { Connection } from '../src/postgres/connection.js';
import { expectSide, expectTimeline, readIdentity, readRecord } from '../src/postgres/record.js';
import { standbysBehind } from '../src/postgres/standbys.js';
import type { EngineContext } from './context.js';
import { poll } from './poll.js';

/**
 * A fail-over to a standby without the seal would undo it after the destination has opened.
 *
 * @throws CutoverError `standby_behind` naming those that have not flushed it within the time of the pause
 */
export async function standbysHaveSeal(context: EngineContext, plan: EpochPlan): Promise<void> {
  await Promise.all(
    shardsOf(plan.source).map(async (shard) => {
      // The connection that sealed: it has nothing else to do now.
      await standbysFlushed(await context.connections.get(await context.directory.endpointOf(shard), 'seal'), plan);
    }),
  );
}

/**
 * The commit is written on shard 0 of the source, which proves by itself that its seal stands. Of the others it is looked at here: from
 * the seal on nobody but an abort on shard 0 releases them.
 *
 * @throws CutoverError `epoch_closed` | `failed_over` | `wrong_server`
 */
export async function sourceStands(context: EngineContext, plan: EpochPlan): Promise<void> {
  await Promise.all(
    (plan.source.otherShards ?? []).map(async (shard) => {
      const connection = await context.connections.get(await context.directory.endpointOf(shard), 'record');
      const record = await readRecord(connection);
      if (record === null) throw new CutoverError('epoch_closed', { epoch: plan.epoch, state: 'unknown' });
      expectSide(record.identity, shard);
      expectTimeline(record.identity, shard, 'source', `epoch ${plan.epoch.toString()} began`);
      const { epoch, state, nonce, up } = record.fence;
      if (epoch !== plan.epoch || nonce !== plan.nonce || state !== 'sealed' || !up)
        throw new CutoverError('epoch_closed', { epoch: plan.epoch, state: `${state} on shard ${sideKey(shard)}` });
    }),
  );
}

/**
 * The last look before the commit: what was proven was proven by the server that was pinned, and is on its standbys. A standby
 * promoted without it could not get it again: the source's slot has moved on.
 *
 * @throws CutoverError `standby_behind` | `failed_over` | `wrong_server`
 */
export async function destinationStands(context: EngineContext, plan: EpochPlan): Promise<void> {
  await Promise.all(
    shardsOf(plan.destination).map(async (shard) => {
      const destination = await context.connections.get(await context.directory.endpointOf(shard), 'parity');
      await standbysFlushed(destination, plan);
      const identity = await readIdentity(destination);
      expectSide(identity, shard);
      expectTimeline(identity, shard, 'destination', `epoch ${plan.epoch.toString()} began`);
    }),
  );
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
