/** One task: what must hold of streams and schemas before a switch, whatever happened to them since they were made. */
import type { EpochPlan, Heading, Migration } from '../src/cutover/contract.js';
import type { Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { applyTrouble, unpublishedChange } from '../src/postgres/apply-health.js';
import { columnsChanged } from '../src/postgres/catalogue.js';
import type { Connection } from '../src/postgres/connection.js';
import { schemaDifference } from '../src/postgres/schema-fingerprint.js';
import { streamName } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { schemaChanged } from './schema-changes.js';

interface Sides {
  readonly source: Side;
  readonly destination: Side;
}

/** Ahead of the pause: the reason to wait, or null. What it looks at stays as it is (but see `applyTrouble`). */
export async function guardsNotYet(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  { source, destination }: Sides,
): Promise<string | null> {
  const [here, there] = [await connectionTo(context, source), await connectionTo(context, destination)];
  const stream = streamName(migration.id, heading);
  const names = (['forward', 'reverse'] as const).map((direction) => streamName(migration.id, direction));
  // The watch of the streams ends the migration for it, within seconds.
  const changed = heading === 'forward' ? await schemaChanged(context, migration) : null;
  return (
    changed?.message ??
    (await unpublishedChange(here, stream)) ??
    (await applyTrouble(there, names)) ??
    (await applyTrouble(here, names)) ??
    (await schemaDifference({ publisher: here, subscriber: there, stream }))
  );
}

/**
 * Inside the pause: since the moment somebody may have changed a table whose rows fit no more. Looks at the columns of one side; both
 * are compared where those are not what they were.
 *
 * @throws CutoverError `schemas_differ`
 */
export async function requireEqualSchemas(context: EngineContext, plan: EpochPlan, looked: Side): Promise<void> {
  const stream = streamName(plan.migration.id, plan.heading);
  const at = async (side: Side): Promise<Connection> =>
    context.connections.get(await context.directory.endpointOf(side), 'watch');
  if (!(await columnsChanged(await at(looked), stream))) return;
  const sides = { publisher: await at(plan.source), subscriber: await at(plan.destination), stream };
  const problem = await schemaDifference(sides);
  if (problem !== null) throw new CutoverError('schemas_differ', { problem });
}
