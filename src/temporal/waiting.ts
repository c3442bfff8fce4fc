/** One task: ask Temporal what a running cutover waits for: the words its activity sends with every heartbeat. */
import { defaultPayloadConverter, type Client } from '@temporalio/client';

const ANSWER_TIMEOUT_MS = 2_000;
/** The activity's name in src/cutover/activities.ts. */
const ACTIVITY = 'awaitMoment';
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
    const pending = raw.pendingActivities?.find((activity) => activity.activityType?.name === ACTIVITY);
    // Between two tries the failure is newer than what was told before it.
    if (pending?.lastFailure?.message && Number(pending.state) === SCHEDULED) return pending.lastFailure.message;
    const payload = pending?.heartbeatDetails?.payloads?.[0];
    const reason = payload ? defaultPayloadConverter.fromPayload<unknown>(payload) : null;
    return typeof reason === 'string' && reason !== '' ? reason : null;
  } catch {
    return null;
  }
}
