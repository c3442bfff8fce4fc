/** One task: end a migration: everything taken away before a commit, or the new side kept and the old one fenced after it. */
import type { Migration } from '../src/cutover/contract.js';
import { shardsOf, sideOf, type Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import type { Connection } from '../src/postgres/connection.js';
import { disarmFence, isFenced } from '../src/postgres/fence.js';
import { setActive, setEnding } from '../src/postgres/migrations.js';
import { allowNewTables } from '../src/postgres/new-tables.js';
import { allowTruncate } from '../src/postgres/truncate-guard.js';
import { restoreIdentities } from '../src/postgres/prepared-identity.js';
import { sendRowsAsTheyAre } from '../src/postgres/whole-rows.js';
import { isCommitted, readRecord, setFinal, upgradeRecord } from '../src/postgres/record.js';
import { connectionTo, type EngineContext } from './context.js';
import { resolveLeftOver } from './moment.js';
import { removeCoordinator, removeSchema } from './preparation.js';
import { restoreSide } from './prepared-identities.js';
import { destinationServes } from './situation.js';
import { removeStreams } from './streams.js';

/** Before any commit stands, or after a rollback: the source serves as if nothing had been. May be called again. */
export async function removeMigration(context: EngineContext, migration: Migration): Promise<void> {
  await resolveLeftOver(context, migration, migration.source, migration.destination);
  // First the bar, then the look: a cutover that began in between would move the traffic to what is being taken away.
  await barEpochs(context, migration, true);
  if (await destinationServes(context, migration)) {
    await barEpochs(context, migration, false);
    throw new CutoverError('destination_serves', { database: migration.database });
  }
  await removeStreams(context, migration);
  await disarm(context, migration.source);
  await removeCoordinator(context, migration.destination);
  await removeSchema(context, migration);
  await freeIfNeverServed(context, migration);
  await discardPreparedFiles(context, migration);
  await release(context, migration, [migration.destination, migration.source]);
}

/** What the streams of a side with several shards needed of its tables. */
async function unguard(connection: Connection): Promise<void> {
  await allowTruncate(connection);
  await sendRowsAsTheyAre(connection);
  await restoreIdentities(connection);
}

/** Takes what bars writes, and what streams needed, away. May be called again. */
export async function disarmShard(connection: Connection): Promise<void> {
  await disarmFence(connection);
  await unguard(connection);
}

async function disarm(context: EngineContext, side: Side): Promise<void> {
  for (const shard of shardsOf(side)) await disarmShard(await connectionTo(context, shard));
}

/** The claim last: until then a repeat finds what is left to do. */
async function release(context: EngineContext, migration: Migration, sides: readonly Side[]): Promise<void> {
  for (const shard of sides.flatMap(shardsOf)) await setActive(await connectionTo(context, shard), migration.id, false);
}

/**
 * Tables that an operator had made at the destination are kept, and are the operator's again. A side that has served once keeps its
 * fence: what was written there is older than what is written now. Where none of its tables is left, new ones are nobody's concern.
 */
async function freeIfNeverServed(context: EngineContext, migration: Migration): Promise<void> {
  const { source, destination } = migration;
  const records = await Promise.all(
    [destination, source].map(async (side) => readRecord(await connectionTo(context, side))),
  );
  const decisions = records.flatMap((record) => record?.decisions ?? []);
  if (!decisions.some((decision) => isCommitted(decision.state))) await disarm(context, destination);
  else
    for (const shard of shardsOf(destination)) {
      const connection = await connectionTo(context, shard);
      await unguard(connection);
      if (!(await isFenced(connection))) await allowNewTables(connection);
    }
}

/** The files beside the live ones, of a cutover that is not to be. A node that is away has none in hand when it comes back. */
async function discardPreparedFiles(context: EngineContext, migration: Migration): Promise<void> {
  const { database, peer, source } = migration;
  const request = { database, peer, epoch: 1, serving: sideOf(source), saveConfig: true };
  await context.fleet
    .addresses()
    .then((addresses) => Promise.allSettled(context.fleet.nodes(addresses).map((node) => node.prepare(request))))
    .catch(() => undefined);
}

/** Whichever side serves, and so takes a begin. A side without a record has nothing to bar. */
async function barEpochs(context: EngineContext, migration: Migration, ending: boolean): Promise<void> {
  for (const side of [migration.source, migration.destination]) {
    const connection = await connectionTo(context, side);
    if ((await readRecord(connection)) === null) continue;
    await upgradeRecord(connection);
    await setEnding(connection, migration.id, ending);
  }
}

/** @throws CutoverError `source_serves` | `files_name_old_side` */
export async function checkFinalizable(context: EngineContext, migration: Migration): Promise<void> {
  if (!(await destinationServes(context, migration)))
    throw new CutoverError('source_serves', { database: migration.database });
  for (const node of context.fleet.nodes(await context.fleet.addresses())) {
    const state = await node.state(migration.database);
    if (!state.filesServe)
      throw new CutoverError('files_name_old_side', { node: node.name, database: migration.database });
  }
}

/**
 * After a commit: one of finalize and a rollback's begin wins on the decision's row. The old side keeps fence and
 * tombstone: a forgotten job must not write there. May be called again.
 */
export async function finalizeMigration(context: EngineContext, migration: Migration): Promise<void> {
  await checkFinalizable(context, migration);
  const serving = await connectionTo(context, migration.destination);
  const record = await readRecord(serving);
  // The last move: attempts to go back that were aborted came after it.
  const epoch = record?.decisions.find((d) => isCommitted(d.state))?.epoch ?? 0;
  await setFinal(serving, epoch, 'committed', 'finalizing');
  await removeStreams(context, migration);
  await disarm(context, migration.destination);
  await restoreSide(context, migration.source);
  await setFinal(serving, epoch, 'finalizing', 'finalized');
  await release(context, migration, [migration.source, migration.destination]);
}
