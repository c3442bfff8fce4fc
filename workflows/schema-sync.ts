/** One task: SCHEMA_SYNC: a part of the schema alone, for an operator who copies by other means. */
import type { MoveRequest } from '../src/cutover/contract.js';
import { medium } from './activities.js';
import { Journal, sentenceOf } from './journal.js';
import { checked } from './messages.js';

export type SchemaPart = 'pre' | 'post' | 'cutover';

export async function schemaSync(part: SchemaPart, input: MoveRequest): Promise<{ statements: number }> {
  const request = checked(input);
  const journal = new Journal('schema_sync', request.source, request.destination);
  journal.note('PhaseEntered', { phase: part === 'pre' ? 'loading schema' : 'creating indexes' });
  try {
    const done = await medium(`Make the ${part} part of the schema at ${request.destination}`).syncSchema(
      part,
      request,
    );
    journal.note('TaskFinished');
    return done;
  } catch (error) {
    journal.note('TaskFailed', { reason: sentenceOf(error) });
    throw error;
  }
}
