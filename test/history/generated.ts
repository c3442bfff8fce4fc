/** One task: histories of lists from a real order of transactions, valid by construction, and the plain judgement of small ones. */
import fc from 'fast-check';
import type { FinalState, History, Outcome, Step, Transaction } from './history.js';

export interface Judged {
  readonly history: History;
  readonly finalState: FinalState;
}

interface Planned {
  readonly outcome: Outcome;
  /** of a transaction whose outcome nobody was told */
  readonly effective: boolean;
  readonly steps: readonly { readonly kind: 'append' | 'read'; readonly key: number }[];
  /** how long before and after its turn it began and was answered, in halves of a turn */
  readonly before: number;
  readonly after: number;
}

function plans(transactionsMax: number, keys: number): fc.Arbitrary<readonly Planned[]> {
  const step = fc.record({ kind: fc.constantFrom('append' as const, 'read' as const), key: fc.nat(keys - 1) });
  const planned = fc.record({
    outcome: fc.constantFrom<Outcome>('ok', 'ok', 'ok', 'ok', 'fail', 'unknown'),
    effective: fc.boolean(),
    steps: fc.array(step, { minLength: 1, maxLength: 4 }),
    before: fc.nat(7),
    after: fc.nat(7),
  });
  return fc.array(planned, { minLength: 1, maxLength: transactionsMax });
}

/** Histories that must pass: the transactions ran one after the other, each somewhere between its beginning and its answer. */
export function validHistories(size: { transactionsMax: number; keys: number }): fc.Arbitrary<Judged> {
  return plans(size.transactionsMax, size.keys).map(play);
}

function play(plan: readonly Planned[]): Judged {
  const lists = new Map<number, readonly number[]>();
  let value = 0;
  const transactions = plan.map((planned, turn): Transaction => {
    const mine = new Map(lists);
    const steps = planned.steps.map(({ kind, key }): Step => {
      const items = mine.get(key) ?? [];
      if (kind === 'read') return { kind, key, items };
      mine.set(key, [...items, ++value]);
      return { kind, key, value };
    });
    if (planned.outcome === 'ok' || (planned.outcome === 'unknown' && planned.effective)) {
      for (const [key, items] of mine) lists.set(key, items);
    }
    return {
      id: turn + 1,
      client: `client ${(turn % 3).toString()}`,
      invokedMs: turn - planned.before / 2,
      completedMs: turn + planned.after / 2,
      outcome: planned.outcome,
      steps,
    };
  });
  return { history: { seed: 0, transactions, refusedLogins: [] }, finalState: lists };
}

/** The same with one to three things changed that may or may not be wrong. */
export function doubtfulHistories(size: { transactionsMax: number; keys: number }): fc.Arbitrary<Judged> {
  const change = fc.record({ at: fc.nat(), how: fc.constantFrom(...CHANGES), by: fc.nat() });
  return fc
    .tuple(validHistories(size), fc.array(change, { minLength: 1, maxLength: 3 }))
    .map(([judged, changes]) => changes.reduce((so, { how, at, by }) => how(so, at, by), judged));
}

type Change = (judged: Judged, at: number, by: number) => Judged;

function changeItems(items: readonly number[], by: number): readonly number[] {
  const [first, second, ...rest] = items;
  if (by % 2 === 0 || first === undefined || second === undefined) return items.slice(0, by % (items.length + 1));
  return [second, first, ...rest];
}

function changeTransaction(judged: Judged, at: number, change: (t: Transaction) => Transaction): Judged {
  const { transactions } = judged.history;
  const changed = transactions.map((t, index) => (index === at % transactions.length ? change(t) : t));
  return { ...judged, history: { ...judged.history, transactions: changed } };
}

const CHANGES: readonly Change[] = [
  (judged, at, by) =>
    changeTransaction(judged, at, (t) => ({
      ...t,
      steps: t.steps.map((step) => (step.kind === 'read' ? { ...step, items: changeItems(step.items, by) } : step)),
    })),
  (judged, at, by) =>
    changeTransaction(judged, at, (t) => {
      const shiftMs = (by % 9) - 4;
      return { ...t, invokedMs: t.invokedMs + shiftMs, completedMs: t.completedMs + shiftMs };
    }),
  (judged, at, by) =>
    changeTransaction(judged, at, (t) => ({ ...t, outcome: (['ok', 'fail', 'unknown'] as const)[by % 3] ?? 'ok' })),
  (judged, at, by) => ({
    ...judged,
    finalState: new Map(
      [...judged.finalState].map(([key, items], index) => [
        key,
        index === at % judged.finalState.size ? changeItems(items, by) : items,
      ]),
    ),
  }),
];

/**
 * The definition itself: is there an order of the transactions that took effect, true to real time, in which every read is
 * what the lists held and which ends in the final state? Tries them all: for a handful of transactions only.
 */
export function hasAnOrder({ history, finalState }: Judged): boolean {
  const candidates = history.transactions.filter((t) => t.outcome !== 'fail');
  const follow = (remaining: readonly Transaction[], lists: FinalState): boolean => {
    if (remaining.every((t) => t.outcome === 'unknown') && sameLists(lists, finalState)) return true;
    return remaining.some((next) => {
      const tooEarly = remaining.some((t) => t.outcome === 'ok' && t.completedMs < next.invokedMs);
      const after = tooEarly ? undefined : run(next, lists);
      const others = remaining.filter((t) => t !== next);
      return after !== undefined && follow(others, after);
    });
  };
  return follow(candidates, new Map());
}

/** The lists after the transaction, or undefined where it read something else. */
function run(transaction: Transaction, lists: FinalState): FinalState | undefined {
  const after = new Map(lists);
  for (const step of transaction.steps) {
    const items = after.get(step.key) ?? [];
    if (step.kind === 'append') after.set(step.key, [...items, step.value]);
    else if (items.join() !== step.items.join()) return undefined;
  }
  return after;
}

function sameLists(one: FinalState, other: FinalState): boolean {
  const keys = new Set([...one.keys(), ...other.keys()]);
  return [...keys].every((key) => (one.get(key) ?? []).join() === (other.get(key) ?? []).join());
}
