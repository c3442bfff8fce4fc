/** One task: wait for a rehearsal that was started, and say how long clients were held and what took the time. */
import { WorkflowFailedError, type Client } from '@temporalio/client';
import type { MoveResult } from '../cutover/contract.js';
import { EVENT_OF, STEPS, STEP_TITLES, type EpochEvent, type Step } from '../cutover/epoch.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { waitingFor } from './waiting.js';

/** One line of the answer: a step that was rehearsed, one that was not, or the whole stall. */
export interface RehearsalRow {
  readonly step: string;
  /** null: it was not rehearsed */
  readonly ms: number | null;
  readonly detail: string;
}

export interface Rehearsal {
  readonly taskId: number;
  readonly rows: readonly RehearsalRow[];
  /** false: it still waits for its moment; SHOW CUTOVERS will have it */
  readonly finished: boolean;
}

/** A moment that is right comes within seconds; a person should not sit before a silent prompt for longer. */
export const REHEARSAL_ANSWER_MS = 60_000;

/**
 * The outcome of the rehearsal `workflowId`, waited for within REHEARSAL_ANSWER_MS.
 *
 * @throws CutoverError `rehearsal_failed` with the reason, when it ended before it had shown everything
 */
export async function rehearsalOf(client: Client, workflowId: string): Promise<Omit<Rehearsal, 'taskId'>> {
  const timer = new AbortController();
  try {
    const result = await Promise.race([
      client.workflow.getHandle(workflowId).result() as Promise<MoveResult>,
      timeout(REHEARSAL_ANSWER_MS, timer.signal),
    ]);
    if (result) return { rows: rowsOf(result), finished: true };
    const reason = await waitingFor(client, workflowId);
    return {
      rows: [{ step: 'waiting for the moment', ms: null, detail: reason ?? 'see SHOW TASKS' }],
      finished: false,
    };
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    throw new CutoverError('rehearsal_failed', { problem: messageOf(error.cause ?? error) });
  } finally {
    timer.abort();
  }
}

function timeout(ms: number, stopped: AbortSignal): Promise<null> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms, null);
    stopped.addEventListener('abort', () => {
      clearTimeout(timer);
    });
  });
}

function rowsOf({ outcome, sentence, pausedMs, steps }: MoveResult): readonly RehearsalRow[] {
  if (outcome !== 'rehearsed') return [{ step: outcome, ms: null, detail: sentence }];
  return [...STEPS.map((step) => rowOf(step, steps)), { step: 'clients held', ms: pausedMs, detail: sentence }];
}

function rowOf(step: Step, events: readonly EpochEvent[]): RehearsalRow {
  const event = events.find(({ type }) => type === EVENT_OF[step]);
  if (!event) return { step, ms: null, detail: `not rehearsed: ${STEP_TITLES[step]}` };
  const { ms } = event.data;
  return { step, ms: typeof ms === 'number' ? ms : null, detail: STEP_TITLES[step] };
}
