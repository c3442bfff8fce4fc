/** One task: say whether a run of the demo proved what it is meant to prove, and if not, why not. */
import type { Comparison } from '../../dev/ledger/compare.js';

export interface RunFacts {
  readonly comparison: Comparison;
  readonly acknowledged: number;
  /** in the second around each switch, in the order of the switches */
  readonly acknowledgedAround: readonly number[];
  /** how many switches there were to be */
  readonly switchesExpected: number;
  readonly refused: number;
  readonly unknown: number;
  /** reads that came from a side that lags, or missed an acknowledged write */
  readonly staleReads: number;
}

export type Check = readonly [failed: boolean, sentence: string];

/** What a run without shards and one with them have to show alike. */
export interface CommonFacts extends Omit<RunFacts, 'comparison'> {
  readonly comparison: Pick<Comparison, 'lost' | 'doubled' | 'unexpected' | 'historyOk'>;
}

/** Fewer writes would prove nothing. */
export interface Least {
  readonly acknowledged: number;
  readonly aroundSwitch: number;
}

const LEAST: Least = { acknowledged: 2_000, aroundSwitch: 50 };

/** The sentences of what went wrong; empty when the run succeeded. */
export function failuresOf(facts: RunFacts): readonly string[] {
  const torn: Check = [!facts.comparison.balanceOk, 'accounts do not add up: a transaction was applied in part'];
  return [...failedOf([torn]), ...commonFailures(facts, LEAST)];
}

export function commonFailures(facts: CommonFacts, least: Least): readonly string[] {
  const { comparison } = facts;
  return failedOf([
    [comparison.lost.length > 0, `${count(comparison.lost.length, 'acknowledged write')} lost`],
    [comparison.doubled.length > 0, `${count(comparison.doubled.length, 'write')} applied twice`],
    [comparison.unexpected.length > 0, `${count(comparison.unexpected.length, 'write')} there that nobody was told of`],
    [!comparison.historyOk, 'the rows loaded ahead are not what they were'],
    [facts.refused > 0, `${count(facts.refused, 'statement')} refused`],
    [facts.unknown > 0, `${count(facts.unknown, 'commit')} without an answer`],
    [facts.staleReads > 0, `${count(facts.staleReads, 'read')} from the past`],
    ...tooFew(facts, least),
  ]);
}

function tooFew({ acknowledged, acknowledgedAround, switchesExpected }: CommonFacts, least: Least): readonly Check[] {
  const needed = (number: number): string => `${number.toString()} are needed`;
  return [
    [
      acknowledged < least.acknowledged,
      `only ${count(acknowledged, 'write')} acknowledged, ${needed(least.acknowledged)}`,
    ],
    [
      acknowledgedAround.length < switchesExpected,
      `only ${acknowledgedAround.length.toString()} of ${count(switchesExpected, 'switch')} took place`,
    ],
    ...acknowledgedAround.map((writes, index): Check => [
      writes < least.aroundSwitch,
      `only ${count(writes, 'write')} acknowledged in the second around switch ${(index + 1).toString()}, ${needed(least.aroundSwitch)}`,
    ]),
  ];
}

export function failedOf(checks: readonly Check[]): readonly string[] {
  return checks.filter(([failed]) => failed).map(([, sentence]) => sentence);
}

export function count(number: number, noun: string): string {
  if (number === 1) return `1 ${noun}`;
  return `${number.toLocaleString('en-US')} ${noun}${noun.endsWith('ch') ? 'es' : 's'}`;
}
