/** One task: SCHEMA_SYNC: a part of the schema alone, for an operator who copies by other means. */
import type { MoveRequest } from '../src/cutover/contract.js';
import { SCHEMA_PARTS, type SchemaPart } from '../src/cutover/task.js';
import { lengthy } from './activities.js';
import { Journal } from './journal.js';
import { checked } from './messages.js';
import { asSentence, refusal } from './refusal.js';

export async function schemaSync(part: SchemaPart, input: MoveRequest): Promise<{ statements: number }> {
  if (!SCHEMA_PARTS.includes(part)) throw refusal(`the part must be ${SCHEMA_PARTS.join(', ')}`, 'request_invalid');
  const request = checked(input, 'schemaSync');
  const journal = new Journal('schema_sync', request.source, request.destination);
  journal.note('PhaseEntered', {
    part,
    phase: part === 'pre' ? 'loading schema' : part === 'post' ? 'creating indexes' : 'syncing cutover schema',
  });
  try {
    const done = await lengthy(`Make the ${part} part of the schema at ${request.destination}`).syncSchema(
      part,
      request,
    );
    journal.note('TaskFinished');
    await journal.writeWhereKept(request);
    return done;
  } catch (error) {
    journal.failed(error);
    await journal.writeWhereKept(request);
    throw asSentence(error);
  }
}
