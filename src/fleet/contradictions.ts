/**
 * One task: find what no course of events could have written into the records of a pair: somebody changed them by hand, or
 * restored one of them from a backup. Nobody may guess then which side serves.
 */
import { sameSide } from '../cutover/side.js';
import { isCommitted, type Decision, type RecordState } from '../postgres/record.js';

const STATES: ReadonlySet<string> = new Set(['preparing', 'sealed', 'committed', 'finalizing', 'finalized', 'aborted']);

/** One contradiction as words, null where there is none. */
export function contradictionIn(records: readonly RecordState[]): string | null {
  for (const decision of records.flatMap((record) => record.decisions)) {
    const problem = impossible(decision);
    if (problem !== null) return `epoch ${decision.epoch.toString()} ${problem}`;
  }
  const [one, other] = records;
  for (const decision of one?.decisions ?? []) {
    const copy = other?.decisions.find((d) => d.epoch === decision.epoch && d.migration === decision.migration);
    const problem = copy ? difference(decision, copy) : null;
    if (problem !== null) return `epoch ${decision.epoch.toString()} ${problem}`;
  }
  for (const record of records) {
    const problem = undecided(record);
    if (problem !== null) return problem;
  }
  return null;
}

function impossible({ state, nonce, seal_lsn, source, destination }: Decision): string | null {
  if (!STATES.has(state)) return `has the unknown state "${state}"`;
  if (nonce === '') return 'has no nonce';
  if (sameSide(source, destination)) return 'leads from a database to itself';
  if (isCommitted(state) && seal_lsn === null) return `is ${state}, but was never sealed`;
  return null;
}

/**
 * A fence is sealed and opened in the transaction that writes the decision, and keeps the nonce; so a failover loses both or neither.
 * `ready` and `refused` come before the decision reaches that side, `closed` before any.
 */
function undecided({ fence, decisions }: RecordState): string | null {
  if (fence.state !== 'sealed' && fence.state !== 'open') return null;
  if (fence.nonce === '' || decisions.some(({ nonce }) => nonce === fence.nonce)) return null;
  return `epoch ${fence.epoch.toString()} left the fence ${fence.state}, but its decision is gone`;
}

/** Two copies of one epoch may be unequally far, but not decided in two ways. */
function difference(one: Decision, other: Decision): string | null {
  if (one.nonce !== other.nonce) return 'has another nonce on each side';
  if (!sameSide(one.source, other.source) || !sameSide(one.destination, other.destination))
    return 'leads to another database on each side';
  const outcomes = [one.state, other.state];
  if (outcomes.includes('aborted') && outcomes.some(isCommitted))
    return 'is committed on one side and aborted on the other';
  return null;
}
