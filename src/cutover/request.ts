/** One task: check a request as it arrives from outside: JSON typed by a person, unknown fields and wrong types included. */
import type { MoveRequest, ReshardRequest } from './contract.js';

export class RequestInvalid extends Error {
  override readonly name = 'RequestInvalid';
}

const FIELDS = [
  'source',
  'destination',
  'publication',
  'rollback',
  'acceptLoss',
  'rehearse',
  'prepare',
  'cutover',
  'slot',
] as const;
type Field = (typeof FIELDS)[number];

/** What each workflow understands: a field that would be passed over is refused, since whoever wrote it meant something. */
export const FIELDS_OF = {
  cutover: ['source', 'destination', 'publication', 'rollback', 'acceptLoss', 'rehearse'],
  reshard: ['source', 'destination', 'publication', 'acceptLoss', 'cutover', 'prepare'],
  replicate: ['source', 'destination', 'publication', 'slot', 'prepare'],
  schemaSync: ['source', 'destination', 'publication'],
  verify: ['source', 'destination'],
} as const satisfies Record<string, readonly Field[]>;

/**
 * @param known the fields taken; absent: those of all workflows
 * @throws RequestInvalid with one sentence that names the field
 */
export function checkRequest(
  input: unknown,
  known: readonly Field[] = FIELDS,
): ReshardRequest & { readonly slot?: string } {
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    throw new RequestInvalid('the input must be one JSON object, as {"source": "prod", "destination": "prod_new"}');
  const fields = input as Record<string, unknown>;
  for (const name of Object.keys(fields))
    if (!known.some((f) => f === name))
      throw new RequestInvalid(`unknown field "${name}"; known are ${known.join(', ')}`);
  for (const name of ['source', 'destination'] as const)
    if (typeof fields[name] !== 'string' || fields[name] === '')
      throw new RequestInvalid(`"${name}" must name a database`);
  for (const name of ['publication', 'slot'] as const)
    if (fields[name] !== undefined && typeof fields[name] !== 'string')
      throw new RequestInvalid(`"${name}" must be a text`);
  for (const name of ['rollback', 'acceptLoss', 'rehearse'] as const)
    if (fields[name] !== undefined && typeof fields[name] !== 'boolean')
      throw new RequestInvalid(`"${name}" must be true or false`);
  if (fields.rehearse === true && fields.acceptLoss === true)
    throw new RequestInvalid('"acceptLoss" has no meaning in a rehearsal: it moves nothing');
  if (fields.cutover !== undefined && fields.cutover !== 'automatic' && fields.cutover !== 'approved')
    throw new RequestInvalid('"cutover" must be "automatic" or "approved"');
  if (fields.prepare !== undefined && fields.prepare !== 'auto' && fields.prepare !== 'off')
    throw new RequestInvalid('"prepare" must be "auto" or "off"');
  return fields as unknown as ReshardRequest;
}

/** The fields a cutover needs, without those of a reshard. */
export function moveRequest(request: MoveRequest): MoveRequest {
  const { source, destination, publication, rollback, acceptLoss } = request;
  return {
    source,
    destination,
    ...(publication === undefined ? {} : { publication }),
    ...(rollback === undefined ? {} : { rollback }),
    ...(acceptLoss === undefined ? {} : { acceptLoss }),
  };
}
