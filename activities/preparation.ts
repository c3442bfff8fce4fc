/** One task: preflight, and the schema of the destination: tables before the copy, the rest after it. */
import type { Check, Migration, MoveRequest } from '../src/cutover/contract.js';
import { CutoverError } from '../src/errors/errors.js';
import { withConnection, type Connection } from '../src/postgres/connection.js';
import { armFence } from '../src/postgres/fence.js';
import { dumpSchema } from '../src/postgres/dump/dump.js';
import { allowNewTables, fenceNewTables } from '../src/postgres/new-tables.js';
import { preflight } from '../src/postgres/preflight/preflight.js';
import { publishedTables, withParents } from '../src/postgres/publications.js';
import { applySchema, dropAppliedSchema, splitSchema, type Statement } from '../src/postgres/schema.js';
import { withStoppableConnection } from '../src/postgres/stoppable.js';
import { serverVersion } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { computeDerivedData } from './derived-data.js';
import { nodesCheck } from './nodes.js';
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
  ],
};

export async function runPreflight(
  context: EngineContext,
  request: MoveRequest,
  purpose: Purpose,
): Promise<readonly Check[]> {
  const checks = await checkMove(context, request, purpose);
  const failed = checks.filter((c) => c.verdict === 'failed');
  if (failed.length > 0)
    throw new CutoverError('preflight_failed', { problems: failed.map((c) => `${c.title}: ${c.detail}`).join('; ') });
  return checks;
}

/** Every check with its verdict; changes nothing and fails for nothing but an unreachable server. */
export async function checkMove(
  context: EngineContext,
  request: MoveRequest,
  purpose: Purpose,
): Promise<readonly Check[]> {
  await sidesOf(context, request);
  const sourceEndpoint = context.directory.endpoint(request.source);
  const destinationEndpoint = context.directory.endpoint(request.destination);
  const checks = await withConnection(sourceEndpoint, (source) =>
    withConnection(destinationEndpoint, (destination) =>
      preflight({
        source: { name: request.source, endpoint: sourceEndpoint, connection: source },
        destination: { name: request.destination, endpoint: destinationEndpoint, connection: destination },
        publication: request.publication ?? null,
        config: context.config(),
      }),
    ),
  );
  return [await nodesCheck(context), ...checks.filter((check) => !NOT_FOR[purpose].includes(check.id))];
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
  return withStoppableConnection(
    context.directory.endpoint(request.destination),
    stopped,
    async (destination) => {
      // What an operator made ahead (SCHEMA_SYNC, other means) is kept; preflight has warned of it.
      const parts = splitSchema(dump, { destinationVersion: await serverVersion(destination) });
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
  return !/\bcutover_fence_(write|truncate)\b/.test(statement.text);
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
  await allowNewTables(await connectionTo(context, migration.destination));
  const done = await applyPart(context, 'pre', requestOf(migration), stopped);
  // Before the first row arrives: a forgotten job that writes to the destination is refused from here on.
  await arm(context, migration, await connectionTo(context, migration.destination), 'origin');
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
  for (const side of [migration.destination, migration.source])
    await arm(context, migration, await connectionTo(context, side), 'always');
}

async function arm(
  context: EngineContext,
  migration: Migration,
  connection: Connection,
  mode: 'origin' | 'always',
): Promise<void> {
  if (context.config().cutover.fence === 'off') return;
  const source = await connectionTo(context, migration.source);
  const tables = await withParents(source, await publishedTables(source, migration.publication));
  await armFence(connection, tables, mode);
  if (mode === 'always') await fenceNewTables(connection);
}

/** Takes the schema away that this migration made at the destination. */
export async function removeSchema(context: EngineContext, migration: Migration): Promise<void> {
  // By its side, not by its name: names change places with every switch.
  await withConnection(await context.directory.endpointOf(migration.destination), dropAppliedSchema, {
    queryTimeoutMs: SCHEMA_QUERY_TIMEOUT_MS,
  });
}
