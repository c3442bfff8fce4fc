/** One task: say whether a run of the demo with shards proved what it is meant to prove, and if not, why not. */
import type { ShopComparison } from '../../dev/tenants/compare.js';
import { commonFailures, count, failedOf, type CommonFacts, type Least } from './verdict.js';

export interface ShardedFacts extends Omit<CommonFacts, 'comparison'> {
  readonly comparison: ShopComparison;
  /** ids that were given to two orders */
  readonly repeatedIds: number;
  /** tables that the two sides have differently when the streams have carried everything */
  readonly differing: readonly string[];
  /** the rows loaded ahead are all there and unchanged */
  readonly historyOk: boolean;
}

/** Orders, which are transactions of six statements. */
const LEAST: Least = { acknowledged: 300, aroundSwitch: 5 };

/** The sentences of what went wrong; empty when the run succeeded. */
export function shardedFailuresOf(facts: ShardedFacts): readonly string[] {
  const { comparison, differing, historyOk, repeatedIds } = facts;
  const { inPart, miscounted, notes, pricesOk } = comparison;
  const own = failedOf([
    [inPart.length > 0, `${count(inPart.length, 'order')} applied in part`],
    [miscounted.length > 0, `${count(miscounted.length, 'tenant')} with another number of orders than acknowledged`],
    [notes.length > 0, `${count(notes.length, 'write')} on several shards not there as acknowledged`],
    [!pricesOk, 'prices were not raised as often as acknowledged'],
    [repeatedIds > 0, `${count(repeatedIds, 'id')} given to two orders`],
    [differing.length > 0, `the two sides differ in ${differing.join(', ')}`],
  ]);
  return [...commonFailures({ ...facts, comparison: { ...comparison, historyOk } }, LEAST), ...own];
}
