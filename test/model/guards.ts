/**
 * One task: name every rule of the protocol that can be taken out of the model, so that a variant is a set of names.
 *
 * A name says what holds while the guard stands; docs/protocol.md is where the rule is written.
 */
export const GUARDS = [
  // the record
  'lowerChecksTheEpoch',
  'lowerServesALaterRow',
  'refuseChecksTheNonce',
  'openNeedsTheCommit',
  'abortIsCompareAndSet',
  'commitChecksTheSeal',
  'lowerComesAfterTheAbort',
  'releaseLeavesATombstone',
  'sealWaitsForWriters',
  'beginNeedsTheServingSide',
  'finalizeIsOfTheLastEpoch',
  'removalBarsTheNextEpoch',
  // the engine
  'parityIsOfThisSeal',
  'wayBackIsMadeAhead',
  'lowerComesBeforeResume',
  'finalizeKeepsTheFence',
  // nodes and whoever resolves an epoch
  'everyAborterLowers',
  'whoeverGoesForwardOpens',
  'resumeSetsTheRoute',
  'swapSetsTheSide',
  'startingNodeAsks',
  'everyShardIsAsked',
  'settleChecksTheEpoch',
  'fenceRefusalAsksTheRecord',
  'fenceRefusalResolvesAgain',
  // a source that failed over
  'timelineIsPinned',
  'standbysHaveTheSeal',
  'doorComesBeforeTheAbort',
  'doorRemembersTheCommit',
  'destinationOutlivesItsServer',
  'beginNeedsStreamsWithoutGap',
  'rollbackNeedsTheTimeline',
  // the fence as a whole: without it only gates hold clients back
  'fence',
] as const;
export type Guard = (typeof GUARDS)[number];
