/**
 * One task: turn replication round inside the pause, for a pair in which a server is older than PostgreSQL 16.
 *
 * Such a publisher cannot leave out what came by replication, so the two directions must never run at the same time:
 * forward is disabled first, then the reverse slot is made, and an abort takes the reverse away before forward runs again.
 */
import type { EpochPlan, Heading, Migration } from '../src/cutover/contract.js';
import type { Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import type { Connection } from '../src/postgres/connection.js';
import { forgetCanaries } from '../src/postgres/parity.js';
import { isCommitted, readRecord, type DecisionState } from '../src/postgres/record.js';
import {
  disableSubscription,
  dropSlot,
  dropSubscription,
  enableSubscription,
  ensureReplicationRole,
  ensureSlot,
  ensureSubscription,
  replicationRole,
  streamName,
} from '../src/postgres/streams.js';
import type { EngineContext } from './context.js';

const other = (heading: Heading): Heading => (heading === 'forward' ? 'reverse' : 'forward');

/** Any number no other program takes: the advisory lock under which streams are turned. */
const TURN_LOCK = 7_283_190_441;
const turns = new WeakMap<Connection, Promise<unknown>>();

/**
 * One engine turns the streams at a time, in this process or another (an advisory lock is held by a session): two passwords
 * of the replication role set side by side would leave a subscription that can never connect again.
 */
async function inTurn(destination: Connection, work: () => Promise<void>): Promise<void> {
  const earlier = turns.get(destination) ?? Promise.resolve();
  const turn = earlier.then(async () => {
    await destination.query('SELECT pg_advisory_lock($1)', [TURN_LOCK]);
    try {
      await work();
    } finally {
      await destination.query('SELECT pg_advisory_unlock($1)', [TURN_LOCK]);
    }
  });
  turns.set(
    destination,
    turn.catch(() => undefined),
  );
  await turn;
}

/** The state of the epoch as long as neither side knows a later one; null once one does. */
async function stateInHand(context: EngineContext, plan: EpochPlan): Promise<DecisionState | null> {
  const records = await Promise.all(
    [plan.source, plan.destination].map(async (side) =>
      readRecord(await context.connections.get(await context.directory.endpointOf(side), 'record')),
    ),
  );
  const decisions = records.flatMap((record) => record?.decisions ?? []);
  if (decisions.some((d) => d.epoch > plan.epoch)) return null;
  return decisions.find((d) => d.epoch === plan.epoch)?.state ?? null;
}

/**
 * May be called again: a repeat finds the same slot and subscription. A step that comes after the decision turns nothing: it
 * would stop the stream of an epoch that was aborted, for good.
 *
 * @throws CutoverError `epoch_closed` when the epoch was aborted or is no longer the latest
 */
export async function createReverseNow(context: EngineContext, plan: EpochPlan): Promise<void> {
  const sourceEndpoint = await context.directory.endpointOf(plan.source);
  const destinationEndpoint = await context.directory.endpointOf(plan.destination);
  const source = await context.connections.get(sourceEndpoint, 'seal');
  const destination = await context.connections.get(destinationEndpoint, 'parity');
  const name = streamName(plan.migration.id, other(plan.heading));
  await inTurn(destination, async () => {
    const state = await stateInHand(context, plan);
    if (state !== null && isCommitted(state)) return;
    if (state !== 'sealed') throw new CutoverError('epoch_closed', { epoch: plan.epoch, state: state ?? 'overtaken' });
    await disableSubscription(destination, streamName(plan.migration.id, plan.heading));
    await ensureSlot(destination, name);
    const role = replicationRole(plan.migration.id, other(plan.heading), null);
    const publisher = await ensureReplicationRole(destination, destinationEndpoint, role, []);
    await ensureSubscription(source, name, publisher, { copyData: false, binary: false, originNone: false });
  });
}

/**
 * After an abort: the reverse goes, then forward applies again. May be called again; called late, when a later epoch has
 * made streams of the same names, it leaves them alone.
 */
export async function undoReverse(context: EngineContext, plan: EpochPlan): Promise<void> {
  const destination = await context.connections.get(await context.directory.endpointOf(plan.destination), 'parity');
  await inTurn(destination, async () => {
    if ((await stateInHand(context, plan)) === 'aborted')
      await turnForward(context, plan.migration, plan.heading, plan);
  });
}

interface Sides {
  readonly source: Side;
  readonly destination: Side;
}

/** Before an attempt: forward applies, and nothing is left of the way back of an earlier one. May be called again. */
export async function applyForward(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  sides: Sides,
): Promise<void> {
  const destination = await context.connections.get(await context.directory.endpointOf(sides.destination), 'parity');
  await inTurn(destination, () => turnForward(context, migration, heading, sides));
}

/**
 * The canary of an attempt came to the source by the way back, and forward, which cannot leave it out, would bring it home
 * again: there it must not be any more, or the apply worker fails on its key for ever.
 */
async function turnForward(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  sides: Sides,
): Promise<void> {
  const source = await context.connections.get(await context.directory.endpointOf(sides.source), 'seal');
  const destination = await context.connections.get(await context.directory.endpointOf(sides.destination), 'parity');
  const leftOver = streamName(migration.id, other(heading));
  await dropSubscription(source, leftOver);
  await dropSlot(destination, leftOver);
  await forgetCanaries(destination, sides.destination.systemIdentifier);
  await enableSubscription(destination, streamName(migration.id, heading));
}

/** After a commit: the stream that brought the data is no longer needed and would loop if it ran. */
export async function retireForward(context: EngineContext, plan: EpochPlan): Promise<void> {
  const source = await context.connections.get(await context.directory.endpointOf(plan.source), 'seal');
  const destination = await context.connections.get(await context.directory.endpointOf(plan.destination), 'parity');
  const name = streamName(plan.migration.id, plan.heading);
  await dropSubscription(destination, name);
  await dropSlot(source, name);
}
