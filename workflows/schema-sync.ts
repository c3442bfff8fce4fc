/** One task: SCHEMA_SYNC: a part of the schema alone, for an operator who copies by other means. */
import type { MoveRequest } from '../src/cutover/contract.js';
import { medium } from './activities.js';
import { Journal } from './journal.js';
import { checked } from './messages.js';
import { asSentence, refusal } from './refusal.js';

const PARTS = ['pre', 'post', 'cutover'] as const;
export type SchemaPart = (typeof PARTS)[number];

export async function schemaSync(part: SchemaPart, input: MoveRequest): Promise<{ statements: number }> {
  if (!PARTS.includes(part)) throw refusal(`the part must be ${PARTS.join(', ')}`, 'request_invalid');
  const request = checked(input, 'schemaSync');
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
    journal.failed(error);
    throw asSentence(error);
  }
}
