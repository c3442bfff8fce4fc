/**
 * One task: turn replication round inside the pause, for a pair in which a server is older than PostgreSQL 16.
 *
 * Such a publisher cannot leave out what came by replication, so the two directions must never run at the same time:
 * forward is disabled first, then the reverse slot is made, and an abort takes the reverse away before forward runs again.
 */
import type { EpochPlan, Heading } from '../src/cutover/contract.js';
import { quoteIdentifier } from '../src/postgres/connection.js';
import {
  disableSubscription,
  dropSlot,
  dropSubscription,
  ensureReplicationRole,
  ensureSlot,
  ensureSubscription,
  streamName,
} from '../src/postgres/streams.js';
import type { EngineContext } from './context.js';

const other = (heading: Heading): Heading => (heading === 'forward' ? 'reverse' : 'forward');

/** May be called again: a repeat finds the same slot and subscription. */
export async function createReverseNow(context: EngineContext, plan: EpochPlan): Promise<void> {
  const sourceEndpoint = await context.directory.endpointOf(plan.source);
  const destinationEndpoint = await context.directory.endpointOf(plan.destination);
  const source = await context.connections.get(sourceEndpoint, 'seal');
  const destination = await context.connections.get(destinationEndpoint, 'parity');
  const name = streamName(plan.migration.id, other(plan.heading));
  await disableSubscription(destination, streamName(plan.migration.id, plan.heading));
  await ensureSlot(destination, name);
  const publisher = await ensureReplicationRole(destination, destinationEndpoint, plan.migration.id, []);
  await ensureSubscription(source, name, publisher, { copyData: false, binary: false, originNone: false });
}

/** After an abort: the reverse goes, then forward applies again. May be called again. */
export async function undoReverse(context: EngineContext, plan: EpochPlan): Promise<void> {
  const source = await context.connections.get(await context.directory.endpointOf(plan.source), 'seal');
  const destination = await context.connections.get(await context.directory.endpointOf(plan.destination), 'parity');
  const name = streamName(plan.migration.id, other(plan.heading));
  await dropSubscription(source, name);
  await dropSlot(destination, name);
  await destination.query(`ALTER SUBSCRIPTION ${quoteIdentifier(streamName(plan.migration.id, plan.heading))} ENABLE`);
}

/** After a commit: the stream that brought the data is no longer needed and would loop if it ran. */
export async function retireForward(context: EngineContext, plan: EpochPlan): Promise<void> {
  const source = await context.connections.get(await context.directory.endpointOf(plan.source), 'seal');
  const destination = await context.connections.get(await context.directory.endpointOf(plan.destination), 'parity');
  const name = streamName(plan.migration.id, plan.heading);
  await dropSubscription(destination, name);
  await dropSlot(source, name);
}
