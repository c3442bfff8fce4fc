/** One task: name the messages workflows understand, from operators and from each other. */
import { defineSignal, defineUpdate } from '@temporalio/workflow';
import type { Ending, MoveRequest, Turn } from '../src/cutover/contract.js';
import { checkRequest, FIELDS_OF, RequestInvalid } from '../src/cutover/request.js';
import { refusal } from './refusal.js';

/** Cut over now: for a move that waits for approval, or again after a rollback. */
export const approveUpdate = defineUpdate<string, [MoveOptions?]>('approve');
/** Give up what is not committed. */
export const abortUpdate = defineUpdate<string>('abort');
/** Go back to the side that served before. */
export const rollbackUpdate = defineUpdate<string, [MoveOptions?]>('rollback');
/** End the migration on the side that serves. */
export const finalizeUpdate = defineUpdate<string>('finalize');

/**
 * STOP_TASK: end as the phase demands, before a commit by removal, after it by finalizing. Who has read the record says which: a
 * workflow may hear of a move a moment later.
 */
export const stopSignal = defineSignal<[Ending?]>('stop');
/** A cutover, whoever started it, has moved the traffic. */
export const movedSignal = defineSignal<[Turn]>('moved');
/** The streams have reached a stage. */
export const stageSignal = defineSignal<[StreamStage]>('stage');
/** Indexes and constraints are made: the reverse streams may be made. */
export const schemaFinalisedSignal = defineSignal('schemaFinalised');
/** End the streams. */
export const endSignal = defineSignal<[Ending]>('end');

/** What may be said about one move of the traffic. */
export type MoveOptions = Pick<MoveRequest, 'acceptLoss'>;

export type StreamStage = 'copied' | 'streaming';

/** Checks an input from outside; a wrong one fails the workflow at once, with a sentence. */
export function checked(input: unknown, workflow: keyof typeof FIELDS_OF): ReturnType<typeof checkRequest> {
  try {
    return checkRequest(input, FIELDS_OF[workflow]);
  } catch (error) {
    if (error instanceof RequestInvalid) throw refusal(error.message, 'request_invalid');
    throw error;
  }
}
