/**
 * One task: the variants that must be caught: the protocol with one rule taken out, and the invariant that then breaks.
 *
 * Those of `protocol` are the table of docs/protocol.md, section 7. Those of `model` were not written anywhere: the model broke
 * without them, and its trace said what was missing (docs/evidence/model.md tells each one's trace and what follows).
 */
import type { Guard } from './guards.js';
import type { Invariant } from './invariants.js';
import type { Bounds } from './state.js';

export interface Variant {
  readonly name: string;
  readonly from: 'protocol' | 'model';
  readonly without: readonly Guard[];
  readonly breaks: Invariant;
  readonly bounds: Bounds;
}

const ONE_EPOCH: Bounds = {
  nodes: 1,
  shards: 1,
  attempts: 1,
  writes: 1,
  next: 'either',
  nodeCrashes: true,
  failover: false,
  finalize: false,
  remove: false,
  openTransactions: false,
};
const TWO_EPOCHS: Bounds = { ...ONE_EPOCH, attempts: 2 };
const TWO_NODES: Bounds = { ...ONE_EPOCH, nodes: 2 };
const TWO_SHARDS: Bounds = { ...ONE_EPOCH, shards: 2, next: 'retry' };
const FAILOVER: Bounds = { ...ONE_EPOCH, failover: true };
const FAILOVER_RETRY: Bounds = { ...FAILOVER, attempts: 2, next: 'retry', nodeCrashes: false };
const FAILOVER_ROLLBACK: Bounds = { ...FAILOVER_RETRY, next: 'rollback' };

const PROTOCOL: readonly Omit<Variant, 'from'>[] = [
  { name: 'no epoch check on the flag', without: ['lowerChecksTheEpoch'], breaks: 'I1', bounds: TWO_EPOCHS },
  { name: 'open before commit', without: ['openNeedsTheCommit'], breaks: 'I1', bounds: TWO_NODES },
  { name: 'parity before seal', without: ['parityIsOfThisSeal'], breaks: 'I2', bounds: TWO_NODES },
  { name: 'lease without compare-and-set', without: ['abortIsCompareAndSet'], breaks: 'I3', bounds: TWO_NODES },
  { name: 'only the winner of the abort lowers', without: ['everyAborterLowers'], breaks: 'I4', bounds: TWO_NODES },
  { name: 'only the engine opens', without: ['whoeverGoesForwardOpens'], breaks: 'I4', bounds: TWO_NODES },
  { name: 'resume before lower', without: ['lowerComesBeforeResume'], breaks: 'I4', bounds: TWO_NODES },
  { name: 'resume keeps the route', without: ['resumeSetsTheRoute'], breaks: 'I3', bounds: TWO_NODES },
  { name: 'swap as an exchange', without: ['swapSetsTheSide'], breaks: 'I3', bounds: TWO_NODES },
  { name: 'a starting node does not ask', without: ['startingNodeAsks'], breaks: 'I3', bounds: TWO_NODES },
  {
    name: 'finalize lowers the fence',
    without: ['finalizeKeepsTheFence'],
    breaks: 'I1',
    bounds: { ...ONE_EPOCH, finalize: true },
  },
  {
    name: 'lower before compare-and-set with an unchecked commit',
    without: ['lowerComesAfterTheAbort', 'commitChecksTheSeal'],
    breaks: 'I1',
    bounds: TWO_NODES,
  },
  { name: 'no tombstone', without: ['releaseLeavesATombstone'], breaks: 'I4', bounds: TWO_SHARDS },
  {
    name: 'seal does not wait for writers in flight',
    without: ['sealWaitsForWriters'],
    breaks: 'I1',
    bounds: { ...ONE_EPOCH, openTransactions: true },
  },
  { name: 'the way back is made after the opening', without: ['wayBackIsMadeAhead'], breaks: 'I5', bounds: TWO_NODES },
  { name: 'fail-over: no timeline pin', without: ['timelineIsPinned'], breaks: 'I1', bounds: FAILOVER },
  { name: 'fail-over: seal not on the standbys', without: ['standbysHaveTheSeal'], breaks: 'I1', bounds: FAILOVER },
  { name: 'fail-over: abort without the door', without: ['doorComesBeforeTheAbort'], breaks: 'I1', bounds: FAILOVER },
  { name: 'fail-over: no fence-error rule', without: ['fenceRefusalAsksTheRecord'], breaks: 'I4', bounds: FAILOVER },
  {
    name: 'fail-over: rollback though the old side failed over',
    without: ['rollbackNeedsTheTimeline'],
    breaks: 'I2',
    bounds: FAILOVER_ROLLBACK,
  },
  {
    name: 'fence off: a node crashes with a write in flight',
    without: ['fence'],
    breaks: 'I1',
    bounds: TWO_NODES,
  },
];

const MODEL: readonly Omit<Variant, 'from'>[] = [
  {
    name: 'begin at a side that does not serve any more',
    without: ['beginNeedsTheServingSide'],
    breaks: 'I3',
    bounds: TWO_EPOCHS,
  },
  {
    name: 'begin while the last abort has not lowered the flag',
    without: ['beginNeedsTheServingSide'],
    breaks: 'I4',
    bounds: TWO_EPOCHS,
  },
  {
    name: 'a node settles what it read before a later epoch was decided',
    without: ['settleChecksTheEpoch'],
    breaks: 'I3',
    bounds: TWO_EPOCHS,
  },
  {
    name: 'finalize after a rollback has begun',
    without: ['finalizeIsOfTheLastEpoch'],
    breaks: 'I1',
    bounds: { ...TWO_EPOCHS, finalize: true, next: 'rollback' },
  },
  {
    name: 'remove while a cutover runs',
    without: ['removalBarsTheNextEpoch'],
    breaks: 'I1',
    bounds: { ...ONE_EPOCH, remove: true },
  },
  {
    name: 'two shards: only shard 0 is asked whether the side accepts writes',
    without: ['everyShardIsAsked'],
    breaks: 'I4',
    bounds: TWO_SHARDS,
  },
  {
    name: 'fail-over: a node takes what it remembers for what the record says',
    without: ['fenceRefusalResolvesAgain'],
    breaks: 'I4',
    bounds: FAILOVER,
  },
  {
    name: 'fail-over: the door forgets a commit once a rollback has sealed that side',
    without: ['doorRemembersTheCommit'],
    breaks: 'I1',
    bounds: FAILOVER_ROLLBACK,
  },
  {
    name: 'fail-over: the destination fails over between its proof and the commit',
    without: ['destinationOutlivesItsServer'],
    breaks: 'I2',
    bounds: FAILOVER_ROLLBACK,
  },
  {
    name: 'fail-over: streams ahead of the promoted source are trusted by the next epoch',
    without: ['beginNeedsStreamsWithoutGap'],
    breaks: 'I2',
    bounds: FAILOVER_RETRY,
  },
  {
    name: 'fail-over: a late refuse of an attempt whose number was used again',
    without: ['refuseChecksTheNonce'],
    breaks: 'I4',
    bounds: { ...FAILOVER_RETRY, writes: 0 },
  },
  {
    name: 'fail-over: lower does nothing where a later row is open',
    without: ['lowerServesALaterRow'],
    breaks: 'I4',
    bounds: { ...FAILOVER_RETRY, writes: 0 },
  },
];

export const VARIANTS: readonly Variant[] = [
  ...PROTOCOL.map((variant): Variant => ({ ...variant, from: 'protocol' })),
  ...MODEL.map((variant): Variant => ({ ...variant, from: 'model' })),
];
