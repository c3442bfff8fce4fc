/** One task: tell whether every node of the fleet can take part in a cutover, and name those that cannot. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Check, NodeAddress } from '../src/cutover/contract.js';
import { ROUND_TRIPS_IN_LEASE } from '../src/cutover/policy.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import { invariant } from '../src/errors/invariant.js';
import type { RowAnswer } from '../src/fleet/fleet.js';
import type { FleetNode, NodeState } from '../src/fleet/node.js';
import type { EngineContext } from './context.js';

/** What a node answered, or why it did not. */
export interface NodeAnswer {
  readonly node: string;
  readonly address: NodeAddress;
  readonly states: readonly NodeState[];
  /** how old the answer is at most; null when there was none */
  readonly roundTripMs: number | null;
  readonly problem: string | null;
  /** the problem is that the node is being handed over, which passes */
  readonly passes?: boolean;
}

const POLL_MS = 100;
/** One that was held up, or had to connect first, says nothing of the way. */
const TRIES = 3;

type Ask = (node: FleetNode) => Promise<readonly NodeState[]>;

/** Asks every node of the fleet about every database; fails for none of them. */
export function askNodes(context: EngineContext): Promise<readonly NodeAnswer[]> {
  return askAll(context, (node) => node.states());
}

async function askAll(context: EngineContext, ask: Ask): Promise<readonly NodeAnswer[]> {
  return (await Promise.all((await context.fleet.look()).map((row) => askRow(context, row, ask)))).flat();
}

function askRow(context: EngineContext, row: RowAnswer, ask: Ask): Promise<readonly NodeAnswer[]> {
  if ('members' in row) return Promise.all(row.members.map((member) => askNode(context, member, ask)));
  const { entry, problem } = row;
  return Promise.resolve([
    { node: entry.name, address: entry, states: [], roundTripMs: null, problem: messageOf(problem) },
  ]);
}

/** Asks as long as the answer is late for the lease, three times at most. */
async function askNode(context: EngineContext, address: NodeAddress, ask: Ask): Promise<NodeAnswer> {
  const { leaseMs } = context.config().cutover;
  let answer = await askOnce(context, address, ask);
  for (let tries = 1; tries < TRIES && isLate(answer, leaseMs); tries += 1)
    answer = await askOnce(context, address, ask);
  return answer;
}

function isLate({ roundTripMs }: NodeAnswer, leaseMs: number): boolean {
  return roundTripMs !== null && roundTripMs * ROUND_TRIPS_IN_LEASE > leaseMs;
}

async function askOnce(context: EngineContext, address: NodeAddress, ask: Ask): Promise<NodeAnswer> {
  const [node] = context.fleet.nodes([address]);
  invariant(node, 'every address has a node');
  const start = performance.now();
  try {
    const states = await ask(node);
    return { node: address.name, address, states, roundTripMs: performance.now() - start, problem: null };
  } catch (error) {
    const passes = isHandOver(error);
    return { node: address.name, address, states: [], roundTripMs: null, problem: messageOf(error), passes };
  }
}

function isHandOver(error: unknown): error is CutoverError {
  return error instanceof CutoverError && error.code === 'node_handed_over';
}

/** Sentences, each with a node's name; empty when the fleet may switch as one. */
export function nodeProblems(answers: readonly NodeAnswer[], leaseMs: number): readonly string[] {
  const problems = answers.flatMap(({ problem }) => (problem === null ? [] : [problem]));
  const printOf = ({ states }: NodeAnswer): string | undefined => states[0]?.configFingerprint;
  const prints = new Set(answers.map(printOf).filter((print) => print !== undefined));
  const having = (print: string): string =>
    answers.flatMap((answer) => (printOf(answer) === print ? answer.node : [])).join(', ');
  if (prints.size > 1)
    problems.push(`configurations differ: ${[...prints].map((print) => `${having(print)} has ${print}`).join('; ')}`);
  for (const answer of answers)
    if (isLate(answer, leaseMs))
      problems.push(
        `node ${answer.node} answered after ${Math.ceil(answer.roundTripMs ?? NaN).toString()} ms: ` +
          `cutover_lease is ${leaseMs.toString()} ms and must be ${ROUND_TRIPS_IN_LEASE.toString()} times that`,
      );
  return problems;
}

/**
 * The nodes of a cutover of `database`; waits while one of them is being handed over.
 *
 * @param report is told what is waited for; what it throws ends the wait
 * @throws CutoverError `nodes_not_ready` naming each node that cannot be reached, is another one, or is configured differently
 */
export async function requireNodes(
  context: EngineContext,
  database: string,
  report: (waitingFor: string) => Promise<void>,
): Promise<readonly NodeAddress[]> {
  const ask = (): Promise<readonly NodeAnswer[]> => askAll(context, async (node) => [await node.state(database)]);
  let answers = await ask();
  for (;;) {
    const waitsFor = answers.find(({ passes }) => passes === true)?.problem ?? null;
    if (waitsFor === null) break;
    await report(waitsFor);
    await delay(POLL_MS);
    answers = await ask();
  }
  const problems = nodeProblems(answers, context.config().cutover.leaseMs);
  if (problems.length > 0) throw new CutoverError('nodes_not_ready', { problems: problems.join('; ') });
  return answers.map((answer) => answer.address);
}

/** @throws CutoverError `node_handed_over` while a node is: that passes, and is no reason to refuse a move */
export function expectNoHandOver(answers: readonly NodeAnswer[]): void {
  const handedOver = answers.find(({ passes }) => passes === true);
  if (handedOver) throw new CutoverError('node_handed_over', { node: handedOver.node });
}

/** What they answered as a line of preflight. */
export function nodesCheck(answers: readonly NodeAnswer[], leaseMs: number): Check {
  const problems = nodeProblems(answers, leaseMs);
  const failed = problems.length > 0;
  return {
    id: 'nodes',
    title: 'nodes',
    verdict: failed ? 'failed' : 'ok',
    detail: failed ? problems.join('; ') : answers.map((a) => a.node).join(', '),
    remedy: failed ? 'See SHOW NODES; start, reload or correct the nodes named here.' : '',
  };
}

/** Why the nodes are not at the point from which a cutover may begin: one that just came back resolves its epoch first. */
export async function nodesNotYet(
  context: EngineContext,
  nodes: readonly NodeAddress[],
  database: string,
): Promise<string | null> {
  let states: readonly NodeState[];
  try {
    states = await Promise.all(context.fleet.nodes(nodes).map((node) => node.state(database)));
  } catch (error) {
    if (isHandOver(error)) return error.message;
    throw error;
  }
  const highest = Math.max(...states.map((s) => s.epochResolved));
  const behind = states.find((s) => s.epochResolved < highest);
  if (behind)
    return `node ${behind.node} stands at epoch ${behind.epochResolved.toString()}, others at ${highest.toString()}`;
  const holding = states.find((s) => s.gateReasons.includes('cutover'));
  return holding ? `node ${holding.node} still holds its clients for an earlier epoch` : null;
}
