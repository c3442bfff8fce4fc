/** One task: plan a COPY FROM STDIN on all shards, or say why it is not run. */
import type { CopyFrom } from '../sharding/statement-verdict.js';
import { copyFormatOf, copyProblem } from './copy-format.js';
import type { CopyPlan } from './shard-copy.js';
import { partMessages, type WriteBatch } from './write-batch.js';

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
  if (batch.extended !== null)
    return 'COPY on several shards by the extended protocol, which is not implemented; send it as a simple query';
  const problem = copyProblem(copy);
  if (problem !== null) return problem;
  const plan = { kind: 'copy', batch, messages: partMessages(batch, null), shards } as const;
  const { key } = copy;
  if (key === null) return { ...plan, division: null };
  if (!utf8) return 'COPY on several shards with another client_encoding than UTF8, which is not implemented';
  const format = copyFormatOf(copy, key);
  return typeof format === 'string' ? format : { ...plan, division: { key, format } };
}
