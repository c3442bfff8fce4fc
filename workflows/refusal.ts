/** One task: make the failures of workflows read as one sentence, in Temporal's UI and behind `temporal workflow result`. */
import {
  ActivityFailure,
  ApplicationFailure,
  ChildWorkflowFailure,
  isCancellation,
  rootCause,
} from '@temporalio/workflow';
import type { MoveRequest, Situation } from '../src/cutover/contract.js';

/** A refusal is an answer to a person: a stack trace would only bury it. */
export function refusal(sentence: string, type: string): ApplicationFailure {
  const failure = ApplicationFailure.nonRetryable(sentence, type);
  failure.stack = '';
  return failure;
}

/** What a workflow fails with: the sentence of the innermost cause instead of "Activity task failed". */
export function asSentence(error: unknown): unknown {
  if (isCancellation(error)) return error;
  if (!(error instanceof ActivityFailure || error instanceof ChildWorkflowFailure)) return error;
  const cause = innermost(error);
  if (cause instanceof ApplicationFailure) return refusal(cause.message, cause.type ?? 'failed');
  const what = error instanceof ActivityFailure ? error.activityType : error.workflowType;
  return refusal(`${what}: ${rootCause(error) ?? error.message}`, 'failed');
}

/** Whether an activity answered with this code of the error table. */
export function isRefusal(error: unknown, code: string): boolean {
  if (!(error instanceof ActivityFailure)) return false;
  const cause = innermost(error);
  return cause instanceof ApplicationFailure && cause.type === code;
}

function innermost(error: Error): Error {
  let current = error;
  for (let depth = 0; current.cause instanceof Error && depth < 10; depth++) current = current.cause;
  return current;
}

/** A request names the move as it was begun; exchanged names would move the traffic the other way than was meant. */
export function refuseOtherMove(request: MoveRequest, { migration }: Situation): void {
  if (!migration) return;
  const { database, peer, publication } = migration;
  if (request.source !== database || request.destination !== peer)
    throw refusal(
      `the move under way is ${database} → ${peer}, not ${request.source} → ${request.destination}; going back is {"source": "${database}", "destination": "${peer}", "rollback": true}`,
      'request_invalid',
    );
  if (request.publication !== undefined && request.publication !== (publication ?? ''))
    throw refusal(
      `the streams ${database} → ${peer} carry ${publication === null ? 'every table' : `publication "${publication}"`}, not publication "${request.publication}"`,
      'request_invalid',
    );
}

/** Two at once: the second fails naming the first, before it looks at what the first has made. */
export function refuseHeld({ migration, orphaned }: Situation, owner: string): void {
  if (!migration || orphaned === true || migration.owner === owner) return;
  throw refusal(
    `the migration ${migration.database} -> ${migration.peer} is held by workflow ${migration.owner}. Wait for it, or stop it with STOP_TASK.`,
    'migration_held',
  );
}
