/** One task: write the story of pauses and tasks into the record of both sides, where it outlives Temporal's retention. */
import type { EpochOutcome, EpochPlan, Migration, MoveRequest, TaskEvent } from '../src/cutover/contract.js';
import { epochStream, SEQUENCE_OF } from '../src/cutover/epoch.js';
import { noteEvents, readRecord, type RecordedEvent } from '../src/postgres/record.js';
import { connectionTo, type EngineContext } from './context.js';
import { retireForward } from './exclusive-streams.js';

/** Appends to both sides; one side that cannot be reached is told by a later call, both unreachable fails. */
async function note(
  context: EngineContext,
  migration: Migration,
  stream: string,
  events: readonly RecordedEvent[],
): Promise<void> {
  const outcomes = await Promise.allSettled(
    [migration.source, migration.destination].map(async (side) => {
      await noteEvents(await connectionTo(context, side), stream, events);
    }),
  );
  const failed = outcomes.filter((o) => o.status === 'rejected');
  if (failed.length === outcomes.length) throw failed[0]?.reason;
}

export async function writeTimeline(context: EngineContext, plan: EpochPlan, outcome: EpochOutcome): Promise<void> {
  const events = outcome.events.map((e) => ({ sequence: SEQUENCE_OF[e.type], type: e.type, data: e.data }));
  await note(context, plan.migration, epochStream(plan.migration.id, plan.epoch), events);
  if (outcome.outcome === 'committed' && !plan.migration.concurrent) await retireForward(context, plan);
}

export async function recordEvents(
  context: EngineContext,
  migration: Migration,
  stream: string,
  events: readonly TaskEvent[],
): Promise<void> {
  await note(context, migration, stream, events);
}

/**
 * The story of a task that holds no migration: at each of its two databases that has a record; none is made, so that bad input
 * leaves nothing behind. May be called again.
 */
export async function keepEvents(
  context: EngineContext,
  { source, destination }: MoveRequest,
  stream: string,
  events: readonly TaskEvent[],
): Promise<void> {
  const outcomes = await Promise.allSettled(
    [source, destination].map(async (name) => {
      const connection = await context.connections.get(context.directory.endpoint(name), 'record');
      if (await readRecord(connection)) await noteEvents(connection, stream, events);
    }),
  );
  const failed = outcomes.filter((o) => o.status === 'rejected');
  if (failed.length === outcomes.length) throw failed[0]?.reason;
}
