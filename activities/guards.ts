/** One task: what must hold of streams and schemas before a switch, whatever happened to them since they were made. */
import type { Heading, Migration } from '../src/cutover/contract.js';
import type { Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { applyTrouble, unpublishedChange } from '../src/postgres/apply-health.js';
import { schemaDifference, schemasEqual, type StreamSides } from '../src/postgres/schema-fingerprint.js';
import { streamName } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';

interface Sides {
  readonly source: Side;
  readonly destination: Side;
}

/** Ahead of the pause: the reason to wait, or null. Looks only. */
export async function guardsNotYet(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  { source, destination }: Sides,
): Promise<string | null> {
  const [here, there] = [await connectionTo(context, source), await connectionTo(context, destination)];
  const stream = streamName(migration.id, heading);
  const names = (['forward', 'reverse'] as const).map((direction) => streamName(migration.id, direction));
  return (
    (await unpublishedChange(here, stream)) ??
    (await applyTrouble(there, names)) ??
    (await applyTrouble(here, names)) ??
    (await schemaDifference({ publisher: here, subscriber: there, stream }))
  );
}

/**
 * Inside the pause, beside the proof of parity, on connections that nobody uses then: since the moment somebody may have changed a
 * table whose rows fit no more.
 *
 * @throws CutoverError `schemas_differ`
 */
export async function requireEqualSchemas(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  { source, destination }: Sides,
): Promise<void> {
  const sides = await pausedSides(context, migration, heading, { source, destination });
  if (await schemasEqual(sides)) return;
  const problem = await schemaDifference(sides);
  if (problem !== null) throw new CutoverError('schemas_differ', { problem });
}

/** Ahead of the pause: the statements of requireEqualSchemas planned on the connections it uses. */
export async function rehearseSchemas(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  sides: Sides,
): Promise<void> {
  await schemasEqual(await pausedSides(context, migration, heading, sides));
}

async function pausedSides(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  { source, destination }: Sides,
): Promise<StreamSides> {
  const at = async (side: Side): ReturnType<EngineContext['connections']['get']> =>
    context.connections.get(await context.directory.endpointOf(side), 'watch');
  return { publisher: await at(source), subscriber: await at(destination), stream: streamName(migration.id, heading) };
}
