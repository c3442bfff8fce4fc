/** One task: make, watch and remove the streams of a migration. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Heading, Migration, Turn } from '../src/cutover/contract.js';
import type { Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { publishedTables } from '../src/postgres/publications.js';
import {
  dropPublication,
  dropReplicationRole,
  dropSubscription,
  ensurePublication,
  ensureReplicationRole,
  ensureSlot,
  ensureSubscription,
  streamHealth,
  streamName,
} from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { SlotLimits, type Alarm } from './limits.js';
import { requireUnchanged } from './schema-changes.js';
import { lastTurn } from './situation.js';

const POLL_MS = 1_000;
const HEALTHY_DEADLINE_MS = 60_000;

interface StreamEnds {
  readonly publisher: Side;
  readonly subscriber: Side;
}

function endsOf(migration: Migration, heading: Heading): StreamEnds {
  return heading === 'forward'
    ? { publisher: migration.source, subscriber: migration.destination }
    : { publisher: migration.destination, subscriber: migration.source };
}

/** Publication, role, slot and subscription of a direction; may be called again. */
async function createStream(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  options: { copyData: boolean; markerOnly: boolean },
): Promise<void> {
  const { publisher, subscriber } = endsOf(migration, heading);
  const from = await connectionTo(context, publisher);
  const to = await connectionTo(context, subscriber);
  const name = streamName(migration.id, heading);
  const tables = await publishedTables(await connectionTo(context, migration.source), migration.publication);
  const endpoint = await ensureReplicationRole(
    from,
    await context.directory.endpointOf(publisher),
    migration.id,
    tables,
  );
  await ensurePublication(from, name, options.markerOnly ? [] : tables);
  await ensureSlot(from, name);
  await ensureSubscription(to, name, endpoint, {
    copyData: options.copyData,
    binary: context.config().cutover.copyFormat === 'binary' && migration.concurrent,
    originNone: migration.concurrent,
  });
}

export async function createForward(
  context: EngineContext,
  migration: Migration,
  options: { copyData: boolean },
): Promise<void> {
  await createStream(context, migration, 'forward', { ...options, markerOnly: options.copyData });
}

/** Both directions run from here on, where both servers can tell them apart; elsewhere it is made inside the pause. */
export async function createReverse(context: EngineContext, migration: Migration): Promise<void> {
  const { publisher } = endsOf(migration, 'reverse');
  if (migration.concurrent) {
    await createStream(context, migration, 'reverse', { copyData: false, markerOnly: false });
    await seeHealthy(context, migration, 'reverse');
    return;
  }
  // Everything that does not stream yet can still be made ahead.
  const from = await connectionTo(context, publisher);
  const tables = await publishedTables(await connectionTo(context, migration.source), migration.publication);
  await ensureReplicationRole(from, await context.directory.endpointOf(publisher), migration.id, tables);
  await ensurePublication(from, streamName(migration.id, 'reverse'), tables);
}

async function seeHealthy(context: EngineContext, migration: Migration, heading: Heading): Promise<void> {
  const from = await connectionTo(context, endsOf(migration, heading).publisher);
  const end = performance.now() + HEALTHY_DEADLINE_MS;
  for (;;) {
    const health = await streamHealth(from, streamName(migration.id, heading));
    if (health?.active === true) return;
    if (performance.now() > end)
      throw new CutoverError('stream_lost', {
        stream: streamName(migration.id, heading),
        problem: 'nobody receives it',
      });
    await delay(POLL_MS / 5);
  }
}

/**
 * Watches until `untilMs` on the monotonic clock; fails when a slot is gone, has lost its WAL, or is beyond a limit that ends the
 * migration, and before a commit when a client has changed the schema.
 *
 * @returns the move that was missed when another side serves than `moved` says, null otherwise
 */
export async function watchStreams(
  context: EngineContext,
  migration: Migration,
  moved: boolean,
  untilMs: number,
  report: (lags: Readonly<Record<string, number>>) => Promise<void>,
  alarm: Alarm,
): Promise<Turn | null> {
  const limits = new SlotLimits(context, migration, alarm);
  while (performance.now() < untilMs) {
    // First, and by itself: the side that is gone is why the other one's slot grows.
    await limits.check(moved);
    await report(await lagsOf(context, migration));
    const turn = await lastTurn(context, migration);
    if ((turn.heading === 'forward') !== moved) return turn;
    if (!moved) await requireUnchanged(context, migration);
    await delay(POLL_MS);
  }
  return null;
}

async function lagsOf(context: EngineContext, migration: Migration): Promise<Readonly<Record<string, number>>> {
  const lags: Record<string, number> = {};
  for (const heading of ['forward', 'reverse'] as const) {
    const name = streamName(migration.id, heading);
    const health = await streamHealth(await connectionTo(context, endsOf(migration, heading).publisher), name);
    if (health?.lost === true) throw new CutoverError('stream_lost', { stream: name, problem: 'its WAL was removed' });
    if (health) lags[heading] = health.lagBytes;
  }
  if (Object.keys(lags).length === 0)
    throw new CutoverError('stream_lost', { stream: migration.id, problem: 'no slot is left' });
  return lags;
}

/** Subscriptions first, so that nobody comes back for a slot; then publications, slots and roles, on both sides. */
export async function removeStreams(context: EngineContext, migration: Migration): Promise<void> {
  for (const heading of ['forward', 'reverse'] as const)
    await dropSubscription(
      await connectionTo(context, endsOf(migration, heading).subscriber),
      streamName(migration.id, heading),
    );
  for (const heading of ['forward', 'reverse'] as const)
    await dropPublication(
      await connectionTo(context, endsOf(migration, heading).publisher),
      streamName(migration.id, heading),
    );
  for (const side of [migration.source, migration.destination])
    await dropReplicationRole(await connectionTo(context, side), migration.id);
}
