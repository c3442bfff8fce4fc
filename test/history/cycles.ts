/** One task: who must come before whom, and the cycles in which nobody could have come first. */
import { isPrefix, type Evidence } from './evidence.js';
import type { Anomaly, Findings } from './findings.js';
import { cyclicComponents, shortestCycle, type Successors } from './graph.js';
import { describeTransaction, type Transaction } from './history.js';
import type { Versions } from './versions.js';

/**
 * `ww`: appended right after. `wr`: read what the other had appended last. `rw`: read the list before the other appended.
 * `real time`: was answered before the other began. A. Adya, "Weak consistency" (1999), chapter 3; the last is what makes
 * serializability strict.
 */
type Dependency = 'ww' | 'wr' | 'rw' | 'real time';

interface Edge {
  readonly to: number;
  readonly dependency: Dependency;
  readonly because: string;
}

type Edges = ReadonlyMap<number, readonly Edge[]>;

/** From the gravest on: a cycle is named after the fewest kinds of edges that make one. */
const LEVELS: readonly { readonly anomaly: Anomaly; readonly dependencies: readonly Dependency[] }[] = [
  { anomaly: 'write cycle', dependencies: ['ww'] },
  { anomaly: 'information cycle', dependencies: ['ww', 'wr'] },
  { anomaly: 'anti-dependency cycle', dependencies: ['ww', 'wr', 'rw'] },
  { anomaly: 'real-time cycle', dependencies: ['ww', 'wr', 'rw', 'real time'] },
];

/** Adds one cycle, the shortest that is found, for each group of transactions that cannot be put in an order. */
export function judgeCycles(evidence: Evidence, versions: Versions, findings: Findings): void {
  const transactions = new Map([...evidence.effective].map((t) => [t.id, t]));
  const edges = edgesOf(evidence, versions);
  const told = new Set<number>();
  for (const { anomaly, dependencies } of LEVELS) {
    const allowed = keepOnly(edges, new Set(dependencies));
    const successors: Successors = (node) => allowed.get(node)?.map(({ to }) => to) ?? [];
    for (const component of cyclicComponents(transactions.keys(), successors)) {
      if (component.some((id) => told.has(id))) continue;
      for (const id of component) told.add(id);
      findings.add(anomaly, () =>
        describeCycle(cycleOf(component, anomaly, allowed, transactions), allowed, transactions),
      );
    }
  }
}

function keepOnly(edges: Edges, dependencies: ReadonlySet<Dependency>): Edges {
  return new Map([...edges].map(([from, all]) => [from, all.filter((edge) => dependencies.has(edge.dependency))]));
}

function edgesOf(evidence: Evidence, versions: Versions): Edges {
  const edges = new Map<number, Edge[]>();
  const add = (from: Transaction | undefined, to: Transaction | undefined, edge: Omit<Edge, 'to'>): void => {
    if (!from || !to || from === to) return;
    const known = edges.get(from.id);
    if (known) known.push({ ...edge, to: to.id });
    else edges.set(from.id, [{ ...edge, to: to.id }]);
  };
  const writer = (key: number, value: number | undefined): Transaction | undefined => {
    const append = value === undefined ? undefined : evidence.appends.get(value);
    return append?.key === key && evidence.effective.has(append.by) ? append.by : undefined;
  };
  for (const [key, order] of versions) {
    for (const [index, value] of order.entries()) {
      const next = order[index + 1];
      if (next === undefined) continue;
      const because = `appended ${value.toString()} to key ${key.toString()}, and right after it stands ${next.toString()}`;
      add(writer(key, value), writer(key, next), { dependency: 'ww', because });
    }
  }
  for (const { reader, key, items } of evidence.observations) {
    const order = versions.get(key) ?? [];
    // A read that contradicts the order is a finding already; what it would say here is noise.
    if (!reader || !isPrefix(items, order)) continue;
    const [last, next] = [items.at(-1), order[items.length]];
    const read = `key ${key.toString()}`;
    add(writer(key, last), reader, {
      dependency: 'wr',
      because: `appended ${String(last)} to ${read}, which the next read`,
    });
    add(reader, writer(key, next), {
      dependency: 'rw',
      because: `read ${read} before the next appended ${String(next)}`,
    });
  }
  addRealTime(evidence.effective, add);
  return edges;
}

/**
 * Real-time edges without those that follow from others: each transaction gets one from those that were answered before
 * it began, unless one of these began after another's answer. A transaction of unknown outcome is never known to be over.
 */
function addRealTime(
  effective: ReadonlySet<Transaction>,
  add: (from: Transaction, to: Transaction, edge: Omit<Edge, 'to'>) => void,
): void {
  const invocations = [...effective].sort((a, b) => a.invokedMs - b.invokedMs);
  const completions = [...effective].filter((t) => t.outcome === 'ok').sort((a, b) => a.completedMs - b.completedMs);
  const before = new Map<Transaction, readonly Transaction[]>();
  let frontier: readonly Transaction[] = [];
  let completed = 0;
  for (const transaction of invocations) {
    for (
      let next = completions[completed];
      next && next.completedMs < transaction.invokedMs;
      next = completions[++completed]
    ) {
      const covered = new Set(before.get(next));
      frontier = [...frontier.filter((one) => !covered.has(one)), next];
    }
    before.set(transaction, frontier);
    for (const earlier of frontier) {
      add(earlier, transaction, inTime(earlier, transaction));
    }
  }
}

/** One hop through time where that is enough: the edges that follow from others are left out, so ways through time are long. */
function cycleOf(
  component: readonly number[],
  anomaly: Anomaly,
  edges: Edges,
  transactions: ReadonlyMap<number, Transaction>,
): readonly number[] {
  const successors: Successors = (node) => edges.get(node)?.map(({ to }) => to) ?? [];
  const bySuccessor = (node: number, start: number): boolean => successors(node).includes(start);
  if (anomaly !== 'real-time cycle') return shortestCycle(component, successors, bySuccessor);
  const withoutTime = keepOnly(edges, new Set<Dependency>(['ww', 'wr', 'rw']));
  const cycle = shortestCycle(
    component,
    (node) => withoutTime.get(node)?.map(({ to }) => to) ?? [],
    (node, start) => isOver(transactions.get(node), transactions.get(start)),
  );
  return cycle.length > 0 ? cycle : shortestCycle(component, successors, bySuccessor);
}

/** The first was answered before the second began. */
function isOver(first: Transaction | undefined, second: Transaction | undefined): boolean {
  return first?.outcome === 'ok' && second !== undefined && first.completedMs < second.invokedMs;
}

function inTime(earlier?: Transaction, later?: Transaction): Omit<Edge, 'to'> {
  const gapMs = (later?.invokedMs ?? NaN) - (earlier?.completedMs ?? NaN);
  return { dependency: 'real time', because: `was answered ${gapMs.toFixed(1)} ms before the next began` };
}

function describeCycle(cycle: readonly number[], edges: Edges, transactions: ReadonlyMap<number, Transaction>): string {
  const steps = cycle.map((from, index) => {
    const to = cycle[(index + 1) % cycle.length] ?? from;
    const edge = edges.get(from)?.find((one) => one.to === to) ?? inTime(transactions.get(from), transactions.get(to));
    return `  T${from.toString()} before T${to.toString()} (${edge.dependency}): ${edge.because}`;
  });
  const told = cycle.map((id) => {
    const transaction = transactions.get(id);
    return transaction ? `  ${describeTransaction(transaction)}` : '';
  });
  const [first = NaN] = cycle;
  const way = [...cycle, first].map((id) => `T${id.toString()}`).join(' -> ');
  return [way, ...steps, ...told].join('\n');
}
