/**
 * One task: tell with which tables each stream begins: with none, or with large ones whose rows are copied in ranges before it runs.
 *
 * All streams that lead to one database begin with the same tables, and together: rows that came by one of them cannot be told from those of
 * another, and a copy that has to be begun again empties the table.
 */
import type { Migration } from '../src/cutover/contract.js';
import { shardsOf } from '../src/cutover/side.js';
import { qualified, type TableName } from '../src/postgres/fence.js';
import { largerThan, TID_RANGES_SINCE } from '../src/postgres/ranges/cut.js';
import { mayWriteAsReplica } from '../src/postgres/copy-session.js';
import { serverVersion, subscriptionState, type SubscriptionState } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { tablesOf } from './published-rows.js';
import { streamsTo, type Stream } from './stream-ends.js';

/** For each shard of the destination, by its number. */
export async function beginningsOf(
  context: EngineContext,
  migration: Migration,
): Promise<readonly SubscriptionState[]> {
  const beginnings: SubscriptionState[] = [];
  for (const shard of shardsOf(migration.destination).keys())
    beginnings.push(await beginningOf(context, migration, streamsTo(migration, 'forward', shard)));
  return beginnings;
}

/** What was once decided stays: with a subscription that is there its publication has to agree. */
async function beginningOf(
  context: EngineContext,
  migration: Migration,
  streams: readonly Stream[],
): Promise<SubscriptionState> {
  for (const { name, subscriber } of streams) {
    const state = await subscriptionState(await connectionTo(context, subscriber), name);
    if (state) return state;
  }
  const tables = await largeTables(context, migration, streams);
  return { tables, held: tables.length > 0 };
}

/** None where the servers or the role cannot: PostgreSQL copies them as any other table. */
async function largeTables(
  context: EngineContext,
  migration: Migration,
  streams: readonly Stream[],
): Promise<readonly TableName[]> {
  const { copyRangeBytes, parallelCopies } = context.config().cutover;
  // One range after the other would be no faster, and an engine that dies begins again where PostgreSQL goes on.
  if (copyRangeBytes === 0 || parallelCopies === 1) return [];
  const found = new Map<string, TableName>();
  for (const stream of streams) {
    const publisher = await connectionTo(context, stream.publisher);
    if ((await serverVersion(publisher)) < TID_RANGES_SINCE) return [];
    const carried = (await tablesOf(context, migration, stream)).filter(({ where }) => where !== 'false');
    for (const table of await largerThan(publisher, carried, copyRangeBytes)) found.set(qualified(table), table);
  }
  const [first] = streams;
  if (!first || found.size === 0) return [];
  return (await mayWriteAsReplica(await connectionTo(context, first.subscriber))) ? [...found.values()] : [];
}
