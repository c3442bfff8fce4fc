/**
 * One task: ready the record of both sides ahead of an attempt, and pin who they are: a server that was promoted meanwhile is
 * not the one whose rows the streams carried.
 */
import type { Migration } from '../src/cutover/contract.js';
import { sameSide, shardsOf, type PinnedSide, type Side } from '../src/cutover/side.js';
import { addressOf } from '../src/postgres/endpoint.js';
import { findMigration, type MigrationRow } from '../src/postgres/migrations.js';
import { expectTimeline, keepFence, namePeer, readIdentity, upgradeRecord } from '../src/postgres/record.js';
import { connectionTo, type EngineContext } from './context.js';

export interface Sides<S extends Side = Side> {
  readonly source: S;
  readonly destination: S;
}

/**
 * The record in this program's layout, each side's refusal with the address of the other, and the fence of the side that does
 * not serve up. May be called again.
 */
export async function readyRecords(context: EngineContext, { source, destination }: Sides): Promise<void> {
  for (const [side, other] of [
    [source, destination],
    [destination, source],
  ] as const) {
    const peerAddress = addressOf(await context.directory.endpointOf(other));
    for (const shard of shardsOf(side)) {
      const connection = await connectionTo(context, shard);
      await upgradeRecord(connection);
      await namePeer(connection, peerAddress);
    }
  }
  for (const shard of shardsOf(destination)) await keepFence(await connectionTo(context, shard), shard, null);
}

/** Both sides with their timelines of now. */
export async function pinSides(context: EngineContext, { source, destination }: Sides): Promise<Sides<PinnedSide>> {
  const pin = async (side: Side): Promise<PinnedSide> => {
    const { systemIdentifier, databaseOid, timeline } = await readIdentity(await connectionTo(context, side));
    const shard = { systemIdentifier, databaseOid, timeline };
    return side.otherShards === undefined
      ? shard
      : { ...shard, otherShards: await Promise.all(side.otherShards.map(pin)) };
  };
  return { source: await pin(source), destination: await pin(destination) };
}

/**
 * The sides of an attempt, pinned. A standby that was promoted since the migration began may lack rows that the streams have
 * carried on, or have lost the place up to which they were carried: nothing could prove the two sides equal any more.
 *
 * @throws CutoverError `failed_over`
 */
export async function pinnedSince(
  context: EngineContext,
  migration: Migration,
  sides: Sides,
): Promise<Sides<PinnedSide>> {
  const pinned = await pinSides(context, sides);
  const row = await findMigration(await connectionTo(context, migration.source));
  for (const role of ['source', 'destination'] as const)
    for (const shard of shardsOf(pinned[role])) {
      const before = timelineOf(row, shard);
      if (before === null) continue;
      expectTimeline({ ...shard, inRecovery: false }, { ...shard, timeline: before }, role, 'the migration began');
    }
  return pinned;
}

/** The timeline that the row of the migration has for `side`; null where a program of layout 1 wrote it. */
function timelineOf(row: MigrationRow | null, side: Side): number | null {
  const sides = row === null ? [] : [row.source, row.destination];
  const known = sides.flatMap((of) => [of, ...(of.otherShards ?? [])]).find((of) => sameSide(of, side));
  return known?.timeline ?? null;
}
