/**
 * One task: have the sharding columns in the replica identity of every table of a move that asks for it (`prepare = "auto"`), on both sides and
 * for as long as its streams run.
 *
 * Both sides get the same, since both ends of a stream must have the same replica identity: each before the first publication of its own,
 * so that the application's UPDATE is never refused. Shard 0 of the source says what: it is written there before anything is changed.
 */
import type { Heading, Migration, MoveRequest } from '../src/cutover/contract.js';
import { shardsOf, type Side } from '../src/cutover/side.js';
import type { Connection } from '../src/postgres/connection.js';
import { planIdentities, type IdentityPlan, type WantedIdentity } from '../src/postgres/identity-plan.js';
import {
  prepareIdentities,
  rememberedIdentities,
  rememberIdentities,
  restoreIdentities,
} from '../src/postgres/prepared-identity.js';
import { publishedTables } from '../src/postgres/publications.js';
import { withStoppableConnection } from '../src/postgres/stoppable.js';
import { ruleOf, schemeOf } from '../src/sharding/scheme.js';
import { connectionTo, type EngineContext } from './context.js';
import { shapesOf } from './published-rows.js';
import { endsOf, isSharded } from './stream-ends.js';

/** An index of a large table takes as long as it needs; the activity's heartbeat tells that its process is alive. */
const BUILD_QUERY_TIMEOUT_MS = 20 * 24 * 60 * 60_000;

/** The key of the request speaks for this move, that of the configuration for those that say nothing. */
export function preparesTables(context: EngineContext, { prepare }: Pick<MoveRequest, 'prepare'>): boolean {
  return (prepare ?? context.config().cutover.prepare) === 'auto';
}

/**
 * The tables of the source whose replica identity lacks a column by which their rows find a shard, on this side or on the other, with what can
 * be done about it. Changes nothing.
 *
 * @param names what the two sides are called today
 */
export async function lackingIdentities(
  context: EngineContext,
  source: Connection,
  names: readonly string[],
  publication: string | null,
): Promise<readonly IdentityPlan[]> {
  const schemes = names.map((name) => schemeOf(context.config(), name)).filter(({ shards }) => shards > 1);
  const shaped = await shapesOf(source, await publishedTables(source, publication));
  const wanted = shaped.flatMap(({ schema, table, shape }): WantedIdentity[] => {
    const rules = schemes.map((scheme) => ruleOf(scheme, shape));
    const columns = [...new Set(rules.flatMap((rule) => (rule.kind === 'sharded' ? [rule.column] : [])))];
    return columns.length > 0 ? [{ schema, table, columns }] : [];
  });
  return planIdentities(source, wanted);
}

/**
 * Prepares every shard of the side that publishes. May be called again.
 *
 * @param stopped gives up the index under way; what is left of it is undone with the rest
 * @throws CutoverError `identity_unprepared`
 */
export async function prepareSide(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  stopped: AbortSignal,
): Promise<void> {
  if (migration.prepare !== 'auto' || !isSharded(migration)) return;
  const source = await connectionTo(context, migration.source);
  if (heading === 'forward') await rememberIdentities(source, migration.id, await decided(context, migration, source));
  const identities = await rememberedIdentities(source, migration.id);
  if (identities.length === 0) return;
  for (const shard of shardsOf(endsOf(migration, heading).publisher))
    await withStoppableConnection(
      await context.directory.endpointOf(shard),
      stopped,
      (connection) => prepareIdentities(connection, migration.id, identities),
      { queryTimeoutMs: BUILD_QUERY_TIMEOUT_MS },
    );
}

/** What preflight found no way for was refused there; a table that came since is left to the streams, which say what it lacks. */
async function decided(
  context: EngineContext,
  migration: Migration,
  source: Connection,
): Promise<Parameters<typeof rememberIdentities>[2]> {
  const names = [
    await context.directory.nameOf(migration.source),
    await context.directory.nameOf(migration.destination),
  ];
  const plans = await lackingIdentities(context, source, names, migration.publication);
  return plans.flatMap(({ schema, table, way, columns }) => (way === null ? [] : [{ schema, table, way, columns }]));
}

/** Gives every shard of a side back what its tables had. No stream may be left. May be called again. */
export async function restoreSide(context: EngineContext, side: Side): Promise<void> {
  for (const shard of shardsOf(side)) await restoreIdentities(await connectionTo(context, shard));
}
