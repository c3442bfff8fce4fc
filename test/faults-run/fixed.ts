/** One task: run the fixed set of one layout as tests, a few faults to a test, all on one system. */
import { afterAll, describe, expect, test } from 'vitest';
import { fixedFaults, type Fault, type Layout } from './plan.js';
import { FaultSeries } from './series.js';

const LEASE_MS = 1_000;
const DEADLINE_MS = 240_000;

/** Each victim of the layout's share at each moment, once. */
export function testFixedFaults(layout: Layout): void {
  const lines: object[] = [];
  const series = new FaultSeries({
    leaseMs: LEASE_MS,
    // Every other fault is a rollback: the next one is the way back.
    wayBack: false,
    print: (line) => lines.push(line),
    repeatWith: (index) => `fault ${index.toString()} of the fixed set ${layout}`,
  });

  afterAll(async () => {
    await series.end();
  });

  const byVictim = new Map<string, Fault[]>();
  for (const fault of fixedFaults(layout, LEASE_MS))
    byVictim.set(fault.victim, [...(byVictim.get(fault.victim) ?? []), fault]);

  describe(`with workers ${layout}, at every step of the pause`, () => {
    for (const [victim, faults] of byVictim)
      test(`${victim}: nothing is lost, doubled, left, or held too long`, { timeout: DEADLINE_MS }, async () => {
        const from = lines.length;
        for (const fault of faults) await series.one(fault);
        const failures = lines.slice(from).filter((line) => 'failure' in line || 'failed' in line || violated(line));
        expect(failures).toEqual([]);
      });

    test('the end of the migration leaves no process, slot or fence', { timeout: DEADLINE_MS }, async () => {
      const from = lines.length;
      await series.finish();
      expect(lines.slice(from)).toEqual([{ ended: layout, violations: [] }]);
    });
  });
}

function violated(line: object): boolean {
  return 'violations' in line && Array.isArray(line.violations) && line.violations.length > 0;
}
