/** One task: plan one statement that writes on several shards, or say why it is not run. */
import { SCHEMA_CHANGE_LOCK } from '../postgres/coordinator/barrier.js';
import { TOLD_COLUMNS } from '../sharding/router-move.js';
import type { Router } from '../sharding/router.js';
import { copyPlanOf } from './copy-plan.js';
import { moveLock } from './move-lock.js';
import { moveRefusal } from './row-move-facts.js';
import type { MovePlan } from './row-move.js';
import type { CopyPlan } from './shard-copy.js';
import type { WritePlan } from './shard-write.js';
import type { SeveralRoute } from './statement-need.js';
import { partMessages, withText, type WriteBatch } from './write-batch.js';

export type SeveralPlan = WritePlan | CopyPlan | MovePlan;

/** What it is planned from. */
export interface SeveralStatement {
  readonly text: string;
  readonly write: SeveralRoute;
  /** nothing else is in it */
  readonly batch: WriteBatch;
  readonly router: Router;
  /** of the database */
  readonly shards: number;
  /** the session's texts are in UTF-8 */
  readonly utf8: boolean;
}

/** @returns a text: the reason */
export function severalPlanOf(statement: SeveralStatement): SeveralPlan | string {
  const { write, batch, shards, utf8 } = statement;
  const all = Array.from({ length: shards }, (_, shard) => shard);
  switch (write.kind) {
    case 'copy':
      return copyPlanOf(write.copy, batch, all, utf8);
    case 'every':
      return everyPlan(wholeOn(all, batch), write);
    case 'several':
      return { ...wholeOn(write.shards, batch), alike: false, schema: 'none', lock: moveLock(write.table, 'write') };
    case 'rows':
      return dividedPlan(statement, write);
    case 'moves-key':
      return utf8 ? movePlan(statement, write, all) : moveRefusal('encoding');
  }
}

/** The coordinator is not made from shards on which a change of its shape is under way: by the lock it knows. */
function everyPlan(
  whole: Pick<WritePlan, 'kind' | 'batch' | 'parts'>,
  { ddl, beside }: Extract<SeveralRoute, { kind: 'every' }>,
): WritePlan {
  const schema = !ddl ? 'none' : beside === true ? 'beside' : 'shape';
  return { ...whole, alike: true, schema, lock: schema === 'shape' ? SCHEMA_CHANGE_LOCK : null };
}

/** Each gets the whole statement. */
function wholeOn(shards: readonly number[], batch: WriteBatch): Pick<WritePlan, 'kind' | 'batch' | 'parts'> {
  const messages = partMessages(batch, null);
  return { kind: 'write', batch, parts: shards.map((shard) => ({ shard, messages, rows: null })) };
}

function dividedPlan(
  { text, batch, router }: SeveralStatement,
  write: Extract<SeveralRoute, { kind: 'rows' }>,
): WritePlan | string {
  const split = router.split(text, write.parts);
  if (split === null) return 'its rows cannot be told apart in its text';
  const parts = split.map((part) => ({ shard: part.shard, messages: partMessages(batch, part), rows: part.rows }));
  return {
    ...{ kind: 'write', batch, alike: false, schema: 'none', lock: null },
    parts: parts.sort((a, b) => a.shard - b.shard),
  };
}

function movePlan(
  { text, batch, router, shards: shardCount }: SeveralStatement,
  write: Extract<SeveralRoute, { kind: 'moves-key' }>,
  all: readonly number[],
): MovePlan {
  const { moved, rule, from, to } = write;
  const shards = to === null ? all : all.filter((shard) => shard === to || from.includes(shard));
  return {
    ...{ kind: 'move', batch, moved, rule, from, shards, shardCount },
    messages: partMessages(withText(batch, router.moving(text, write), TOLD_COLUMNS), null),
    isEverywhere: (schema, table) => router.isEverywhere(schema, table),
  };
}
