/** One task: plan a COPY FROM STDIN on all shards, or say why it is not run. */
import type { CopyFrom } from '../sharding/statement-verdict.js';
import { copyFormatOf, copyProblem } from './copy-format.js';
import type { CopyPlan } from './shard-copy.js';
import { query } from '../wire/frontend.js';
import { REPLY } from './reply-queue.js';
import { partMessages, type PartMessages, type WriteBatch } from './write-batch.js';

/**
 * @param batch nothing else is in it
 * @param utf8 the session's texts are in UTF-8
 * @returns a text: the reason
 */
export function copyPlanOf(
  copy: CopyFrom,
  batch: WriteBatch,
  shards: readonly number[],
  utf8: boolean,
): CopyPlan | string {
  if (batch.extended !== null && (batch.extended.closed || batch.extended.bound.values.length > 0))
    return 'COPY on several shards with parameters or behind which its portal is closed, which it cannot have';
  const problem = copyProblem(copy);
  if (problem !== null) return problem;
  const plan = { kind: 'copy', batch, messages: messagesOf(batch), shards } as const;
  const { key } = copy;
  if (key === null) return { ...plan, division: null };
  if (!utf8) return 'COPY on several shards with another client_encoding than UTF8, which is not implemented';
  const format = copyFormatOf(copy, key);
  return typeof format === 'string' ? format : { ...plan, division: { key, format } };
}

/** A COPY has no parameters: each server gets it as a simple query, whose end needs no Sync. */
function messagesOf(batch: WriteBatch): PartMessages {
  const { extended } = batch;
  if (extended === null) return partMessages(batch, null);
  const text = extended.body.toString('utf8', 0, extended.body.indexOf(0));
  return { bytes: query(text), replies: [REPLY.query] };
}
