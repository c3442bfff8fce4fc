/**
 * One task: judge a history of lists: could its transactions have run one after the other, each between its beginning and
 * its answer, and is all that was acknowledged there in the end?
 *
 * The idea is Elle's (K. Kingsbury, P. Alvaro, "Elle: inferring isolation anomalies from experimental observations", VLDB
 * 2020): elements are unique and lists only grow, so a read of a list tells the whole order of the writes before it.
 * [README.md](README.md) says which guarantee is checked, and why it may be asked of PostgreSQL and of a move.
 */
import { judgeCycles } from './cycles.js';
import { gather } from './evidence.js';
import { Findings, type Finding } from './findings.js';
import type { FinalState, History } from './history.js';
import { judgeStaleness } from './stale-reads.js';
import { judgeLosses, judgeReads, versionsOf } from './versions.js';

/**
 * Everything that is wrong with the history, at most ten of each kind and how many more; empty when it is strictly serializable and
 * nothing is lost.
 *
 * @param finalState all lists, read after every client had ended; a key that is missing has an empty list
 * @throws InvariantViolation when the history itself makes no sense, as an element that is appended twice
 */
export function check(history: History, finalState: FinalState): readonly Finding[] {
  const findings = new Findings();
  const evidence = gather(history, finalState);
  const versions = versionsOf(evidence);
  judgeLosses(evidence, findings);
  judgeReads(evidence, versions, findings);
  judgeStaleness(evidence, versions, findings);
  judgeCycles(evidence, versions, findings);
  return findings.all();
}
