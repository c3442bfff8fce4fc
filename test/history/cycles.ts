/** One task: the cycles of a history, in which nobody could have come first. */
import { dependenciesOf, describeDependency, isOver, type Dependency, type Edge, type Edges } from './dependencies.js';
import { invariant } from '../../src/errors/invariant.js';
import type { Evidence } from './evidence.js';
import type { Anomaly, Findings } from './findings.js';
import { cyclicComponents, shortestCycle, type Successors } from './graph.js';
import { describeTransaction, type Transaction } from './history.js';
import type { Versions } from './versions.js';

/** From the gravest on: a cycle is named after the fewest kinds of dependencies that make one. */
const LEVELS: readonly { readonly anomaly: Anomaly; readonly dependencies: readonly Dependency[] }[] = [
  { anomaly: 'write cycle', dependencies: ['ww'] },
  { anomaly: 'information cycle', dependencies: ['ww', 'wr'] },
  { anomaly: 'anti-dependency cycle', dependencies: ['ww', 'wr', 'rw'] },
  { anomaly: 'real-time cycle', dependencies: ['ww', 'wr', 'rw', 'real time'] },
];

/** Adds one cycle, the shortest that is found, for each group of transactions that cannot be put in an order. */
export function judgeCycles(evidence: Evidence, versions: Versions, findings: Findings): void {
  const transactions = new Map([...evidence.effective].map((t) => [t.id, t]));
  const edges = dependenciesOf(evidence, versions);
  // Whoever is in no cycle of all dependencies is in none of fewer.
  const suspects = cyclicComponents(transactions.keys(), successorsIn(edges)).flat();
  const told = new Set<number>();
  for (const { anomaly, dependencies } of LEVELS) {
    const allowed = keepOnly(edges, suspects, dependencies);
    for (const component of cyclicComponents(suspects, successorsIn(allowed))) {
      if (component.some((id) => told.has(id))) continue;
      for (const id of component) told.add(id);
      findings.add(anomaly, () => describeCycle(cycleOf(component, allowed, transactions), allowed, transactions));
    }
  }
}

function successorsIn(edges: Edges): Successors {
  return (node) => edges.get(node)?.map(({ to }) => to) ?? [];
}

function keepOnly(edges: Edges, nodes: readonly number[], dependencies: readonly Dependency[]): Edges {
  const kept = (edge: Edge): boolean => dependencies.includes(edge.dependency);
  return new Map(nodes.map((node) => [node, edges.get(node)?.filter(kept) ?? []]));
}

/**
 * With one hop through time where time is needed and one is enough: edges that follow from others are left out, so a way
 * through time that is followed step by step is long.
 */
function cycleOf(
  component: readonly number[],
  edges: Edges,
  transactions: ReadonlyMap<number, Transaction>,
): readonly number[] {
  const closesInTime = (node: number, start: number): boolean => {
    const [last, first] = [transactions.get(node), transactions.get(start)];
    return last !== undefined && first !== undefined && isOver(last, first);
  };
  const closes = (node: number, start: number): boolean => edges.get(node)?.some(({ to }) => to === start) ?? false;
  const timeless = keepOnly(edges, component, ['ww', 'wr', 'rw']);
  const throughTime = component.some((node) => edges.get(node)?.some((edge) => edge.dependency === 'real time'));
  const cycle = throughTime ? shortestCycle(component, successorsIn(timeless), closesInTime) : [];
  return cycle.length > 0 ? cycle : shortestCycle(component, successorsIn(edges), closes);
}

function describeCycle(cycle: readonly number[], edges: Edges, transactions: ReadonlyMap<number, Transaction>): string {
  const members = cycle.map((id) => {
    const transaction = transactions.get(id);
    invariant(transaction, 'a cycle leads through transactions of the history');
    return transaction;
  });
  const steps = members.map((from, index) => {
    const to = members[(index + 1) % members.length] ?? from;
    const edge = edges.get(from.id)?.find((one) => one.to === to.id) ?? { dependency: 'real time' as const };
    const because = describeDependency(from, to, edge);
    return `  T${from.id.toString()} before T${to.id.toString()} (${edge.dependency}): ${because}`;
  });
  const way = [...cycle, ...cycle.slice(0, 1)].map((id) => `T${id.toString()}`).join(' -> ');
  return [way, ...steps, ...members.map((member) => `  ${describeTransaction(member)}`)].join('\n');
}
