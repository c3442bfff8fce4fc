/** One task: tell what a request means against the record, and hold a migration or an operation for one workflow. */
import { createHash } from 'node:crypto';
import type { Migration, MoveRequest, Situation, Turn } from '../src/cutover/contract.js';
import { sameSide, shardsOf, sideKey, sideOf, type Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { servingOf } from '../src/fleet/resolution.js';
import type { Connection } from '../src/postgres/connection.js';
import {
  findMigration,
  insertMigration,
  migrationCount,
  releaseOperation as dropOperation,
  setActive,
  takeOperation,
  type MigrationRow,
} from '../src/postgres/migrations.js';
import { installRecord, readRecord, type RecordState } from '../src/postgres/record.js';
import { ORIGIN_SINCE, serverVersion, streamHealth } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { pinSides, readyRecords } from './pinned-sides.js';
import { preparesTables } from './prepared-identities.js';
import { firstFrom } from './stream-ends.js';

interface Sides {
  readonly source: Side;
  readonly destination: Side;
}

/** Both databases of a request, as sides. @throws CutoverError `database_unknown` | `same_database` | `database_unreachable` */
export async function sidesOf(context: EngineContext, request: MoveRequest): Promise<Sides> {
  const [source, destination] = await Promise.all([
    context.directory.sideOf(request.source),
    context.directory.sideOf(request.destination),
  ]);
  const shards = [source, destination].flatMap(shardsOf).map(sideKey);
  if (new Set(shards).size < shards.length)
    throw new CutoverError('same_database', { source: request.source, destination: request.destination });
  return { source, destination };
}

/** Whether the traffic has moved, as the records of both sides say. */
export async function destinationServes(context: EngineContext, migration: Migration): Promise<boolean> {
  return (await lastTurn(context, migration)).heading === 'forward';
}

/** The last move of the traffic, as the records of both sides say; epoch 0 when there was none. */
export async function lastTurn(context: EngineContext, migration: Migration): Promise<Turn> {
  const records: RecordState[] = [];
  for (const side of [migration.source, migration.destination]) {
    const record = await readRecord(await connectionTo(context, side));
    if (record) records.push(record);
  }
  const serving = servingOf(records);
  const moved = serving !== null && sameSide(serving.serving, migration.destination);
  return { heading: moved ? 'forward' : 'reverse', epoch: serving?.epoch ?? 0 };
}

/** Every shard of both sides of a pair in the order in which claims are made, so that two claimants never deadlock. */
function inOrder(sides: Sides): readonly Side[] {
  return [sides.source, sides.destination].flatMap(shardsOf).sort((a, b) => (sideKey(a) < sideKey(b) ? -1 : 1));
}

export async function assessSituation(context: EngineContext, request: MoveRequest): Promise<Situation> {
  const sides = await sidesOf(context, request);
  const row = await activeMigration(context, sides);
  if (!row) return { migration: null, serving: 'source', epoch: 0, since: null, streams: false, orphaned: false };
  const migration = await toMigration(context, row);
  const records: RecordState[] = [];
  for (const side of [migration.source, migration.destination]) {
    const record = await readRecord(await connectionTo(context, side));
    if (record) records.push(record);
  }
  const serving = servingOf(records);
  const moved = serving !== null && sameSide(serving.serving, migration.destination);
  const since = records.flatMap((r) => r.decisions).find((d) => d.epoch === serving?.epoch)?.decided_at ?? null;
  const stream = firstFrom(migration, moved ? 'reverse' : 'forward', 0);
  const health = await streamHealth(await connectionTo(context, stream.publisher), stream.name);
  return {
    migration,
    serving: moved ? 'destination' : 'source',
    epoch: serving?.epoch ?? 0,
    since,
    streams: health !== null,
    orphaned: await isOrphaned(context, migration.owner),
  };
}

/** The owner of the streams, or the move that is about to start it (`<move>/streams`), runs as long as somebody is in charge. */
async function isOrphaned(context: EngineContext, owner: string): Promise<boolean> {
  const inCharge = [owner, owner.replace(/\/streams$/, '')];
  return !(await Promise.all(inCharge.map((id) => context.isRunning(id)))).some(Boolean);
}

async function activeMigration(context: EngineContext, sides: Sides): Promise<MigrationRow | null> {
  for (const side of inOrder(sides)) {
    const row = await findMigration(await connectionTo(context, side));
    if (row && [row.source, row.destination].every((s) => sameSide(s, sides.source) || sameSide(s, sides.destination)))
      return row;
  }
  return null;
}

/** The migration a row of the record tells of; every shard of both sides must answer. */
export async function toMigration(context: EngineContext, row: MigrationRow): Promise<Migration> {
  const versions = await Promise.all(
    [row.source, row.destination]
      .flatMap(shardsOf)
      .map(async (side) => serverVersion(await connectionTo(context, side))),
  );
  return {
    id: row.id,
    database: row.database,
    peer: row.peer,
    source: sideOf(row.source),
    destination: sideOf(row.destination),
    publication: row.publication === '' ? null : row.publication,
    owner: row.owner,
    concurrent: versions.every((v) => v >= ORIGIN_SINCE),
    soakMs: context.config().cutover.soakMs,
  };
}

/** The id the next migration of this pair gets: a digest of the two sides and how often they moved before. */
export async function nextMigrationId(context: EngineContext, sides: Sides): Promise<string> {
  const digest = createHash('sha256').update(inOrder(sides).map(sideKey).join()).digest('hex').slice(0, 8);
  const counts = await Promise.all(
    inOrder(sides).map(async (side) => migrationCount(await connectionTo(context, side))),
  );
  return `${digest}_${(1 + Math.max(...counts)).toString()}`;
}

export async function claimMigration(context: EngineContext, request: MoveRequest, owner: string): Promise<Migration> {
  const sides = await sidesOf(context, request);
  for (const shard of shardsOf(sides.source)) await installRecord(await connectionTo(context, shard), 'open');
  for (const shard of shardsOf(sides.destination)) await installRecord(await connectionTo(context, shard), 'closed');
  await readyRecords(context, sides);
  const pinned = await pinSides(context, sides);
  const wanted: MigrationRow = {
    id: await nextMigrationId(context, sides),
    owner,
    operation: null,
    database: request.source,
    peer: request.destination,
    ...pinned,
    publication: request.publication ?? '',
  };
  const taken: Connection[] = [];
  let row = wanted;
  for (const side of inOrder(sides)) {
    const connection = await connectionTo(context, side);
    const held = await insertMigration(connection, row);
    if (held.owner !== owner) {
      for (const earlier of taken) await setActive(earlier, row.id, false);
      throw new CutoverError('migration_held', { database: held.database, peer: held.peer, holder: held.owner });
    }
    // A claim made by an earlier try of this activity: the second side must carry the same id.
    row = held;
    taken.push(connection);
  }
  const migration = await toMigration(context, row);
  return preparesTables(context, request) ? { ...migration, prepare: 'auto' } : migration;
}

export async function claimOperation(context: EngineContext, migration: Migration, operation: string): Promise<void> {
  const [first] = inOrder(migration);
  if (!first) return;
  const connection = await connectionTo(context, first);
  const holder = await takeOperation(connection, migration.id, operation, null);
  if (holder === operation) return;
  const running = holder !== null && (await context.isRunning(holder));
  // The holder was terminated and could not let go: nobody else will.
  if (!running && (await takeOperation(connection, migration.id, operation, holder)) === operation) return;
  throw new CutoverError('migration_held', {
    database: migration.database,
    peer: migration.peer,
    holder: holder ?? 'unknown',
  });
}

export async function releaseOperation(context: EngineContext, migration: Migration, operation: string): Promise<void> {
  const [first] = inOrder(migration);
  if (first) await dropOperation(await connectionTo(context, first), migration.id, operation);
}
