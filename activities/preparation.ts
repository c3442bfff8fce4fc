/** One task: preflight, and the schema of the destination: tables before the copy, the rest after it. */
import type { Check, Migration, MoveRequest } from '../src/cutover/contract.js';
import { CutoverError } from '../src/errors/errors.js';
import { shardsOf, type Side } from '../src/cutover/side.js';
import { withConnection } from '../src/postgres/connection.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { armFence } from '../src/postgres/fence.js';
import { dumpSchema } from '../src/postgres/dump/dump.js';
import { allowNewTables, fenceNewTables } from '../src/postgres/new-tables.js';
import { combined, type ServerShards, type ShardCounts } from '../src/postgres/preflight/check.js';
import { preflight } from '../src/postgres/preflight/preflight.js';
import { publishedTables, withParents } from '../src/postgres/publications.js';
import { applySchema, dropAppliedSchema, splitSchema, type Statement } from '../src/postgres/schema.js';
import { sequenceIncrements, setIncrements } from '../src/postgres/sequences.js';
import { withStoppableConnection } from '../src/postgres/stoppable.js';
import { serverVersion } from '../src/postgres/streams.js';
import { forgetCoordinator, keepCoordinator } from '../src/sharding/coordinator-keeping.js';
import { connectionTo, type EngineContext } from './context.js';
import { computeDerivedData } from './derived-data.js';
import { askNodes, expectNoHandOver, nodesCheck, type NodeAnswer } from './nodes.js';
import { preparedTables, shardingChecks } from './sharded-preflight.js';
import { sidesOf } from './situation.js';

/** An index of a large table takes as long as it needs; the activity's heartbeat tells that its process is alive. */
const SCHEMA_QUERY_TIMEOUT_MS = 20 * 24 * 60 * 60_000;

/** What a request is about to begin, which decides what must not be there yet. */
export type Purpose = 'copy' | 'streams' | 'cutover';

/** Checks that only make sense before the thing they look for has been made on purpose. */
const NOT_FOR: Readonly<Record<Purpose, readonly string[]>> = {
  copy: [],
  streams: ['destination-empty'],
  // The streams run already: what they and the copy needed is taken, not missing.
  cutover: [
    'destination-empty',
    'source-is-subscriber',
    'cutover-schema',
    'replication-slots',
    'wal-senders',
    'replication-workers',
    'replication-origins',
    'connections',
  ],
};

/** @throws CutoverError `preflight_failed` with every problem | `node_handed_over`, which passes: it is to be tried again */
export async function runPreflight(
  context: EngineContext,
  request: MoveRequest,
  purpose: Purpose,
): Promise<readonly Check[]> {
  // Asked once: a hand-over that begins behind this is no reason to refuse the move either.
  const nodes = await askNodes(context);
  expectNoHandOver(nodes);
  const checks = await checkMove(context, request, purpose, nodes);
  const failed = checks.filter((c) => c.verdict === 'failed');
  if (failed.length > 0)
    throw new CutoverError('preflight_failed', { problems: failed.map((c) => `${c.title}: ${c.detail}`).join('; ') });
  return checks;
}

/**
 * Every check with its verdict; changes nothing and fails for nothing but an unreachable server.
 *
 * @param answers of the nodes, where they have been asked already
 */
export async function checkMove(
  context: EngineContext,
  request: MoveRequest,
  purpose: Purpose,
  answers?: readonly NodeAnswer[],
): Promise<readonly Check[]> {
  const sides = await sidesOf(context, request);
  const shards = countsOf(sides);
  const prepared = await preparedTables(context, request);
  const pairs: Check[][] = [];
  // Every shard of both sides is looked at, each beside one of the other side: not every pair of them.
  for (let shard = 0; shard < Math.max(shards.source, shards.destination); shard++)
    pairs.push(await checkPair(context, request, sides, shard, prepared));
  const checks = pairs[0]?.map(({ id, title }) =>
    oneOf(
      pairs.flatMap((pair) => pair.filter((c) => c.id === id)),
      id,
      title,
    ),
  );
  const applicable = (checks ?? []).filter((check) => !NOT_FOR[purpose].includes(check.id));
  const nodes = nodesCheck(answers ?? (await askNodes(context)), context.config().cutover.leaseMs);
  return [nodes, ...(await shardingChecks(context, request)), ...applicable];
}

/** A check that was made of several shards is one line. */
function oneOf(checks: readonly Check[], id: string, title: string): Check {
  return { id, title, ...combined(checks) };
}

/** Every check of shard number `shard` of each side; a side without such a shard is looked at by its shard 0. */
async function checkPair(
  context: EngineContext,
  request: MoveRequest,
  sides: Sides,
  shard: number,
  prepared: readonly string[],
): Promise<Check[]> {
  const shards = countsOf(sides);
  const endpointOf = (name: string, count: number): Endpoint =>
    context.directory.endpoint(name, shard < count ? shard : 0);
  const sourceEndpoint = endpointOf(request.source, shards.source);
  const destinationEndpoint = endpointOf(request.destination, shards.destination);
  const checks = await withConnection(sourceEndpoint, (source) =>
    withConnection(destinationEndpoint, (destination) =>
      preflight({
        source: { name: request.source, endpoint: sourceEndpoint, connection: source },
        destination: { name: request.destination, endpoint: destinationEndpoint, connection: destination },
        publication: request.publication ?? null,
        config: context.config(),
        shards,
        onServer: {
          source: serverOf(context, sides, 'source', shard),
          destination: serverOf(context, sides, 'destination', shard),
        },
        prepared,
      }),
    ),
  );
  return [...checks];
}

interface Sides {
  readonly source: Side;
  readonly destination: Side;
}

function countsOf({ source, destination }: Sides): ShardCounts {
  return { source: shardsOf(source).length, destination: shardsOf(destination).length };
}

/** What else of the move is on the server of one shard. */
function serverOf(context: EngineContext, sides: Sides, role: keyof Sides, shard: number): ServerShards {
  const server = (shardsOf(sides[role])[shard] ?? sides[role]).systemIdentifier;
  const here = (side: Side): number => shardsOf(side).filter((s) => s.systemIdentifier === server).length;
  return {
    source: here(sides.source),
    destination: here(sides.destination),
    coordinator: context.config().sharding.coordinator === null && sides.destination.systemIdentifier === server,
  };
}

type Part = 'pre' | 'post' | 'cutover';

/**
 * SCHEMA_SYNC: one part of the source's schema at the destination; what is there already is passed over.
 *
 * @param stopped gives up the statement under way; each that has ended by then stays
 */
export function syncSchema(
  context: EngineContext,
  part: Part,
  request: MoveRequest,
  stopped: AbortSignal,
): Promise<{ statements: number }> {
  return applyPart(context, part, request, stopped);
}

async function applyPart(
  context: EngineContext,
  part: Part,
  request: MoveRequest,
  stopped: AbortSignal,
): Promise<{ statements: number }> {
  if (part === 'cutover') return { statements: 0 };
  const { pgDumpPath } = context.config().replication;
  const options = pgDumpPath === undefined ? {} : { pgDumpPath };
  const dump = await dumpSchema(context.directory.endpoint(request.source), options);
  const places = context.directory.places.filter(({ name }) => name === request.destination);
  const made = await Promise.all(
    places.map(({ name, shard }) => applyAt(context.directory.endpoint(name, shard), dump, part, stopped)),
  );
  return { statements: made.reduce((sum, { statements }) => sum + statements, 0) };
}

function applyAt(
  destination: Endpoint,
  dump: string,
  part: Part,
  stopped: AbortSignal,
): Promise<{ statements: number }> {
  return withStoppableConnection(
    destination,
    stopped,
    async (destination) => {
      // What an operator made ahead (SCHEMA_SYNC, other means) is kept; preflight has warned of it.
      const parts = await splitSchema(dump, { destinationVersion: await serverVersion(destination) });
      const statements = (part === 'pre' ? [...parts.pre, ...parts.primaryKeys] : parts.post).filter(isNotOurs);
      // All or nothing before the copy; after it a transaction a statement, so that no lock is held for long.
      const transaction = part === 'pre' ? 'one' : 'each';
      await applySchema(destination, statements, { ignoreExisting: true, transaction });
      return { statements: statements.length };
    },
    { queryTimeoutMs: SCHEMA_QUERY_TIMEOUT_MS },
  );
}

/** The fence's triggers are made on each side by the fence itself, never by a dump of the other side. */
function isNotOurs(statement: Statement): boolean {
  return !/\b(zzz_cutover_whole_row|cutover_(fence_(write|truncate)|refuse_truncate))\b/.test(statement.text);
}

const requestOf = (migration: Migration): MoveRequest => ({
  source: migration.database,
  destination: migration.peer,
});

/** @param stopped gives up the statement under way, and with it all of this call */
export async function loadSchema(
  context: EngineContext,
  migration: Migration,
  stopped: AbortSignal,
): Promise<{ statements: number }> {
  // A side that was closed by an earlier migration may still refuse tables.
  for (const shard of shardsOf(migration.destination)) await allowNewTables(await connectionTo(context, shard));
  const done = await applyPart(context, 'pre', requestOf(migration), stopped);
  // Before the first row arrives: a forgotten job that writes to the destination is refused from here on.
  await arm(context, migration, migration.destination, 'origin');
  return done;
}

/** @param stopped gives up the index, the view or the statistics under way; what was made before is known to be this migration's */
export async function finaliseSchema(
  context: EngineContext,
  migration: Migration,
  stopped: AbortSignal,
): Promise<{ statements: number }> {
  const done = await applyPart(context, 'post', requestOf(migration), stopped);
  // Here for the first cutover, which may follow at once; the moment before a later one does it again.
  await computeDerivedData(context, migration.destination, 'all', () => {
    stopped.throwIfAborted();
    return Promise.resolve();
  });
  await armFences(context, migration);
  return done;
}

export async function armFences(context: EngineContext, migration: Migration): Promise<void> {
  // Before the destination refuses new tables.
  await spreadSequences(context, migration);
  await makeCoordinator(context, migration.destination);
  for (const side of [migration.destination, migration.source]) await arm(context, migration, side, 'always');
}

async function arm(context: EngineContext, migration: Migration, side: Side, mode: 'origin' | 'always'): Promise<void> {
  if (context.config().cutover.fence === 'off') return;
  const source = await connectionTo(context, migration.source);
  const tables = await withParents(source, await publishedTables(source, migration.publication));
  for (const shard of shardsOf(side)) {
    const connection = await connectionTo(context, shard);
    await armFence(connection, tables, mode);
    if (mode === 'always') await fenceNewTables(connection);
  }
}

/** The ids that shards hand out never meet: each counts by as many as there are shards, from another number on. May be called again. */
async function spreadSequences(context: EngineContext, { source, destination }: Migration): Promise<void> {
  const [from, to] = [shardsOf(source), shardsOf(destination)];
  if (from.length === 1 && to.length === 1) return;
  const increments = await sequenceIncrements(await connectionTo(context, source));
  for (const [number, shard] of to.entries())
    await setIncrements(await connectionTo(context, shard), increments, from.length, { number, of: to.length });
}

/** What answers reads over several shards; nothing is made for a side with one. May be called again. */
async function makeCoordinator(context: EngineContext, side: Side): Promise<void> {
  if (shardsOf(side).length === 1) return;
  await keepCoordinator(context.config(), await context.directory.nameOf(side));
}

/** May be called again. */
export async function removeCoordinator(context: EngineContext, side: Side): Promise<void> {
  if (shardsOf(side).length === 1) return;
  await forgetCoordinator(context.config(), await context.directory.nameOf(side));
}

/** Takes the schema away that this migration made at the destination. */
export async function removeSchema(context: EngineContext, migration: Migration): Promise<void> {
  // By its side, not by its name: names change places with every switch.
  for (const shard of shardsOf(migration.destination))
    await withConnection(await context.directory.endpointOf(shard), dropAppliedSchema, {
      queryTimeoutMs: SCHEMA_QUERY_TIMEOUT_MS,
    });
}
