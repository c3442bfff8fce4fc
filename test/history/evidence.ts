/** One task: put a history in order for its judgement: who appended what, which transactions took effect, who read what. */
import { invariant } from '../../src/errors/invariant.js';
import type { FinalState, History, Transaction } from './history.js';

export interface Append {
  readonly by: Transaction;
  readonly key: number;
  readonly value: number;
  /** of the step in its transaction */
  readonly position: number;
  /** the transaction's last one to this key: what others may see of it */
  readonly last: boolean;
}

/** What a transaction that took effect saw of a list that others wrote; its own elements are taken off the end. */
export interface Observation {
  /** null: the final state */
  readonly reader: Transaction | null;
  readonly key: number;
  readonly items: readonly number[];
}

export interface Contradiction {
  readonly by: Transaction;
  readonly key: number;
  readonly sentence: string;
}

export interface Evidence {
  readonly appends: ReadonlyMap<number, Append>;
  /** told so, or shown by what others read of them */
  readonly effective: ReadonlySet<Transaction>;
  /** one for each read, and one of the final state for each key that was ever touched */
  readonly observations: readonly Observation[];
  /** transactions that did not read what they had written or read themselves */
  readonly contradictions: readonly Contradiction[];
}

/**
 * A transaction of unknown outcome took effect when somebody who took effect saw one of its elements. Reads of a
 * transaction that did not take effect prove nothing: SERIALIZABLE promises nothing to one that it rolls back
 * (PostgreSQL documentation, 13.2.3).
 *
 * @throws InvariantViolation when the history contradicts itself: an element appended twice, an end before a beginning
 */
export function gather(history: History, finalState: FinalState): Evidence {
  const appends = indexAppends(history);
  const effective = effectiveOf(history, finalState, appends);
  const observations: Observation[] = [];
  const contradictions: Contradiction[] = [];
  for (const transaction of effective) observe(transaction, observations, contradictions);
  const keys = new Set(history.transactions.flatMap((t) => t.steps.map((step) => step.key)));
  for (const key of [...finalState.keys(), ...keys].filter(firstOfItsKind())) {
    observations.push({ reader: null, key, items: finalState.get(key) ?? [] });
  }
  return { appends, effective, observations, contradictions };
}

function firstOfItsKind(): (key: number) => boolean {
  const seen = new Set<number>();
  return (key) => seen.size !== seen.add(key).size;
}

function indexAppends(history: History): ReadonlyMap<number, Append> {
  const appends = new Map<number, Append>();
  for (const by of history.transactions) {
    invariant(by.completedMs >= by.invokedMs, `transaction ${by.id.toString()} ends after it began`);
    const lastOf = new Map<number, number>();
    for (const step of by.steps) if (step.kind === 'append') lastOf.set(step.key, step.value);
    for (const [position, step] of by.steps.entries()) {
      if (step.kind !== 'append') continue;
      const { key, value } = step;
      invariant(!appends.has(value), `the value ${value.toString()} is appended once in all`);
      appends.set(value, { by, key, value, position, last: lastOf.get(key) === value });
    }
  }
  return appends;
}

function effectiveOf(
  history: History,
  finalState: FinalState,
  appends: ReadonlyMap<number, Append>,
): ReadonlySet<Transaction> {
  const effective = new Set(history.transactions.filter((t) => t.outcome === 'ok'));
  const look = (items: readonly number[]): void => {
    for (const item of items) {
      const by = appends.get(item)?.by;
      if (by?.outcome === 'unknown') effective.add(by);
    }
  };
  for (const items of finalState.values()) look(items);
  // A set is walked in the order of insertion: whoever is added on the way is looked at too.
  for (const { steps } of effective) for (const step of steps) if (step.kind === 'read') look(step.items);
  return effective;
}

/** Walks one transaction: what it read of others, and whether it agrees with itself. */
function observe(by: Transaction, observations: Observation[], contradictions: Contradiction[]): void {
  const own = new Map<number, number[]>();
  const seen = new Map<number, readonly number[]>();
  for (const step of by.steps) {
    const { key } = step;
    const written = own.get(key) ?? [];
    if (step.kind === 'append') {
      own.set(key, [...written, step.value]);
      continue;
    }
    const end = step.items.length - written.length;
    const items = step.items.slice(0, Math.max(end, 0));
    const before = seen.get(key);
    if (!sameItems(step.items.slice(items.length), written)) {
      contradictions.push({ by, key, sentence: 'a read does not end with what the transaction had appended itself' });
    } else if (before && !sameItems(before, items)) {
      contradictions.push({ by, key, sentence: 'two reads of one transaction saw different elements of others' });
    } else {
      seen.set(key, items);
      if (!before) observations.push({ reader: by, key, items });
    }
  }
}

function sameItems(one: readonly number[], other: readonly number[]): boolean {
  return one.length === other.length && isPrefix(one, other);
}

export function isPrefix(short: readonly number[], long: readonly number[]): boolean {
  return short.length <= long.length && short.every((item, index) => item === long[index]);
}
