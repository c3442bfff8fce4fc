/** One task: make, watch and remove the streams of a migration. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Heading, Migration, Turn } from '../src/cutover/contract.js';
import { shardsOf } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { qualified } from '../src/postgres/fence.js';
import { publishedTables, withParents } from '../src/postgres/publications.js';
import { forgetRanges } from '../src/postgres/ranges/ledger.js';
import {
  dropPublication,
  dropReplicationRole,
  dropSubscription,
  ensurePublication,
  ensureReplicationRole,
  ensureSlot,
  ensureSubscription,
  streamHealth,
  type PublishedTable,
  type SubscriptionState,
} from '../src/postgres/streams.js';
import { refuseTruncate } from '../src/postgres/truncate-guard.js';
import { sendWholeRows } from '../src/postgres/whole-rows.js';
import { connectionTo, type EngineContext } from './context.js';
import { SlotLimits, type Alarm } from './limits.js';
import { prepareSide } from './prepared-identities.js';
import { keyedTables, publicationOf, tablesOf } from './published-rows.js';
import { beginningsOf } from './ranged-streams.js';
import { requireUnchanged } from './schema-changes.js';
import { lastTurn } from './situation.js';
import { endsOf, streamsFrom, streamsOf, type Stream } from './stream-ends.js';

const POLL_MS = 1_000;
const HEALTHY_DEADLINE_MS = 60_000;

interface StreamsOptions {
  readonly copyData: boolean;
  /** what each stream begins with, by the shard that it leads to: other tables are added when they are copied. Absent: every table */
  readonly beginnings?: readonly SubscriptionState[];
}

/** Publications, roles, slots and subscriptions of a direction; may be called again. */
async function createStreams(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  options: StreamsOptions,
): Promise<void> {
  for (const [shard] of shardsOf(endsOf(migration, heading).publisher).entries()) {
    const streams = streamsFrom(migration, heading, shard);
    const endpoint = await publish(context, migration, streams, options.beginnings);
    // One role for all of them: its password is a new one each time.
    for (const stream of streams) await subscribe(context, migration, stream, endpoint, options);
  }
}

/**
 * What the streams that leave one shard need of it.
 *
 * @returns where their subscriptions connect to
 */
async function publish(
  context: EngineContext,
  migration: Migration,
  streams: readonly Stream[],
  beginnings: StreamsOptions['beginnings'],
): Promise<Endpoint> {
  const [first] = streams;
  if (!first) throw new CutoverError('stream_lost', { stream: migration.id, problem: 'no shard publishes' });
  const from = await connectionTo(context, first.publisher);
  const tables = await publishedTables(await connectionTo(context, migration.source), migration.publication);
  if (first.shards.publishing > 1) await refuseTruncate(from, await withParents(from, tables));
  await sendWholeRows(from, await keyedTables(context, migration, first));
  const endpoint = await context.directory.endpointOf(first.publisher);
  const granted = await ensureReplicationRole(from, endpoint, first.role, tables);
  for (const stream of streams) {
    const beginning = beginnings?.[stream.to];
    const carried = await tablesOf(context, migration, stream);
    await ensurePublication(
      from,
      stream.name,
      beginning ? amongThem(carried, beginning) : carried,
      publicationOf(stream),
    );
    // Of a held one it is made with the snapshot that the rows are read by.
    if (beginning?.held !== true) await ensureSlot(from, stream.name);
  }
  return granted;
}

/** With their row filters. */
function amongThem(carried: readonly PublishedTable[], { tables }: SubscriptionState): readonly PublishedTable[] {
  const names = new Set(tables.map(qualified));
  return carried.filter((table) => names.has(qualified(table)));
}

async function subscribe(
  context: EngineContext,
  migration: Migration,
  { name, subscriber, to }: Stream,
  endpoint: Endpoint,
  { copyData, beginnings }: StreamsOptions,
): Promise<void> {
  const held = beginnings?.[to]?.held === true;
  await ensureSubscription(await connectionTo(context, subscriber), name, endpoint, {
    copyData: copyData && !held,
    held,
    binary: context.config().cutover.copyFormat === 'binary' && migration.concurrent,
    originNone: migration.concurrent,
  });
}

/** Of an activity that nobody can stop. */
const NEVER = new AbortController().signal;

/** @param stopped gives up an index that is built for the streams */
export async function createForward(
  context: EngineContext,
  migration: Migration,
  options: { copyData: boolean },
  stopped = NEVER,
): Promise<void> {
  await prepareSide(context, migration, 'forward', stopped);
  const beginnings = options.copyData ? { beginnings: await beginningsOf(context, migration) } : {};
  await createStreams(context, migration, 'forward', { ...options, ...beginnings });
}

/**
 * Both directions run from here on, where both servers can tell them apart; elsewhere it is made inside the pause.
 *
 * @param stopped gives up an index that is built for the streams
 */
export async function createReverse(context: EngineContext, migration: Migration, stopped = NEVER): Promise<void> {
  if (migration.concurrent) {
    await prepareSide(context, migration, 'reverse', stopped);
    await createStreams(context, migration, 'reverse', { copyData: false });
    for (const stream of streamsOf(migration, 'reverse')) await seeHealthy(context, stream);
    return;
  }
  // Everything that does not stream yet can still be made ahead.
  for (const stream of streamsOf(migration, 'reverse')) {
    const from = await connectionTo(context, stream.publisher);
    const tables = await tablesOf(context, migration, stream);
    await ensureReplicationRole(from, await context.directory.endpointOf(stream.publisher), stream.role, tables);
    await ensurePublication(from, stream.name, tables);
  }
}

async function seeHealthy(context: EngineContext, { name, publisher }: Stream): Promise<void> {
  const from = await connectionTo(context, publisher);
  const end = performance.now() + HEALTHY_DEADLINE_MS;
  for (;;) {
    const health = await streamHealth(from, name);
    if (health?.active === true) return;
    if (performance.now() > end) throw new CutoverError('stream_lost', { stream: name, problem: 'nobody receives it' });
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

/** Of each heading the longest lag. */
async function lagsOf(context: EngineContext, migration: Migration): Promise<Readonly<Record<string, number>>> {
  const lags: Record<string, number> = {};
  for (const heading of ['forward', 'reverse'] as const)
    for (const { name, publisher } of streamsOf(migration, heading)) {
      const health = await streamHealth(await connectionTo(context, publisher), name);
      if (health?.lost === true)
        throw new CutoverError('stream_lost', { stream: name, problem: 'its WAL was removed' });
      if (health) lags[heading] = Math.max(lags[heading] ?? 0, health.lagBytes);
    }
  if (Object.keys(lags).length === 0)
    throw new CutoverError('stream_lost', { stream: migration.id, problem: 'no slot is left' });
  return lags;
}

/** Subscriptions first, so that nobody comes back for a slot; then publications, slots and roles, on both sides. */
export async function removeStreams(context: EngineContext, migration: Migration): Promise<void> {
  const streams = (['forward', 'reverse'] as const).flatMap((heading) => streamsOf(migration, heading));
  for (const shard of shardsOf(migration.destination))
    await forgetRanges(await connectionTo(context, shard), migration.id);
  for (const { name, subscriber } of streams) await dropSubscription(await connectionTo(context, subscriber), name);
  for (const { name, publisher } of streams) await dropPublication(await connectionTo(context, publisher), name);
  for (const { role, publisher } of streams) await dropReplicationRole(await connectionTo(context, publisher), role);
}
