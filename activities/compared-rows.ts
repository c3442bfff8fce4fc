/**
 * One task: divide a comparison into parts: for each table the pairs of shards between which a stream carries it, and which rows of each
 * shard that stream answers for.
 *
 * Every row of a shard is in one part: the first stream answers for all that no other one does. A row on the wrong shard, or one that no
 * stream carries, has none beside it on the other side, and is found. Tables that are the same on every shard are carried from the first
 * one alone, so the others are compared with it.
 */
import type { Heading, Migration } from '../src/cutover/contract.js';
import { shardsOf } from '../src/cutover/side.js';
import type { Between } from '../src/cutover/verification.js';
import type { TableName } from '../src/postgres/fence.js';
import { CREATE_HASH_PARENTS, rowFilter } from '../src/sharding/row-filter.js';
import { ruleOf, schemeOf, type Rule, type TableShape } from '../src/sharding/scheme.js';
import { connectionTo, type EngineContext } from './context.js';
import { isEverywhere, shapesOf } from './published-rows.js';
import { endsOf, isSharded } from './stream-ends.js';

export interface Part {
  readonly table: TableName;
  /** null: both sides have one shard */
  readonly between: Between | null;
  /** of the shard that serves, as a condition; null: every row */
  readonly serving: string | null;
  /** of the other one */
  readonly other: string | null;
}

/** How a table is spread over a side. */
interface Spread {
  readonly shards: number;
  readonly rule: Rule;
}

/** Those of one table follow each other; the same at each call. */
export async function partsOf(
  context: EngineContext,
  migration: Migration,
  heading: Heading,
  tables: readonly TableName[],
): Promise<readonly Part[]> {
  if (!isSharded(migration)) return tables.map((table) => ({ table, between: null, serving: null, other: null }));
  const { publisher, subscriber } = endsOf(migration, heading);
  for (const shard of [publisher, subscriber].flatMap(shardsOf))
    await (await connectionTo(context, shard)).query(CREATE_HASH_PARENTS);
  const [from, to] = await Promise.all(
    [publisher, subscriber].map(async (side) => {
      const scheme = schemeOf(context.config(), await context.directory.nameOf(side));
      const shards = shardsOf(side).length;
      return (shape: TableShape): Spread => ({ shards, rule: ruleOf(scheme, shape) });
    }),
  );
  if (!from || !to) return [];
  const shaped = await shapesOf(await connectionTo(context, migration.source), tables);
  return shaped.flatMap(({ schema, table, shape }) =>
    divided(from(shape), to(shape)).map((part) => ({ table: { schema, table }, ...part })),
  );
}

function divided(from: Spread, to: Spread): readonly Omit<Part, 'table'>[] {
  const senders = isSpread(from) ? numbers(from) : [0];
  const streams = senders.flatMap((sender) =>
    numbers(to).map((receiver) => ({
      between: { from: sender, to: receiver },
      serving: isSpread(to) ? partOf(filters(to), receiver) : null,
      other: isSpread(from) ? partOf(received(from, to, receiver), sender) : null,
    })),
  );
  const copies = numbers(from).slice(senders.length);
  return [
    ...streams,
    ...copies.map((copy) => ({ between: { from: 0, to: copy, within: true as const }, serving: null, other: null })),
  ];
}

const numbers = ({ shards }: Spread): readonly number[] => Array.from({ length: shards }, (_, shard) => shard);

/** Whether one row is on one shard only. */
const isSpread = ({ shards, rule }: Spread): boolean => shards > 1 && !isEverywhere(rule);

const filters = (side: Spread): readonly string[] =>
  numbers(side).map((shard) => rowFilter(side.rule, shard, side.shards));

/** Of the rows of a shard those that come by each of its streams: the shard's own that the sender's shard has. */
function received(from: Spread, to: Spread, receiver: number): readonly string[] {
  const own = isSpread(to) ? rowFilter(to.rule, receiver, to.shards) : 'true';
  return filters(from).map((sent) => `(${own}) AND (${sent})`);
}

/** The rows of one of several conditions that exclude each other; of the first one all rows that are of no other. */
function partOf(conditions: readonly string[], index: number): string {
  if (index > 0) return conditions[index] ?? 'false';
  return conditions
    .slice(1)
    .map((condition) => `(${condition}) IS NOT TRUE`)
    .join(' AND ');
}
