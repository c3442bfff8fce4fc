/**
 * One task: let a person decide an epoch that the program must not decide, because a server that could say is lost for good.
 *
 * The same compare-and-sets as everywhere, and no other: what the protocol forbids is refused with the reason. What no program
 * can know is the person's to vouch for: that the lost server never comes back as the one that serves.
 */
import { sameSide, type Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { Connection } from '../postgres/connection.js';
import type { Connections } from '../postgres/connections.js';
import { addressOf } from '../postgres/endpoint.js';
import { findMigration } from '../postgres/migrations.js';
import {
  abortEpoch,
  isCommitted,
  openDestination,
  readRecord,
  refuseDestination,
  releaseShard,
  releaseSource,
  type Decision,
  type RecordState,
} from '../postgres/record.js';
import { contradictionIn } from './contradictions.js';
import type { Directory } from './directory.js';
import type { Resolution } from './resolution.js';

/** What a configured database says of itself, or why it does not. */
export type SideSays =
  | {
      readonly name: string;
      readonly shard: number;
      readonly address: string;
      readonly connection: Connection;
      readonly record: RecordState | null;
    }
  | { readonly name: string; readonly shard: number; readonly address: string; readonly problem: string };

type Speaking = Extract<SideSays, { connection: Connection }>;

/** Asks every shard of every database that has a schema_admin. */
export async function askSides(directory: Directory, connections: Connections): Promise<readonly SideSays[]> {
  return Promise.all(
    directory.places.map(async ({ name, shard }) => {
      const endpoint = directory.endpoint(name, shard);
      const address = addressOf(endpoint);
      try {
        const connection = await connections.get(endpoint, 'record');
        return { name, shard, address, connection, record: await readRecord(connection) };
      } catch (error) {
        return { name, shard, address, problem: messageOf(error) };
      }
    }),
  );
}

/**
 * Aborts `epoch` of `database` and opens its source. Needs the source; vouched for: a destination that does not answer has not
 * opened. May be called again.
 *
 * @throws CutoverError `resolve_forbidden`
 */
export async function abortByHand(sides: readonly SideSays[], database: string, epoch: number): Promise<Resolution> {
  const forbid = (problem: string): CutoverError => new CutoverError('resolve_forbidden', { epoch, problem });
  const copies = copiesOf(sides, database, epoch);
  const [decision] = copies;
  if (!decision) throw forbid(`no server that answers knows it for "${database}"`);
  if (copies.some((copy) => isCommitted(copy.state))) throw forbid('it is committed, and a decision never changes');
  const source = speaking(sides, decision.source);
  if (!source) throw forbid('its source does not answer, and an abort is written there');
  const destination = speaking(sides, decision.destination);
  if (destination?.record) {
    const fence = await refuseDestination(destination.connection, decision.destination, epoch, decision.nonce);
    if (fence.state === 'open' && fence.epoch >= epoch) throw forbid('its destination has opened: it was committed');
  }
  for (const shard of decision.destination.otherShards ?? []) {
    const says = speaking(sides, shard);
    if (says) await refuseDestination(says.connection, shard, epoch, decision.nonce);
  }
  const decided = await abortEpoch(source.connection, decision.source, epoch, 'aborted by hand (cutover resolve)');
  if (decided.state !== 'unknown' && isCommitted(decided.state)) throw forbid('it was committed meanwhile');
  await releaseSource(source.connection, decision.source, epoch);
  for (const shard of decision.source.otherShards ?? []) {
    const says = speaking(sides, shard);
    // One that does not answer is released when it next refuses a write.
    if (says) await releaseShard(says.connection, shard, epoch);
  }
  return { outcome: 'aborted', serving: decision.source, reason: 'aborted by hand' };
}

/**
 * Opens the destination of `epoch`: where the source says that it is committed, or where the source is lost and the destination
 * has proven before that it had everything: it is ready for this epoch and has the marker that the seal wrote last.
 *
 * @throws CutoverError `resolve_forbidden`
 */
export async function commitByHand(sides: readonly SideSays[], database: string, epoch: number): Promise<Resolution> {
  const forbid = (problem: string): CutoverError => new CutoverError('resolve_forbidden', { epoch, problem });
  const copies = copiesOf(sides, database, epoch);
  const contradiction = contradictionIn(
    // Decisions are shard 0's.
    sides.flatMap((side) => (side.shard === 0 && 'record' in side && side.record ? [side.record] : [])),
  );
  if (contradiction !== null) throw forbid(contradiction);
  if (copies.some((copy) => copy.state === 'aborted')) throw forbid('it is aborted, and a decision never changes');
  const known = copies.find((copy) => isCommitted(copy.state));
  const undecided = copies.find((copy) => speaking(sides, copy.source));
  if (!known && undecided)
    throw forbid('its source answers and has not committed it: the nodes abort it, or --abort does; then move again');
  const decision = known ?? (await provenBy(sides, database, epoch));
  if (!decision) throw forbid('no destination that answers is ready for it with its last write');
  const destination = speaking(sides, decision.destination);
  if (!destination) throw forbid('its destination does not answer');
  await openDestination(destination.connection, decision);
  for (const shard of decision.destination.otherShards ?? []) {
    const says = speaking(sides, shard);
    if (says) await openDestination(says.connection, decision, shard);
  }
  return { outcome: 'committed', serving: decision.destination, reason: decision.reason };
}

function copiesOf(sides: readonly SideSays[], database: string, epoch: number): readonly Decision[] {
  const records = sides.flatMap((side) => ('record' in side && side.record ? [side.record] : []));
  return records
    .flatMap((record) => record.decisions)
    .filter((d) => d.epoch === epoch && (d.database === database || d.peer === database));
}

function speaking(sides: readonly SideSays[], side: Side): Speaking | null {
  return (
    sides
      .filter((says): says is Speaking => 'connection' in says)
      .find((says) => says.record !== null && sameSide(says.record.identity, side)) ?? null
  );
}

/** The decision as the lost source would have had it, told from what the destination has. */
async function provenBy(sides: readonly SideSays[], database: string, epoch: number): Promise<Decision | null> {
  for (const says of sides) {
    if (!('connection' in says) || !says.record) continue;
    const { fence, identity } = says.record;
    if (fence.state !== 'ready' || fence.epoch !== epoch) continue;
    const migration = await findMigration(says.connection);
    if (!migration || (migration.database !== database && migration.peer !== database)) continue;
    const { rows } = await says.connection.query(
      `SELECT FROM cutover.marker WHERE epoch = $1 AND nonce = $2 AND kind = 'seal'`,
      [epoch, fence.nonce],
    );
    if (rows.length === 0) continue;
    // What each of several shards has proven is known to nobody but the source.
    if (migration.source.otherShards ?? migration.destination.otherShards) continue;
    const source = sameSide(migration.source, identity) ? migration.destination : migration.source;
    const now = new Date().toISOString();
    return {
      epoch,
      migration: migration.id,
      attempt: `by hand/${epoch.toString()}`,
      nonce: fence.nonce,
      state: 'committed',
      database: migration.database,
      peer: migration.peer,
      source: {
        systemIdentifier: source.systemIdentifier,
        databaseOid: source.databaseOid,
        timeline: source.timeline ?? 0,
      },
      destination: identity,
      // Not known here; it says that there was a seal, whose marker is there.
      seal_lsn: '0/0',
      reason: 'committed by hand (cutover resolve): the source was lost',
      begun_at: now,
      decided_at: now,
    };
  }
  return null;
}
