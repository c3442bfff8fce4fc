/** One task: what must hold of streams and schemas before a switch, whatever happened to them since they were made. */
import type { EpochPlan, Heading, Migration } from '../src/cutover/contract.js';
import { shardsOf, type Side } from '../src/cutover/side.js';
import { CutoverError } from '../src/errors/errors.js';
import { applyTrouble, unpublishedChange } from '../src/postgres/apply-health.js';
import { columnsChanged, tablesChanged } from '../src/postgres/catalogue.js';
import type { Connection } from '../src/postgres/connection.js';
import { destinationGap, fenceGap, tableGap } from '../src/postgres/fence.js';
import { schemaDifference } from '../src/postgres/schema-fingerprint.js';
import { connectionTo, type EngineContext } from './context.js';
import { schemaChanged } from './schema-changes.js';
import { streamsFrom, streamsOf, streamsTo, type Stream } from './stream-ends.js';

/** Ahead of the pause: the reason to wait, or null. What it looks at stays as it is (but see `applyTrouble`). */
export async function guardsNotYet(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
): Promise<string | null> {
  // The watch of the streams ends the migration for it, within seconds.
  const changed = heading === 'forward' ? await schemaChanged(context, migration) : null;
  if (changed !== null) return changed.message;
  const streams = streamsOf(migration, heading);
  for (const { name, publisher, shards } of streams) {
    const problem = await unpublishedChange(await connectionTo(context, publisher), name, shards.publishing === 1);
    if (problem !== null) return problem;
  }
  const names = (['forward', 'reverse'] as const).flatMap((to) => streamsOf(migration, to).map(({ name }) => name));
  // The side that is applied to first: trouble there is why this waits.
  const [first, second] =
    heading === 'forward' ? [migration.destination, migration.source] : [migration.source, migration.destination];
  for (const shard of [...shardsOf(first), ...shardsOf(second)]) {
    const problem = await applyTrouble(await connectionTo(context, shard), names);
    if (problem !== null) return problem;
  }
  for (const { name, publisher, subscriber } of streams) {
    const ends = {
      publisher: await connectionTo(context, publisher),
      subscriber: await connectionTo(context, subscriber),
    };
    const problem = await schemaDifference({ ...ends, stream: name });
    if (problem !== null) return problem;
  }
  return null;
}

/**
 * Inside the pause: since the moment somebody may have changed a table whose rows fit no more. Looks at the columns of one side; both
 * are compared where those are not what they were.
 *
 * @throws CutoverError `schemas_differ`
 */
export async function requireEqualSchemas(
  context: EngineContext,
  plan: EpochPlan,
  looked: 'source' | 'destination',
): Promise<void> {
  const streamsAt = looked === 'source' ? streamsFrom : streamsTo;
  await Promise.all(
    shardsOf(plan[looked]).map((shard, number) =>
      requireEqualAt(context, plan, looked, shard, streamsAt(plan.migration, plan.heading, number)),
    ),
  );
}

async function requireEqualAt(
  context: EngineContext,
  plan: EpochPlan,
  looked: 'source' | 'destination',
  shard: Side,
  streams: readonly Stream[],
): Promise<void> {
  const at = async (side: Side): Promise<Connection> =>
    context.connections.get(await context.directory.endpointOf(side), 'watch');
  const [first, ...others] = streams;
  if (!first) return;
  const here = await at(shard);
  if (await columnsChanged(here, first.name))
    for (const { name, publisher, subscriber } of streams) {
      const problem = await schemaDifference({
        publisher: await at(publisher),
        subscriber: await at(subscriber),
        stream: name,
      });
      if (problem !== null) throw new CutoverError('schemas_differ', { problem });
    }
  // Seal and ready compare the tables of the first one.
  if (others.length === 0 || !(await tablesChanged(here, first.name))) return;
  const fenced = plan.fence !== 'off';
  for (const { name } of others) {
    const gap =
      looked === 'destination'
        ? await destinationGap(here, name, fenced)
        : ((await tableGap(here, name)) ?? (fenced ? await fenceGap(here, name) : null));
    if (gap !== null) throw new CutoverError('schemas_differ', { problem: gap });
  }
}
