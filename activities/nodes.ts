/** One task: tell whether every node of the fleet can take part in a cutover, and name those that cannot. */
import type { Check, NodeAddress } from '../src/cutover/contract.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import type { RowAnswer } from '../src/fleet/fleet.js';
import type { NodeState } from '../src/fleet/node.js';
import type { EngineContext } from './context.js';

/** A renewal must reach the node and be answered several times within one lease. */
const ROUND_TRIPS_IN_LEASE = 6;

/** A node's answer; `problem` when there was none. */
export interface NodeAnswer {
  readonly node: string;
  readonly address: string;
  readonly state: NodeState | null;
  readonly roundTripMs: number | null;
  readonly problem: string | null;
}

/** What every node of the fleet says about `database`; fails for none of them. */
export async function askNodes(context: EngineContext, database: string): Promise<readonly NodeAnswer[]> {
  return (await Promise.all((await context.fleet.look()).map((row) => askRow(context, row, database)))).flat();
}

function askRow(context: EngineContext, row: RowAnswer, database: string): Promise<readonly NodeAnswer[]> {
  const { address } = row;
  if ('problem' in row)
    return Promise.resolve([
      { node: row.row, address, state: null, roundTripMs: null, problem: messageOf(row.problem) },
    ]);
  return Promise.all(row.members.map((member) => askNode(context, member, database)));
}

async function askNode(context: EngineContext, member: NodeAddress, database: string): Promise<NodeAnswer> {
  const address = `${member.host}:${member.port.toString()}`;
  const [node] = context.fleet.nodes([member]);
  const start = performance.now();
  try {
    const state = (await node?.state(database)) ?? null;
    return { node: member.name, address, state, roundTripMs: performance.now() - start, problem: null };
  } catch (error) {
    return { node: member.name, address, state: null, roundTripMs: null, problem: messageOf(error) };
  }
}

/** Sentences, each with a node's name; empty when the fleet may switch as one. */
export function nodeProblems(answers: readonly NodeAnswer[], leaseMs: number): readonly string[] {
  const problems = answers.flatMap(({ problem }) => (problem === null ? [] : [problem]));
  const prints = new Set(answers.flatMap(({ state }) => state?.configFingerprint ?? []));
  const having = (print: string): string =>
    answers.flatMap(({ node, state }) => (state?.configFingerprint === print ? node : [])).join(', ');
  if (prints.size > 1)
    problems.push(`configurations differ: ${[...prints].map((print) => `${print} at ${having(print)}`).join('; ')}`);
  for (const { node, roundTripMs } of answers)
    if (roundTripMs !== null && roundTripMs * ROUND_TRIPS_IN_LEASE > leaseMs)
      problems.push(
        `node ${node} answered after ${Math.ceil(roundTripMs).toString()} ms: cutover_lease is ${leaseMs.toString()} ms and must be ${ROUND_TRIPS_IN_LEASE.toString()} times that`,
      );
  return problems;
}

/**
 * The nodes of this cutover.
 *
 * @throws CutoverError `nodes_not_ready` naming each node that cannot be reached, is another one, or is configured differently
 */
export async function requireNodes(context: EngineContext, database: string): Promise<readonly NodeAddress[]> {
  const addresses = (await context.fleet.look()).flatMap((row) => ('members' in row ? row.members : []));
  const problems = nodeProblems(await askNodes(context, database), context.config().cutover.leaseMs);
  if (problems.length > 0) throw new CutoverError('nodes_not_ready', { problems: problems.join('; ') });
  return addresses;
}

/** The same as a line of preflight. */
export async function nodesCheck(context: EngineContext, database: string): Promise<Check> {
  const answers = await askNodes(context, database);
  const problems = nodeProblems(answers, context.config().cutover.leaseMs);
  return {
    id: 'nodes',
    title: 'nodes',
    verdict: problems.length === 0 ? 'ok' : 'failed',
    detail: problems.length === 0 ? answers.map((a) => a.node).join(', ') : problems.join('; '),
    remedy: problems.length === 0 ? '' : 'See SHOW NODES; start, reload or correct the nodes named here.',
  };
}

/** Why the nodes are not at the point from which a cutover may begin: one that just came back resolves its epoch first. */
export async function nodesNotYet(
  context: EngineContext,
  nodes: readonly NodeAddress[],
  database: string,
): Promise<string | null> {
  const states = await Promise.all(context.fleet.nodes(nodes).map((node) => node.state(database)));
  const highest = Math.max(...states.map((s) => s.epochResolved));
  const behind = states.find((s) => s.epochResolved < highest);
  if (behind)
    return `node ${behind.node} stands at epoch ${behind.epochResolved.toString()}, others at ${highest.toString()}`;
  const holding = states.find((s) => s.gateReasons.includes('cutover'));
  return holding ? `node ${holding.node} still holds its clients for an earlier epoch` : null;
}
