/**
 * One task: the pause, as a workflow of its own: one workflow task that begins with the eight steps as a local activity.
 *
 * A workflow of its own because its workflow task timeout must be short (a dead worker is noticed by it) and can be set
 * only when a workflow starts.
 */
import { REHEARSAL, type EpochOutcome, type EpochPlan } from '../src/cutover/contract.js';
import { EVENT_OF, pausedMsOf, SEQUENCE_OF, type EpochEvent } from '../src/cutover/epoch.js';
import { localActivity } from './activities.js';

export async function pause(plan: EpochPlan): Promise<EpochOutcome> {
  const moved = await localActivity(
    plan,
    `Hold the clients, seal the source, prove the destination, commit and resume (steps 1–8, epoch ${plan.epoch.toString()})`,
  ).moveTraffic(plan);
  const { events } = moved;
  if (!moved.ok) return giveUp(plan, events, `${moved.step}: ${moved.reason}`);
  if (plan.rehearse === true) return giveUp(plan, events, REHEARSAL);
  return { epoch: plan.epoch, outcome: 'committed', reason: null, events, pausedMs: pausedMsOf(events) };
}

/** Before the commit this aborts; after it, it goes forward: the record decides, not this workflow. */
async function giveUp(plan: EpochPlan, events: readonly EpochEvent[], reason: string): Promise<EpochOutcome> {
  const decided = await localActivity(
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
