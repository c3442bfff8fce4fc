/** One task: end a migration: everything taken away before a commit, or the new side kept and the old one fenced after it. */
import type { Migration } from '../src/cutover/contract.js';
import { sideOf } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { disarmFence, isFenced } from '../src/postgres/fence.js';
import { setActive, setEnding } from '../src/postgres/migrations.js';
import { allowNewTables } from '../src/postgres/new-tables.js';
import { isCommitted, readRecord, setFinal, upgradeRecord } from '../src/postgres/record.js';
import { connectionTo, type EngineContext } from './context.js';
import { resolveLeftOver } from './moment.js';
import { removeSchema } from './preparation.js';
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
  await disarmFence(await connectionTo(context, migration.source));
  await removeSchema(context, migration);
  await freeIfNeverServed(context, migration);
  await discardPreparedFiles(context, migration);
  for (const side of [migration.destination, migration.source])
    await setActive(await connectionTo(context, side), migration.id, false);
}

/**
 * Tables that an operator had made at the destination are kept, and are the operator's again. A side that has served once keeps its
 * fence: what was written there is older than what is written now. Where none of its tables is left, new ones are nobody's concern.
 */
async function freeIfNeverServed(context: EngineContext, migration: Migration): Promise<void> {
  const destination = await connectionTo(context, migration.destination);
  const records = [await readRecord(destination), await readRecord(await connectionTo(context, migration.source))];
  const decisions = records.flatMap((record) => record?.decisions ?? []);
  if (!decisions.some((decision) => isCommitted(decision.state))) await disarmFence(destination);
  else if (!(await isFenced(destination))) await allowNewTables(destination);
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
  await disarmFence(serving);
  await setFinal(serving, epoch, 'finalizing', 'finalized');
  for (const side of [migration.source, migration.destination])
    await setActive(await connectionTo(context, side), migration.id, false);
}
