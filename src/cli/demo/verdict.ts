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

export const ACKNOWLEDGED_MIN = 2_000;
export const ACKNOWLEDGED_AROUND_SWITCH_MIN = 50;

/** The sentences of what went wrong; empty when the run succeeded. Too few writes would prove nothing. */
export function failuresOf(facts: RunFacts): readonly string[] {
  const { comparison } = facts;
  const checks: readonly (readonly [boolean, string])[] = [
    [comparison.lost.length > 0, `${count(comparison.lost.length, 'acknowledged write')} lost`],
    [comparison.doubled.length > 0, `${count(comparison.doubled.length, 'write')} applied twice`],
    [comparison.unexpected.length > 0, `${count(comparison.unexpected.length, 'write')} there that nobody was told of`],
    [!comparison.balanceOk, 'accounts do not add up: a transaction was applied in part'],
    [!comparison.historyOk, 'the rows loaded ahead are not what they were'],
    [facts.refused > 0, `${count(facts.refused, 'statement')} refused`],
    [facts.unknown > 0, `${count(facts.unknown, 'commit')} without an answer`],
    [facts.staleReads > 0, `${count(facts.staleReads, 'read')} from the past`],
    [
      facts.acknowledged < ACKNOWLEDGED_MIN,
      `only ${count(facts.acknowledged, 'write')} acknowledged, ${ACKNOWLEDGED_MIN.toString()} are needed`,
    ],
    [
      facts.acknowledgedAround.length < facts.switchesExpected,
      `only ${facts.acknowledgedAround.length.toString()} of ${count(facts.switchesExpected, 'switch')} took place`,
    ],
    ...facts.acknowledgedAround.map((writes, index): readonly [boolean, string] => [
      writes < ACKNOWLEDGED_AROUND_SWITCH_MIN,
      `only ${count(writes, 'write')} acknowledged in the second around switch ${(index + 1).toString()}, ${ACKNOWLEDGED_AROUND_SWITCH_MIN.toString()} are needed`,
    ]),
  ];
  return checks.filter(([failed]) => failed).map(([, sentence]) => sentence);
}

function count(number: number, noun: string): string {
  if (number === 1) return `1 ${noun}`;
  return `${number.toLocaleString('en-US')} ${noun}${noun.endsWith('ch') ? 'es' : 's'}`;
}
