/** One task: hand the values of the source's sequences to every shard of the destination, so that no value is ever issued twice. */
import { shardsOf, type Side } from '../src/cutover/side.js';
import type { Connection } from '../src/postgres/connection.js';
import {
  advanceAhead,
  advanceSequences,
  furthest,
  readSequences,
  sequenceIncrements,
  spread,
  type SequenceValues,
} from '../src/postgres/sequences.js';
import type { EngineContext } from './context.js';
import type { Sides } from './pinned-sides.js';

/** One shard of the destination and what it is given. */
interface Given {
  readonly shard: Side;
  readonly connection: Connection;
  readonly values: SequenceValues;
}

/**
 * Moves every sequence of the destination past the source's, only upwards. May be called again.
 *
 * @returns how many were moved
 */
export async function handOver(context: EngineContext, sides: Sides, epoch: number): Promise<number> {
  const given = await valuesOf(context, sides);
  const moved = await Promise.all(
    given.map(({ connection, shard, values }) => advanceSequences(connection, shard, epoch, values)),
  );
  return moved.reduce((sum, count) => sum + count, 0);
}

/** Ahead of the pause, so that the pause has only those to move that issue values until then. May be called again. */
export async function handOverAhead(context: EngineContext, sides: Sides, epoch: number): Promise<void> {
  const given = await valuesOf(context, sides);
  await Promise.all(given.map(({ connection, shard, values }) => advanceAhead(connection, shard, epoch, values)));
}

async function valuesOf(context: EngineContext, { source, destination }: Sides): Promise<readonly Given[]> {
  const [from, to] = [shardsOf(source), shardsOf(destination)];
  const connections = await Promise.all(to.map((shard) => at(context, shard)));
  const [read, increments] = await Promise.all([
    Promise.all(from.map(async (shard) => readSequences(await at(context, shard)))),
    from.length === 1 && to.length === 1 ? {} : sequenceIncrements(await at(context, destination)),
  ]);
  const values = furthest(read, increments);
  return to.flatMap((shard, index) => {
    const connection = connections[index];
    return connection ? [{ shard, connection, values: spread(values, increments, index, to.length) }] : [];
  });
}

async function at(context: EngineContext, shard: Side): Promise<Connection> {
  return context.connections.get(await context.directory.endpointOf(shard), 'sequences');
}
