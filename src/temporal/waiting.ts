/** One task: ask Temporal what a cutover waits for, or how far a comparison is: what its activity sends with every heartbeat. */
import { defaultPayloadConverter, type Client } from '@temporalio/client';

const ANSWER_TIMEOUT_MS = 2_000;
/** The names in src/cutover/activities.ts. */
const TELLING = ['awaitMoment', 'verifyTables'];
/** `PENDING_ACTIVITY_STATE_SCHEDULED` of temporal.api.enums.v1: no worker has it now. */
const SCHEDULED = 1;

/**
 * Why the moment has not come, at most as old as two heartbeats; null when nothing is known: it has come, Temporal does not
 * answer within 2 s, or no worker has taken the activity yet. After a failure that is tried again: that failure.
 */
export async function waitingFor(client: Client, workflowId: string): Promise<string | null> {
  try {
    const { raw } = await client.withDeadline(Date.now() + ANSWER_TIMEOUT_MS, () =>
      client.workflow.getHandle(workflowId).describe(),
    );
    const pending = raw.pendingActivities?.find(({ activityType }) => TELLING.includes(activityType?.name ?? ''));
    // Between two tries the failure is newer than what was told before it.
    if (pending?.lastFailure?.message && Number(pending.state) === SCHEDULED) return pending.lastFailure.message;
    const payload = pending?.heartbeatDetails?.payloads?.[0];
    const told = payload ? defaultPayloadConverter.fromPayload<unknown>(payload) : null;
    const words = typeof told === 'object' && told !== null && 'sentence' in told ? told.sentence : told;
    return typeof words === 'string' && words !== '' ? words : null;
  } catch {
    return null;
  }
}
