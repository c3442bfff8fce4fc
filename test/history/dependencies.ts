/** One task: which transaction of a history must come before which, and why. */
import { isPrefix, type Evidence } from './evidence.js';
import type { Transaction } from './history.js';
import type { Versions } from './versions.js';

/**
 * `ww`: appended right after. `wr`: read what the other had appended last. `rw`: read the list before the other appended.
 * `real time`: was answered before the other began. A. Adya, "Weak consistency" (1999), chapter 3; the last is what makes
 * serializability strict.
 */
export type Dependency = 'ww' | 'wr' | 'rw' | 'real time';

export interface Edge {
  /** the id of the transaction that comes later */
  readonly to: number;
  readonly dependency: Dependency;
  /** the element of a list that shows it; none for real time */
  readonly shown?: { readonly key: number; readonly value: number };
}

/** By the id of the transaction that comes earlier. */
export type Edges = ReadonlyMap<number, readonly Edge[]>;

type Add = (from: Transaction | undefined, to: Transaction | undefined, edge: Omit<Edge, 'to'>) => void;

/** Every dependency among the transactions that took effect. */
export function dependenciesOf(evidence: Evidence, versions: Versions): Edges {
  const edges = new Map<number, Edge[]>();
  const add: Add = (from, to, edge) => {
    if (!from || !to || from === to) return;
    const known = edges.get(from.id);
    if (known) known.push({ ...edge, to: to.id });
    else edges.set(from.id, [{ ...edge, to: to.id }]);
  };
  addWritesAndReads(evidence, versions, add);
  addRealTime(evidence.effective, add);
  return edges;
}

function addWritesAndReads(evidence: Evidence, versions: Versions, add: Add): void {
  const writer = (key: number, value: number): Transaction | undefined => {
    const append = evidence.appends.get(value);
    return append?.key === key && evidence.effective.has(append.by) ? append.by : undefined;
  };
  for (const [key, order] of versions) {
    for (const [index, value] of order.entries()) {
      const next = order[index + 1];
      if (next === undefined) continue;
      add(writer(key, value), writer(key, next), { dependency: 'ww', shown: { key, value: next } });
    }
  }
  for (const { reader, key, items } of evidence.observations) {
    const order = versions.get(key) ?? [];
    // A read that contradicts the order is a finding already; what it would say here is noise.
    if (!reader || !isPrefix(items, order)) continue;
    const [last, next] = [items.at(-1), order[items.length]];
    if (last !== undefined) add(writer(key, last), reader, { dependency: 'wr', shown: { key, value: last } });
    if (next !== undefined) add(reader, writer(key, next), { dependency: 'rw', shown: { key, value: next } });
  }
}

/**
 * Real-time edges without those that follow from others: each transaction gets one from those that were answered before
 * it began, unless one of these began after another's answer. A transaction of unknown outcome is never known to be over.
 */
function addRealTime(effective: ReadonlySet<Transaction>, add: Add): void {
  const invocations = [...effective].sort((a, b) => a.invokedMs - b.invokedMs);
  const completions = [...effective].filter((t) => t.outcome === 'ok').sort((a, b) => a.completedMs - b.completedMs);
  const before = new Map<Transaction, readonly Transaction[]>();
  let frontier: readonly Transaction[] = [];
  let completed = 0;
  for (const transaction of invocations) {
    let next = completions[completed];
    while (next && isOver(next, transaction)) {
      const covered = before.get(next) ?? [];
      frontier = [...frontier.filter((one) => !covered.includes(one)), next];
      before.delete(next);
      next = completions[++completed];
    }
    before.set(transaction, frontier);
    for (const earlier of frontier) add(earlier, transaction, { dependency: 'real time' });
  }
}

/** The first was answered before the second began. */
export function isOver(first: Transaction, second: Transaction): boolean {
  return first.outcome === 'ok' && first.completedMs < second.invokedMs;
}

/** Why `from` comes before `to`, in words that begin with what `from` did. */
export function describeDependency(from: Transaction, to: Transaction, edge: Omit<Edge, 'to'>): string {
  const [key, value] = [String(edge.shown?.key), String(edge.shown?.value)];
  switch (edge.dependency) {
    case 'ww':
      return `had appended to key ${key} right before the next appended ${value}`;
    case 'wr':
      return `appended ${value} to key ${key}, which the next read`;
    case 'rw':
      return `read key ${key} before the next appended ${value}`;
    case 'real time':
      return `was answered ${(to.invokedMs - from.completedMs).toFixed(1)} ms before the next began`;
  }
}
