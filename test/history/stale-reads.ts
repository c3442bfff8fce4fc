/** One task: find reads that began after something had been shown or acknowledged, and did not see it. */
import type { Evidence } from './evidence.js';
import type { Findings } from './findings.js';
import { describeTransaction, type Transaction } from './history.js';
import { describeObservation, type Versions } from './versions.js';

/** From `completedMs` on the list of a key is known to have at least `length` elements. */
interface Known {
  readonly completedMs: number;
  readonly length: number;
  readonly by: Transaction;
}

/**
 * Real time for one list: what was acknowledged, and what was read, before a transaction began must be in what it reads.
 * Only answers that a client has read count as shown; two transactions that overlap may stand in either order.
 */
export function judgeStaleness(evidence: Evidence, versions: Versions, findings: Findings): void {
  const known = knownOf(evidence, versions);
  for (const observation of evidence.observations) {
    const longest = lastBefore(known.get(observation.key) ?? [], observation.reader?.invokedMs ?? Infinity);
    if (!longest || longest.length <= observation.items.length) continue;
    findings.add(
      'stale read',
      () =>
        `${describeObservation(observation)}\n  began after ${longest.length.toString()} elements were known: ` +
        describeTransaction(longest.by),
    );
  }
}

/** By key, in the order of time, the length never falling. */
function knownOf(evidence: Evidence, versions: Versions): ReadonlyMap<number, readonly Known[]> {
  const all = new Map<number, Known[]>();
  const note = (key: number, length: number, by: Transaction): void => {
    if (by.outcome !== 'ok' || length === 0) return;
    const known = all.get(key) ?? [];
    all.set(key, known);
    known.push({ completedMs: by.completedMs, length, by });
  };
  for (const { reader, key, items } of evidence.observations) if (reader) note(key, items.length, reader);
  for (const [key, order] of versions) {
    for (const [index, value] of order.entries()) {
      const append = evidence.appends.get(value);
      if (append?.key === key) note(key, index + 1, append.by);
    }
  }
  for (const [key, known] of all) {
    known.sort((a, b) => a.completedMs - b.completedMs);
    let longest: Known | undefined;
    all.set(
      key,
      known.map(
        (one) =>
          (longest = longest && longest.length >= one.length ? { ...longest, completedMs: one.completedMs } : one),
      ),
    );
  }
  return all;
}

/** The last entry that was complete before `atMs`. */
function lastBefore(known: readonly Known[], atMs: number): Known | undefined {
  let low = 0;
  let high = known.length;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if ((known[middle]?.completedMs ?? Infinity) < atMs) low = middle + 1;
    else high = middle;
  }
  return known[low - 1];
}
