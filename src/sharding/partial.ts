/**
 * One task: write a read of one sharded table so that the shards do the work: they aggregate their own rows, or send no more of them than
 * the answer can have, and the coordinator's PostgreSQL makes the answer of that.
 *
 * The answer is that of the plain statement in names, types and values. Whatever is not understood stays as the client wrote it.
 */
import { partialLimit } from './partial-limit.js';
import { partialRows } from './partial-rows.js';
import { readSource } from './partial-source.js';
import type { RoutingContext } from './statement-analysis.js';
import type { StatementParser } from './statement-parser.js';
import type { StatementVerdict } from './statement-verdict.js';

/** @returns what is sent to the coordinator in the place of `sql`; null: `sql` itself */
export function partialStatement(
  parser: StatementParser,
  context: RoutingContext,
  sql: string,
  verdicts: readonly StatementVerdict[],
): string | null {
  const [only, ...more] = verdicts;
  if (only === undefined || more.length > 0) return null;
  const { verdict } = only;
  const whole = verdict.kind === 'keys' ? verdict.otherwise : verdict;
  // For every other reason it reads something that is not known from its text.
  if (whole.kind !== 'coordinator' || (whole.reason !== 'unpinned' && whole.reason !== 'several-shards')) return null;
  const source = readSource(parser, context, sql);
  return source === null ? null : (partialRows(source) ?? partialLimit(source));
}
