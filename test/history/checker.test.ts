/** One task: the checker of histories finds every anomaly it names, and finds nothing in a history that is right. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { check } from './checker.js';
import type { Anomaly } from './findings.js';
import { doubtfulHistories, hasAnOrder, validHistories, type Judged } from './generated.js';
import type { FinalState, History, Outcome, Step, Transaction } from './history.js';

const append = (key: number, value: number): Step => ({ kind: 'append', key, value });
const read = (key: number, ...items: readonly number[]): Step => ({ kind: 'read', key, items });

type Told = readonly [outcome: Outcome, invokedMs: number, completedMs: number, ...steps: Step[]];

/** Transactions T1, T2, … in this order. */
function historyOf(...told: readonly Told[]): History {
  const transactions = told.map(([outcome, invokedMs, completedMs, ...steps], index): Transaction => {
    const id = index + 1;
    return { id, client: `client ${id.toString()}`, invokedMs, completedMs, outcome, steps };
  });
  return { seed: 0, transactions, refusedLogins: [] };
}

const endsAs = (lists: Readonly<Record<number, readonly number[]>>): FinalState =>
  new Map(Object.entries(lists).map(([key, items]) => [Number(key), items]));

interface Broken {
  readonly what: string;
  readonly history: History;
  readonly finalState: FinalState;
  /** of the report, for a person */
  readonly says: RegExp;
}

/** A history for each anomaly, wrong in this one thing. The record is total: an anomaly without one does not compile. */
const BROKEN: Readonly<Record<Anomaly, readonly Broken[]>> = {
  'lost append': [
    {
      what: 'an append that was acknowledged and never seen',
      history: historyOf(['ok', 0, 1, append(1, 10)], ['ok', 2, 3, append(1, 11)]),
      finalState: endsAs({ 1: [11] }),
      says: /element 10 of key 1 was acknowledged.*0 reads had seen it/,
    },
    {
      what: 'an append that was read on one side of a switch and is not on the other',
      history: historyOf(['ok', 0, 1, append(1, 10)], ['ok', 2, 3, read(1, 10)]),
      finalState: endsAs({}),
      says: /element 10 .*1 reads had seen it/,
    },
    {
      what: 'one of two appends of a transaction whose answer was lost',
      history: historyOf(['unknown', 0, 1, append(1, 10), append(2, 20)]),
      finalState: endsAs({ 2: [20] }),
      says: /element 10 .*took effect elsewhere/,
    },
    {
      what: 'an append whose answer was lost, and that vanished after somebody had read it',
      history: historyOf(['unknown', 0, 1, append(1, 10)], ['ok', 2, 3, read(1, 10)]),
      finalState: endsAs({}),
      says: /element 10 .*took effect elsewhere.*1 reads had seen it/,
    },
  ],
  'doubled append': [
    {
      what: 'an append that was applied on both sides of a switch',
      history: historyOf(['ok', 0, 1, append(1, 10)]),
      finalState: endsAs({ 1: [10, 10] }),
      says: /element 10 in the final state of key 1 \[10 10\]/,
    },
  ],
  'invented value': [
    {
      what: 'an element that nobody appended',
      history: historyOf(['ok', 0, 1, append(1, 10)]),
      finalState: endsAs({ 1: [10, 99] }),
      says: /element 99/,
    },
    {
      what: 'an element of another list',
      history: historyOf(['ok', 0, 1, append(1, 10), append(2, 20)]),
      finalState: endsAs({ 1: [10, 20], 2: [20] }),
      says: /element 20 in the final state of key 1/,
    },
  ],
  'dirty read': [
    {
      what: 'a read of an append that was refused',
      history: historyOf(['fail', 0, 3, append(1, 10)], ['ok', 1, 2, read(1, 10)]),
      finalState: endsAs({}),
      says: /element 10 in the read of key 1 .*T2(.|\n)*appended by a transaction that failed: T1/,
    },
    {
      what: 'an append that was refused and took effect',
      history: historyOf(['fail', 0, 1, append(1, 10)]),
      finalState: endsAs({ 1: [10] }),
      says: /final state/,
    },
  ],
  'intermediate read': [
    {
      what: 'a read from the middle of a transaction',
      history: historyOf(['ok', 0, 3, append(1, 10), append(1, 11)], ['ok', 1, 2, read(1, 10)]),
      finalState: endsAs({ 1: [10, 11] }),
      says: /ends within a transaction: T1/,
    },
  ],
  'internal contradiction': [
    {
      what: 'a transaction that does not read its own append',
      history: historyOf(['ok', 0, 1, append(1, 10), read(1)]),
      finalState: endsAs({ 1: [10] }),
      says: /does not end with what the transaction had appended/,
    },
    {
      what: 'a transaction that reads twice and sees a change of another',
      history: historyOf(['ok', 0, 3, read(1), read(1, 10)], ['ok', 1, 2, append(1, 10)]),
      finalState: endsAs({ 1: [10] }),
      says: /saw different elements/,
    },
  ],
  'incompatible orders': [
    {
      what: 'two sides that took appends in different orders',
      history: historyOf(['ok', 0, 9, append(1, 10)], ['ok', 0, 9, append(1, 11)], ['ok', 1, 2, read(1, 11, 10)]),
      finalState: endsAs({ 1: [10, 11] }),
      says: /\[11 10\](.|\n)*is not how the longest read begins: its element 1 is 11, there it is 10/,
    },
    {
      what: 'two appends of one transaction that were applied the other way round',
      history: historyOf(['ok', 0, 1, append(1, 10), append(1, 11)], ['ok', 2, 3, append(1, 12)]),
      finalState: endsAs({ 1: [11, 10, 12] }),
      says: /key 1 \[11 10 12\]\n.*has 11 before 10: T1/,
    },
  ],
  'stale read': [
    {
      what: 'a read that began after an append was acknowledged and does not see it',
      history: historyOf(['ok', 0, 1, append(1, 10)], ['ok', 2, 3, read(1)]),
      finalState: endsAs({ 1: [10] }),
      says: /read of key 1 \[\] by T2.*\n.*1 elements were known: T1/,
    },
    {
      what: 'a read that sees less than an earlier one, of an append that is not acknowledged yet',
      history: historyOf(['ok', 0, 9, append(1, 10)], ['ok', 1, 2, read(1, 10)], ['ok', 3, 4, read(1)]),
      finalState: endsAs({ 1: [10] }),
      says: /known: T2/,
    },
    {
      what: 'a final state that went back',
      history: historyOf(['unknown', 0, 1, append(1, 10)], ['ok', 2, 3, read(1, 10)]),
      finalState: endsAs({}),
      says: /the final state of key 1 \[\]/,
    },
  ],
  'write cycle': [
    {
      what: 'two transactions that append to two lists in opposite orders',
      history: historyOf(['ok', 0, 9, append(1, 10), append(2, 20)], ['ok', 0, 9, append(1, 11), append(2, 21)]),
      finalState: endsAs({ 1: [10, 11], 2: [21, 20] }),
      says: /T1 before T2 \(ww\): had appended to key 1 right before the next appended 11/,
    },
  ],
  'information cycle': [
    {
      what: 'two transactions that each read what the other wrote',
      history: historyOf(['ok', 0, 9, append(1, 10), read(2, 20)], ['ok', 0, 9, append(2, 20), read(1, 10)]),
      finalState: endsAs({ 1: [10], 2: [20] }),
      says: /\(wr\)/,
    },
  ],
  'anti-dependency cycle': [
    {
      what: 'write skew: each read what the other then changed',
      history: historyOf(['ok', 0, 9, read(1), append(2, 20)], ['ok', 0, 9, read(2), append(1, 10)]),
      finalState: endsAs({ 1: [10], 2: [20] }),
      says: /\(rw\)/,
    },
    {
      what: 'a lost update: both appended to the list that both had read empty',
      history: historyOf(['ok', 0, 9, read(1), append(1, 10)], ['ok', 0, 9, read(1), append(1, 11)]),
      finalState: endsAs({ 1: [10, 11] }),
      says: /\(rw\)/,
    },
    {
      what: 'two readers who see two appends in opposite orders',
      history: historyOf(
        ['ok', 0, 9, append(1, 10)],
        ['ok', 0, 9, append(2, 20)],
        ['ok', 0, 9, read(1, 10), read(2)],
        ['ok', 0, 9, read(1), read(2, 20)],
      ),
      finalState: endsAs({ 1: [10], 2: [20] }),
      says: /T\d -> T\d -> T\d -> T\d -> T\d/,
    },
  ],
  'real-time cycle': [
    {
      what: 'an append that was put before one acknowledged earlier',
      history: historyOf(['ok', 0, 1, append(1, 10)], ['ok', 2, 3, append(1, 11)]),
      finalState: endsAs({ 1: [11, 10] }),
      says: /T1 before T2 \(real time\): was answered 1\.0 ms before/,
    },
    {
      what: 'a serial order that only a third transaction makes impossible in time',
      history: historyOf(
        ['ok', 0, 3, append(1, 10)],
        ['ok', 4, 5, read(2)],
        // Both before T1 and after T2, which began when T1 was over.
        ['ok', 0, 9, read(1), append(2, 20)],
      ),
      finalState: endsAs({ 1: [10], 2: [20] }),
      says: /real time/,
    },
  ],
};

const ALL_BROKEN = Object.entries(BROKEN).flatMap(([anomaly, all]) => all.map((broken) => ({ anomaly, ...broken })));

describe('a broken history is found', () => {
  it.each(ALL_BROKEN)('$anomaly: $what', ({ anomaly, history, finalState, says }) => {
    const messages = check(history, finalState)
      .filter((f) => f.anomaly === anomaly)
      .map((f) => f.message);
    expect(messages.join('\n')).toMatch(says);
    expect(hasAnOrder({ history, finalState })).toBe(false);
  });
});

describe('what is right is not blamed', () => {
  it('transactions that overlap may stand in either order', () => {
    const history = historyOf(['ok', 0, 5, append(1, 10)], ['ok', 1, 2, append(1, 11)], ['ok', 3, 4, read(1, 11)]);
    expect(check(history, endsAs({ 1: [11, 10] }))).toEqual([]);
  });

  it('an append whose answer was lost may be there, or not, or appear long after', () => {
    const history = historyOf(['unknown', 0, 1, append(1, 10)], ['ok', 2, 3, read(1)], ['ok', 4, 5, append(1, 11)]);
    expect(check(history, endsAs({ 1: [11] }))).toEqual([]);
    expect(check(history, endsAs({ 1: [11, 10] }))).toEqual([]);
  });

  it('what a transaction that failed had read proves nothing', () => {
    const history = historyOf(['ok', 0, 1, append(1, 10)], ['fail', 2, 3, read(1), append(1, 11)]);
    expect(check(history, endsAs({ 1: [10] }))).toEqual([]);
  });

  it('a history of transactions that ran one after the other', () => {
    fc.assert(
      fc.property(validHistories({ transactionsMax: 60, keys: 4 }), ({ history, finalState }) => {
        expect(check(history, finalState)).toEqual([]);
      }),
    );
  });
});

it('small histories are judged exactly as by trying every order', { timeout: 30_000 }, () => {
  const verdicts = { right: 0, wrong: 0 };
  fc.assert(
    fc.property(doubtfulHistories({ transactionsMax: 5, keys: 2 }), (judged) => {
      const right = hasAnOrder(judged);
      verdicts[right ? 'right' : 'wrong']++;
      expect(check(judged.history, judged.finalState).length === 0).toBe(right);
    }),
    { numRuns: 5_000 },
  );
  // Otherwise the agreement would be worth nothing.
  expect(Math.min(verdicts.right, verdicts.wrong)).toBeGreaterThan(500);
});

describe('one fault planted in a long history is found', () => {
  const long = validHistories({ transactionsMax: 60, keys: 4 });

  /** Some element of a transaction that was acknowledged. */
  function anElement({ history }: Judged, choice: number): { value: number; key: number; by: Transaction } {
    const all = history.transactions.flatMap((by) =>
      by.outcome === 'ok' ? by.steps.flatMap((s) => (s.kind === 'append' ? [{ ...s, by }] : [])) : [],
    );
    const element = all[choice % Math.max(all.length, 1)];
    fc.pre(element !== undefined);
    return element;
  }

  function withSteps(history: History, change: (step: Step, by: Transaction) => Step): History {
    const transactions = history.transactions.map((t) => ({ ...t, steps: t.steps.map((step) => change(step, t)) }));
    return { ...history, transactions };
  }

  const without = (finalState: FinalState, value: number): FinalState =>
    new Map([...finalState].map(([key, items]) => [key, items.filter((item) => item !== value)]));

  const anomalies = (history: History, finalState: FinalState): readonly Anomaly[] =>
    check(history, finalState).map((f) => f.anomaly);

  it('an element that vanished at the end', () => {
    fc.assert(
      fc.property(long, fc.nat(), (judged, choice) => {
        const { value } = anElement(judged, choice);
        expect(anomalies(judged.history, without(judged.finalState, value))).toContain('lost append');
      }),
    );
  });

  it('an element that nobody but its writer ever saw', () => {
    fc.assert(
      fc.property(long, fc.nat(), (judged, choice) => {
        const { value, by } = anElement(judged, choice);
        const history = withSteps(judged.history, (step, reader) =>
          step.kind === 'append' || reader === by
            ? step
            : { ...step, items: step.items.filter((item) => item !== value) },
        );
        expect(anomalies(history, without(judged.finalState, value))).toContain('lost append');
      }),
    );
  });

  it('an acknowledgement that was a refusal', () => {
    fc.assert(
      fc.property(long, fc.nat(), (judged, choice) => {
        const { by } = anElement(judged, choice);
        const transactions = judged.history.transactions.map((t) =>
          t === by ? { ...t, outcome: 'fail' as const } : t,
        );
        expect(anomalies({ ...judged.history, transactions }, judged.finalState)).toContain('dirty read');
      }),
    );
  });

  it('a reader that asked the other side long after', () => {
    fc.assert(
      fc.property(long, fc.nat(), (judged, choice) => {
        const { key, by } = anElement(judged, choice);
        const late: Transaction = { ...by, id: 1_000, invokedMs: 1_000, completedMs: 1_001, steps: [read(key)] };
        const history = { ...judged.history, transactions: [...judged.history.transactions, late] };
        expect(anomalies(history, judged.finalState)).toEqual(
          expect.arrayContaining(['stale read', 'real-time cycle']),
        );
      }),
    );
  });

  it('a transaction of which only half was moved', () => {
    fc.assert(
      fc.property(long, (judged) => {
        // Two lists that nobody else touches: the reader sees the append to one of them and not to the other.
        const writer: Told = ['ok', 100, 109, append(8, 1_008), append(9, 1_009)];
        const added = historyOf(writer, ['ok', 100, 109, read(8, 1_008), read(9)]).transactions;
        const transactions = [...judged.history.transactions, ...added.map((t) => ({ ...t, id: t.id + 1_000 }))];
        const finalState = new Map([...judged.finalState, [8, [1_008]], [9, [1_009]]]);
        expect(anomalies({ ...judged.history, transactions }, finalState)).toEqual(['anti-dependency cycle']);
      }),
    );
  });
});

describe('the checker stays usable', () => {
  it('two defects are two findings, each with its shortest cycle', () => {
    const skew = (key: number, atMs: number): Told[] => [
      ['ok', atMs, atMs + 9, read(key), append(key + 1, key + 1)],
      ['ok', atMs, atMs + 9, read(key + 1), append(key, key)],
    ];
    const finalState = endsAs({ 10: [10], 11: [11], 20: [20], 21: [21] });
    const ways = check(historyOf(...skew(10, 0), ...skew(20, 100)), finalState).map((f) => f.message.split('\n')[0]);
    expect(ways).toHaveLength(2);
    expect(ways).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^T[12] -> T[12] -> T[12]$/),
        expect.stringMatching(/^T[34] -> T[34] -> T[34]$/),
      ]),
    );
  });

  it('a thousand losses are told as ten and a number', () => {
    const history = historyOf(...Array.from({ length: 1_000 }, (_, i): Told => ['ok', i, i + 0.5, append(1, i)]));
    const lost = check(history, endsAs({})).filter((f) => f.anomaly === 'lost append');
    expect(lost).toHaveLength(11);
    expect(lost.at(-1)?.message).toBe('and 990 more of these');
  });

  it('a history of thirty thousand transactions, all of one cycle, is judged in seconds', { timeout: 20_000 }, () => {
    // The first append was put at the end of a list that thousands had read by then.
    const told = Array.from({ length: 30_000 }, (_, i): Told => ['ok', i, i + 0.5, append(1 + (i % 500), i)]);
    const lists = new Map<number, number[]>();
    for (const [, , , step] of told) {
      if (step?.kind !== 'append') continue;
      const list = lists.get(step.key) ?? [];
      lists.set(step.key, [...list, step.value]);
    }
    lists.set(1, [...(lists.get(1) ?? []).slice(1), 0]);
    const findings = check(historyOf(...told), lists);
    expect(findings.map((f) => f.anomaly)).toEqual(['real-time cycle']);
    expect(findings[0]?.message).toMatch(/^T1 -> T\d+ -> T1\n|^T\d+ -> T1 -> T\d+\n/);
  });

  it('a history that makes no sense is not judged', () => {
    const twice = historyOf(['ok', 0, 1, append(1, 10)], ['ok', 0, 1, append(2, 10)]);
    expect(() => check(twice, endsAs({}))).toThrow(/the value 10 is appended once/);
    expect(() => check(historyOf(['ok', 1, 0, append(1, 10)]), endsAs({}))).toThrow(/ends after it began/);
  });
});
