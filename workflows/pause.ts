/**
 * One task: the pause, as a workflow of its own: one workflow task that begins with the three parts as local activities.
 *
 * A workflow of its own because its workflow task timeout must be short (a dead worker is noticed by it) and can be set
 * only when a workflow starts.
 */
import { REHEARSAL, type EpochOutcome, type EpochPlan } from '../src/cutover/contract.js';
import { EVENT_OF, pausedMsOf, SEQUENCE_OF, type EpochEvent } from '../src/cutover/epoch.js';
import { pausePart } from './activities.js';

export async function pause(plan: EpochPlan): Promise<EpochOutcome> {
  const epoch = `epoch ${plan.epoch.toString()}`;
  const closed = await pausePart(plan, `Hold the clients and seal the source (steps 1–2, ${epoch})`).closeSource(plan);
  if (!closed.ok) return giveUp(plan, closed.events, `${closed.step}: ${closed.reason}`);
  const proven = await pausePart(
    plan,
    `Prove the destination: parity, sequences, way back (steps 3–5, ${epoch})`,
  ).proveDestination(plan, closed.events, closed.sealLsn);
  const soFar = [...closed.events, ...proven.events];
  if (!proven.ok) return giveUp(plan, soFar, `${proven.step}: ${proven.reason}`);
  if (plan.rehearse === true) return giveUp(plan, soFar, REHEARSAL);
  const opened = await pausePart(
    plan,
    `Commit, swap the configuration, resume on the destination (steps 6–8, ${epoch})`,
  ).openDestination(plan, soFar, closed.sealLsn === null);
  const events = [...soFar, ...opened.events];
  if (!opened.ok) return giveUp(plan, events, `${opened.step}: ${opened.reason}`);
  return { epoch: plan.epoch, outcome: 'committed', reason: null, events, pausedMs: pausedMsOf(events) };
}

/** Before the commit this aborts; after it, it goes forward: the record decides, not this workflow. */
async function giveUp(plan: EpochPlan, events: readonly EpochEvent[], reason: string): Promise<EpochOutcome> {
  const decided = await pausePart(
    plan,
    `Return the traffic to the side that serves (epoch ${plan.epoch.toString()})`,
  ).returnToSource(plan, reason);
  const last: readonly EpochEvent[] =
    decided.outcome === 'aborted'
      ? [
          { type: EVENT_OF.abort, data: { reason: decided.reason } },
          { type: EVENT_OF.returnTraffic, data: { at: new Date().toISOString() } },
        ]
      : [];
  // A commit that its server lost in a fail-over, before the destination had opened, is none.
  const kept =
    decided.outcome === 'aborted' ? events.filter((e) => SEQUENCE_OF[e.type] < SEQUENCE_OF.CutoverCommitted) : events;
  const all = [...kept, ...last];
  return {
    epoch: plan.epoch,
    outcome: decided.outcome,
    reason: decided.reason,
    events: all,
    pausedMs: pausedMsOf(all),
  };
}
