/**
 * One task: CUTOVER_NODE: steer this node from a worker in another process.
 *
 * `CUTOVER_NODE <method> '<json>'` is one method of FleetNode, its parameters by name in one object, its answer as JSON in one
 * text column. It runs over an ordinary connection to the admin database, so a person can type it too.
 */
import { z } from 'zod';
import { CutoverError } from '../errors/errors.js';
import type { FleetNode } from '../fleet/node.js';

const shard = { systemIdentifier: z.string().min(1), databaseOid: z.int().min(1) };
const side = z.strictObject({ ...shard, otherShards: z.array(z.strictObject(shard)).min(1).exactOptional() });
const database = z.string().min(1);
const epoch = z.int().min(1);
const timeMs = z.int().min(0);

const swapRequest = z.strictObject({ database, peer: database, epoch, serving: side, saveConfig: z.boolean() });

interface Method<Parameters> {
  readonly parameters: z.ZodType<Parameters>;
  call(node: FleetNode, parameters: Parameters): Promise<unknown>;
}

const METHODS = {
  state: method(z.strictObject({ database }), (node, given) => node.state(given.database)),
  states: method(z.strictObject({}), (node) => node.states()),
  members: method(z.strictObject({}), (node) => node.members()),
  save: method(z.strictObject({ database }), (node, given) => node.save(given.database)),
  prepare: method(swapRequest, (node, given) => node.prepare(given)),
  pause: method(
    z.strictObject({
      database,
      peer: database,
      epoch,
      source: side,
      destination: side,
      leaseMs: timeMs,
      drainMs: timeMs,
      drainAction: z.enum(['abort', 'cancel']),
    }),
    (node, given) => node.pause(given),
  ),
  renew: method(z.strictObject({ database, epoch, leaseMs: timeMs }), (node, given) =>
    node.renew(given.database, given.epoch, given.leaseMs),
  ),
  swap: method(swapRequest, (node, given) => node.swap(given)),
  resume: method(z.strictObject({ database, epoch, serving: side }), (node, given) =>
    node.resume(given.database, given.epoch, given.serving),
  ),
} satisfies Record<Exclude<keyof FleetNode, 'name'>, unknown>;

const EXECUTE = z.strictObject({ statement: z.string().min(1) });

/** The command in `CUTOVER_NODE execute '{"statement": "RELOAD"}'`. @throws CutoverError `admin_syntax` */
export function statementIn(json: string): string {
  const given = EXECUTE.safeParse(parsed(json));
  if (given.success) return given.data.statement;
  throw refused('execute takes {"statement": …}');
}

/** Binds a schema to its call, so that both stay of one type. */
function method<Parameters>(
  parameters: Method<Parameters>['parameters'],
  call: Method<Parameters>['call'],
): (node: FleetNode, given: unknown) => Promise<unknown> {
  return async (node, given) => {
    const parsed = parameters.safeParse(given);
    if (parsed.success) return call(node, parsed.data);
    const issue = parsed.error.issues[0];
    throw refused(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong parameters'}`);
  };
}

/**
 * Calls the method and answers JSON, `null` where the method answers nothing.
 *
 * @throws CutoverError `admin_syntax` for an unknown method or wrong parameters, else what the node throws
 */
export async function callNode(node: FleetNode, name: string, json: string): Promise<string> {
  if (!Object.hasOwn(METHODS, name)) throw refused(`no method "${name}"`);
  return JSON.stringify((await METHODS[name as keyof typeof METHODS](node, parsed(json))) ?? null);
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    throw refused('the parameters are not JSON');
  }
}

function refused(problem: string): CutoverError {
  const usage = `Usage: CUTOVER_NODE ${Object.keys(METHODS).join('|')} '{"database": …}'`;
  return new CutoverError('admin_syntax', { problem, usage });
}
