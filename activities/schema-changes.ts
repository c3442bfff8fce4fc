/**
 * One task: end a migration whose tables a client has changed at the source, by cutover_ddl = "allow", before they were moved.
 *
 * The node that let the change through has written it into the record (src/fleet/schema-guard-watch.ts). What was changed at the
 * destination came after a commit: it ends nothing, since it would take the way back away.
 */
import type { Migration } from '../src/cutover/contract.js';
import { sideKey } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { schemaChangeAt } from '../src/postgres/schema-changes.js';
import { connectionTo, type EngineContext } from './context.js';

/** Why a migration whose traffic has not moved is about to end; null when nothing was changed. */
export async function schemaChanged(context: EngineContext, migration: Migration): Promise<CutoverError | null> {
  const source = await connectionTo(context, migration.source);
  const changed = await schemaChangeAt(source, migration.id, sideKey(migration.source));
  if (changed === null) return null;
  const { database, change } = changed;
  return new CutoverError('schema_changed', { database, change, migration: migration.id });
}

/** @throws CutoverError `schema_changed`. Only for a migration whose traffic has not moved. */
export async function requireUnchanged(context: EngineContext, migration: Migration): Promise<void> {
  const changed = await schemaChanged(context, migration);
  if (changed) throw changed;
}
