/**
 * One task: watch for the right moment, and ready everything that can be done ahead of the pause.
 *
 * All of it happens inside one heartbeating activity: a workflow's timers and retries are never shorter than a second.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { MomentRequest } from '../src/cutover/activities.js';
import type { EpochPlan, Heading, Migration } from '../src/cutover/contract.js';
import { epochStream } from '../src/cutover/epoch.js';
import { shardsOf, sideOf, type Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { resolveEpoch, servingOf } from '../src/fleet/resolution.js';
import { applyTrouble } from '../src/postgres/apply-health.js';
import { columnsChanged, rememberCatalogue, tablesChanged } from '../src/postgres/catalogue.js';
import type { Connection } from '../src/postgres/connection.js';
import type { Purpose } from '../src/postgres/connections.js';
import { destinationGap, fenceGap, tableGap } from '../src/postgres/fence.js';
import { applyProblems, canaryArrived, parityOf } from '../src/postgres/parity.js';
import { runningMaintenance } from '../src/postgres/preflight/activity.js';
import { roundTrip } from '../src/postgres/preflight/lease.js';
import { beginEpoch, noteEvents, readIdentity, readRecord, type RecordState } from '../src/postgres/record.js';
import { standbysBehind } from '../src/postgres/standbys.js';
import { streamHealth, tableSyncs, type StreamHealth } from '../src/postgres/streams.js';
import { warmUpRecord, warmUpSeal, warmUpSequences } from '../src/postgres/warm-up.js';
import { connectionTo, type EngineContext } from './context.js';
import { computeDerivedData } from './derived-data.js';
import { applyForward } from './exclusive-streams.js';
import { guardsNotYet } from './guards.js';
import { nodesNotYet, requireNodes } from './nodes.js';
import { pinnedSince, readyRecords } from './pinned-sides.js';
import { handOverAhead } from './sequences.js';
import { endsOf, firstFrom, firstTo, streamsFrom, streamsOf, streamsTo, type Stream } from './stream-ends.js';
import { requireVerified } from './verification.js';

const POLL_MS = 100;
const PURPOSES: readonly Purpose[] = ['record', 'seal', 'parity', 'sequences', 'renew'];

/** The sides of an epoch: exchanged when it goes back. */
function sidesOfHeading(migration: Migration, heading: Heading): { source: Side; destination: Side } {
  const { publisher, subscriber } = endsOf(migration, heading);
  return { source: publisher, destination: subscriber };
}

export async function awaitMoment(
  context: EngineContext,
  request: MomentRequest,
  report: (waitingFor: string) => Promise<void>,
): Promise<EpochPlan> {
  const { migration, heading } = request;
  const { source, destination } = sidesOfHeading(migration, heading);
  await readyRecords(context, { source, destination });
  await resolveLeftOver(context, migration, source, destination);
  let pinned = await pinnedSince(context, migration, { source, destination });
  // First of all: what follows would itself wait for a table that somebody has locked.
  for (;;) {
    const maintenance = await maintenanceOf(context, [source, destination]);
    if (maintenance === null) break;
    await report(maintenance);
    await delay(POLL_MS);
  }
  if (request.first === true && request.rehearse !== true)
    await computeDerivedData(context, destination, 'missing', report);
  await warmUp(context, migration, heading);
  if (request.rehearse !== true) await requireVerified(context, migration, heading);
  const { cutover } = context.config();
  const { database, peer } = migration;
  const shards = [source, destination].flatMap(shardsOf);
  const records = await Promise.all(shards.map(async (shard) => readRecord(await connectionTo(context, shard))));
  const floorEpoch = Math.max(0, ...records.flatMap((r) => (r ? [r.fence.epoch, r.decisions[0]?.epoch ?? 0] : [])));
  const nodes = await requireNodes(context, database, report);
  const swap = {
    database,
    peer,
    epoch: floorEpoch + 1,
    serving: sideOf(destination),
    saveConfig: cutover.saveConfig,
  };
  await Promise.all(context.fleet.nodes(nodes).map((node) => node.prepare(swap)));
  let remembered = false;
  for (;;) {
    pinned = await pinnedSince(context, migration, { source, destination });
    const reason = (await nodesNotYet(context, nodes, database)) ?? (await notYet(context, migration, heading));
    await report(reason ?? '');
    if (reason === null && remembered) break;
    // What was compared is remembered for the pause, so it is compared once more after that.
    remembered = reason === null;
    if (remembered) {
      await rememberCatalogues(context, migration, heading);
      await handOverAhead(context, { source, destination }, floorEpoch);
    } else await delay(POLL_MS);
  }
  const problems = await problemsOf(context, migration, heading);
  // Again: the moment may have been long in coming.
  if (request.rehearse !== true) await requireVerified(context, migration, heading);
  const decision = await beginEpoch(await connectionTo(context, source), {
    migration: migration.id,
    attempt: request.attempt,
    nonce: randomUUID(),
    floorEpoch,
    database,
    peer,
    ...pinned,
    fenced: cutover.fence === 'on',
  });
  await noteEvents(await connectionTo(context, source), epochStream(migration.id, decision.epoch), [
    { sequence: 0, type: 'CutoverBegun', data: { epoch: decision.epoch, attempt: request.attempt, heading } },
  ]);
  return {
    migration,
    heading,
    epoch: decision.epoch,
    nonce: decision.nonce,
    attempt: request.attempt,
    ...pinned,
    nodes,
    applyProblems: problems,
    fence: cutover.fence,
    leaseMs: cutover.leaseMs,
    drainMs: cutover.drainTimeoutMs,
    drainAction: cutover.drainAction,
    timeoutMs: cutover.timeoutMs,
    timeoutAction: cutover.timeoutAction,
    acceptLoss: request.acceptLoss,
    saveConfig: cutover.saveConfig,
    maxAttempts: cutover.maxAttempts,
    ...(request.rehearse === true ? { rehearse: true } : {}),
  };
}

/** An epoch somebody began and nobody decided (its engine died before the nodes heard of it) is aborted first. */
export async function resolveLeftOver(
  context: EngineContext,
  migration: Migration,
  source: Side,
  destination: Side,
): Promise<void> {
  const resolve = async (epoch: number, from: Side, to: Side): Promise<void> => {
    const resolved = { database: migration.database, epoch, source: from, destination: to };
    await resolveEpoch(context.directory, context.connections, resolved, 'left behind by an earlier attempt');
  };
  const record = await readRecord(await connectionTo(context, source));
  for (const { epoch, state } of record?.decisions ?? [])
    if (state === 'preparing' || state === 'sealed') await resolve(epoch, source, destination);
  // A shard that did not answer when its epoch was decided.
  const { unfinished = null } = servingOf(await recordsOf(context, source)) ?? {};
  if (unfinished) await resolve(unfinished.epoch, unfinished.source, unfinished.destination);
}

/** The record of a side, with what its other shards say. */
async function recordsOf(context: EngineContext, side: Side): Promise<readonly RecordState[]> {
  const [record, ...others] = await Promise.all(
    shardsOf(side).map(async (shard) => readRecord(await connectionTo(context, shard))),
  );
  return record ? [{ ...record, otherShards: others.filter((other) => other !== null) }] : [];
}

/** Errors and conflicts that the apply workers have met so far; of several streams by their names. */
async function problemsOf(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
): Promise<NonNullable<EpochPlan['applyProblems']> | null> {
  const counts: Record<string, number | null> = {};
  const streams = streamsOf(migration, heading);
  for (const { name, subscriber } of streams)
    counts[name] = await applyProblems(await connectionTo(context, subscriber), name);
  const [first] = streams;
  return streams.length === 1 && first ? (counts[first.name] ?? null) : counts;
}

async function rememberCatalogues(context: EngineContext, migration: Migration, heading: Heading): Promise<void> {
  const { source, destination } = sidesOfHeading(migration, heading);
  for (const [shard, side] of shardsOf(source).entries())
    await rememberAt(context, side, firstFrom(migration, heading, shard).name);
  for (const [shard, side] of shardsOf(destination).entries())
    await rememberAt(context, side, firstTo(migration, heading, shard).name);
}

async function rememberAt(context: EngineContext, shard: Side, stream: string): Promise<void> {
  const endpoint = await context.directory.endpointOf(shard);
  const at = (purpose: Purpose): Promise<Connection> => context.connections.get(endpoint, purpose);
  await rememberCatalogue(await at('record'), stream);
  // What the pause will ask, asked once by each connection: the first time a plan is made for every part of it.
  await columnsChanged(await at('watch'), stream);
  for (const purpose of ['record', 'seal'] as const) await tablesChanged(await at(purpose), stream);
}

/** Connections opened, statements planned, functions called once: the first call of each costs milliseconds. */
async function warmUp(context: EngineContext, migration: Migration, heading: Heading): Promise<void> {
  const { source, destination } = sidesOfHeading(migration, heading);
  for (const shard of [source, destination].flatMap(shardsOf))
    for (const purpose of PURPOSES) await context.connections.get(await context.directory.endpointOf(shard), purpose);
  const at = async (shard: Side, purpose: Purpose): Promise<Connection> =>
    context.connections.get(await context.directory.endpointOf(shard), purpose);
  for (const { name, publisher, subscriber } of streamsOf(migration, heading)) {
    const nobody = { cluster: publisher.systemIdentifier, shard: 0, epoch: 0, nonce: '' };
    const problems = await applyProblems(await at(subscriber, 'parity'), name);
    const mark = { ...nobody, subscription: name, lsn: '0/0', tables: null, applyProblems: problems };
    await parityOf(await at(subscriber, 'parity'), mark);
    await canaryArrived(await at(publisher, 'record'), nobody);
  }
  for (const shard of [source, destination].flatMap(shardsOf)) await warmUpRecord(await at(shard, 'record'));
  for (const shard of shardsOf(destination)) {
    await standbysBehind(await at(shard, 'parity'), null);
    await readIdentity(await at(shard, 'parity'));
  }
  for (const shard of shardsOf(source)) await warmUpSequences(await at(shard, 'sequences'));
  for (const shard of shardsOf(destination)) await warmUpSequences(await at(shard, 'sequences'), shard);
  for (const [number, shard] of shardsOf(source).entries()) {
    const sealing = await at(shard, 'seal');
    await standbysBehind(sealing, null);
    await warmUpSeal(sealing, firstFrom(migration, heading, number).name);
    // An autovacuum gives way only after deadlock_timeout; a role without the right to set it keeps the server's.
    await sealing.query(`SET deadlock_timeout = '50ms'`).catch(() => undefined);
  }
  if (migration.concurrent) return;
  // A node that aborted by its lease knows nothing of streams: a reverse slot left behind would send everything again, and
  // forward may still be disabled.
  await applyForward(context, migration, heading, { source, destination });
}

async function maintenanceOf(context: EngineContext, sides: readonly Side[]): Promise<string | null> {
  for (const shard of sides.flatMap(shardsOf)) {
    const [work] = await runningMaintenance(await connectionTo(context, shard));
    if (work !== undefined) return `maintenance is running: ${work}`;
  }
  return null;
}

/** Why this is not the moment, as words; null when it is. Decides nothing about parity. */
async function notYet(context: EngineContext, migration: Migration, heading: Heading): Promise<string | null> {
  const { source, destination } = sidesOfHeading(migration, heading);
  const maintenance = await maintenanceOf(context, [source, destination]);
  if (maintenance !== null) return maintenance;
  const far = await leaseTooShort(context, source, destination);
  if (far !== null) return far;
  for (const stream of streamsOf(migration, heading)) {
    const held = await streamNotYet(context, migration, stream);
    if (held !== null) return held;
  }
  for (const [number, shard] of shardsOf(source).entries()) {
    const held = await sourceNotYet(
      context,
      await connectionTo(context, shard),
      streamsFrom(migration, heading, number),
    );
    if (held !== null) return held;
  }
  for (const [number, shard] of shardsOf(destination).entries())
    for (const { name } of streamsTo(migration, heading, number)) {
      const gap = await destinationGap(
        await connectionTo(context, shard),
        name,
        context.config().cutover.fence === 'on',
      );
      if (gap !== null) return gap;
    }
  const guarded = await guardsNotYet(context, migration, heading);
  if (guarded !== null) return guarded;
  for (const shard of shardsOf(source)) {
    const holder = await longTransaction(await connectionTo(context, shard), context.config().cutover.drainTimeoutMs);
    if (holder !== null) return holder;
  }
  return null;
}

/** A stream runs, is not far behind, and has every table in step. */
async function streamNotYet(
  context: EngineContext,
  migration: Migration,
  { name, publisher, subscriber }: Stream,
): Promise<string | null> {
  const connection = await connectionTo(context, publisher);
  const health = await streamHealth(connection, name);
  if (!health) throw new CutoverError('stream_lost', { stream: name, problem: 'its slot is gone' });
  const held = streamHeld(health, context.config().cutover.trafficStopThresholdBytes);
  // An apply worker that fails again and again is both of these; why it fails says more.
  if (held !== null) return (await applyTrouble(await connectionTo(context, subscriber), [name])) ?? held;
  if (!migration.concurrent) {
    const wait = await launcherWait(connection);
    if (wait !== null) return wait;
  }
  const unready = (await tableSyncs(await connectionTo(context, subscriber), name)).find((sync) => sync.state !== 'r');
  return unready ? `table ${unready.schema}.${unready.table} is not in step yet (${unready.state})` : null;
}

/** What the seal of a shard will want: each of its streams whole, its standbys near. */
async function sourceNotYet(
  context: EngineContext,
  connection: Connection,
  streams: readonly Stream[],
): Promise<string | null> {
  const { cutover } = context.config();
  for (const { name } of streams) {
    const gap = cutover.fence === 'on' ? await fenceGap(connection, name) : null;
    if (gap !== null) return gap;
  }
  const { behind } = await standbysBehind(connection, null, cutover.trafficStopThresholdBytes);
  if (behind.length > 0) return behind.join('; ');
  for (const { name } of streams) {
    const late = await tableGap(connection, name);
    if (late !== null) return late;
  }
  return null;
}

async function longTransaction(source: Connection, drainMs: number): Promise<string | null> {
  const { rows } = await source.query<{ holder: string }>(
    `SELECT 'pid ' || pid || ' (' || coalesce(usename, '?') || ', "' || application_name || '") has run a transaction for '
       || round(extract(epoch FROM clock_timestamp() - xact_start)) || ' s' AS holder
     FROM pg_stat_activity
     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
       AND clock_timestamp() - xact_start > make_interval(secs => $1::float8 / 1000)
     ORDER BY xact_start LIMIT 1`,
    [drainMs],
  );
  return rows[0]?.holder ?? null;
}

function streamHeld({ name, active, lagBytes }: StreamHealth, thresholdBytes: number): string | null {
  if (!active) return `stream ${name} is not running`;
  return lagBytes > thresholdBytes ? `lag ${lagBytes.toString()} bytes, threshold ${thresholdBytes.toString()}` : null;
}

/** The network may have become slower since preflight, or the key another one: nodes would abort before they could ask. */
async function leaseTooShort(context: EngineContext, source: Side, destination: Side): Promise<string | null> {
  const { leaseMs } = context.config().cutover;
  for (const [role, side] of [
    ['source', source],
    ['destination', destination],
  ] as const)
    for (const shard of shardsOf(side)) {
      const { tooLong } = await roundTrip(await connectionTo(context, shard), role, leaseMs);
      if (tooLong !== null) return tooLong;
    }
  return null;
}

/**
 * Before 16 the launcher starts no apply worker sooner than wal_retrieve_retry_interval after the last one, and the way back
 * is made inside the pause: *measured* 5 s when two epochs follow each other closely, 21–38 ms otherwise.
 */
async function launcherWait(source: Connection): Promise<string | null> {
  const { rows } = await source.query<{ wait: boolean }>(
    `SELECT max(greatest(begun_at, decided_at)) > clock_timestamp() - current_setting('wal_retrieve_retry_interval')::interval
       - interval '500 ms' AS wait
     FROM cutover.decision`,
  );
  return rows[0]?.wait === true ? 'the replication launcher of the source rests after the last attempt' : null;
}
