/** One task: end a migration: everything taken away before a commit, or the new side kept and the old one fenced after it. */
import type { Migration } from '../src/cutover/contract.js';
import { CutoverError } from '../src/errors/errors.js';
import { disarmFence } from '../src/postgres/fence.js';
import { setActive } from '../src/postgres/migrations.js';
import { readRecord, setFinal } from '../src/postgres/record.js';
import type { EngineContext } from './context.js';
import { resolveLeftOver } from './moment.js';
import { removeSchema } from './preparation.js';
import { connectionTo, destinationServes } from './situation.js';
import { removeStreams } from './streams.js';

/** Before any commit stands, or after a rollback: the source serves as if nothing had been. May be called again. */
export async function removeMigration(context: EngineContext, migration: Migration): Promise<void> {
  await resolveLeftOver(context, migration, migration.source, migration.destination);
  if (await destinationServes(context, migration))
    throw new CutoverError('destination_serves', { database: migration.database });
  await removeStreams(context, migration);
  await disarmFence(await connectionTo(context, migration.source));
  await removeSchema(context, migration);
  for (const side of [migration.destination, migration.source])
    await setActive(await connectionTo(context, side), migration.id, false);
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
  const epoch = record?.decisions[0]?.epoch ?? 0;
  await setFinal(serving, epoch, 'committed', 'finalizing');
  await removeStreams(context, migration);
  await disarmFence(serving);
  await setFinal(serving, epoch, 'finalizing', 'finalized');
  for (const side of [migration.source, migration.destination])
    await setActive(await connectionTo(context, side), migration.id, false);
}
