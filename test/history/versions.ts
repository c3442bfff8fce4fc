/** One task: the order in which the elements of each list were appended, and the reads that contradict it. */
import { isPrefix, type Evidence, type Observation } from './evidence.js';
import type { Findings } from './findings.js';
import { describeList, describeTransaction } from './history.js';

/** The elements of each list, first to last, as the longest read shows them. */
export type Versions = ReadonlyMap<number, readonly number[]>;

/**
 * Lists only grow, so every read of one is a prefix of every longer read: the longest is the order of all. Of two equally
 * long ones the final state counts.
 */
export function versionsOf(evidence: Evidence): Versions {
  const versions = new Map<number, readonly number[]>();
  const finalFirst = [...evidence.observations].sort((a, b) => Number(a.reader !== null) - Number(b.reader !== null));
  for (const { key, items } of finalFirst) {
    const longest = versions.get(key);
    if (!longest || items.length > longest.length) versions.set(key, items);
  }
  return versions;
}

/** Adds what can be said of single reads: values nobody or nobody effective wrote, half transactions, other orders. */
export function judgeReads(evidence: Evidence, versions: Versions, findings: Findings): void {
  for (const { by, key, sentence } of evidence.contradictions) {
    findings.add('internal contradiction', () => `${sentence} of key ${key.toString()}\n  ${describeTransaction(by)}`);
  }
  for (const [key, order] of versions) judgeWriters(key, order, evidence, findings);
  for (const observation of evidence.observations) {
    judgeItems(observation, evidence, findings);
    const order = versions.get(observation.key) ?? [];
    if (isPrefix(observation.items, order)) continue;
    const at = observation.items.findIndex((item, index) => item !== order[index]);
    findings.add(
      'incompatible orders',
      () =>
        `${describeObservation(observation)}\n  is not how the longest read begins: its element ${(at + 1).toString()} is ` +
        `${String(observation.items[at])}, there it is ${String(order[at])}`,
    );
  }
}

/** The elements of one transaction stand in the order in which it appended them. */
function judgeWriters(key: number, order: readonly number[], { appends }: Evidence, findings: Findings): void {
  for (const [index, value] of order.entries()) {
    const [one, next] = [appends.get(value), appends.get(order[index + 1] ?? NaN)];
    if (!one || one.by !== next?.by || one.position < next.position) continue;
    findings.add(
      'incompatible orders',
      () =>
        `key ${key.toString()} ${describeList(order)}\n  has ${value.toString()} before ${next.value.toString()}: ${describeTransaction(one.by)}`,
    );
  }
}

function judgeItems(observation: Observation, { appends, effective }: Evidence, findings: Findings): void {
  const { key, items } = observation;
  const seen = new Set<number>();
  for (const item of items) {
    const append = appends.get(item);
    const where = (): string => `element ${item.toString()} in ${describeObservation(observation)}`;
    if (seen.has(item)) findings.add('doubled append', () => `${where()}\n  is there more than once`);
    seen.add(item);
    if (append?.key !== key) findings.add('invented value', () => `${where()}\n  was never appended to this list`);
    else if (!effective.has(append.by)) {
      findings.add(
        'dirty read',
        () => `${where()}\n  was appended by a transaction that failed: ${describeTransaction(append.by)}`,
      );
    }
  }
  const last = appends.get(items.at(-1) ?? NaN);
  if (last && !last.last && last.key === key) {
    findings.add(
      'intermediate read',
      () => `${describeObservation(observation)}\n  ends within a transaction: ${describeTransaction(last.by)}`,
    );
  }
}

/** Adds every append that took effect and is not in the list at the end. */
export function judgeLosses(evidence: Evidence, findings: Findings): void {
  const last = new Map<number, ReadonlySet<number>>();
  for (const { reader, key, items } of evidence.observations) if (!reader) last.set(key, new Set(items));
  for (const { by, key, value } of evidence.appends.values()) {
    if (!evidence.effective.has(by) || last.get(key)?.has(value)) continue;
    findings.add('lost append', () => {
      const told = by.outcome === 'ok' ? 'was acknowledged' : 'belongs to a transaction that took effect elsewhere';
      const readers = evidence.observations.filter((o) => o.key === key && o.items.includes(value)).length;
      const lost = `element ${value.toString()} of key ${key.toString()} ${told} and is not in the final state`;
      return `${lost}; ${readers.toString()} reads had seen it\n  ${describeTransaction(by)}`;
    });
  }
}

/** `the final state of key 3 [1 2]`, or the read of a transaction. */
export function describeObservation({ reader, key, items }: Observation): string {
  const list = `key ${key.toString()} ${describeList(items)}`;
  return reader ? `the read of ${list} by ${describeTransaction(reader)}` : `the final state of ${list}`;
}
