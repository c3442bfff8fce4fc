/** One task: the benches run, end in order and print what they promise; what they measure is not for a test to judge. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { programPath } from '../../bench/pgbench.js';
import { median } from '../../bench/statistics.js';
import { isSlowed, slowedSummary, sumOf, type Run, type Switch } from '../../bench/switches.js';
import { invariant } from '../../src/errors/invariant.js';
import { THOROUGH } from '../support/thorough.js';

const PROGRAM = fileURLToPath(new URL('../../dist/bench/main.js', import.meta.url));
const RUN_MS = 180_000;

async function bench(...args: readonly string[]): Promise<readonly string[]> {
  invariant(existsSync(PROGRAM), 'the benches are built: npm run build');
  const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM, ...args], { timeout: RUN_MS });
  return stdout.trim().split('\n');
}

function json(line: string | undefined): Record<string, unknown> {
  return JSON.parse(line ?? '') as Record<string, unknown>;
}

const numbers = (...names: readonly string[]): Record<string, unknown> =>
  Object.fromEntries(names.map((name) => [name, expect.any(Number)]));

test('a median is that of the values, whatever their order', () => {
  expect(median([5, 1, 3])).toBe(3);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([10, 9])).toBe(9.5);
});

const SWITCH: Switch = {
  ...{ epoch: 1, gapMs: 30, stallMs: 30, longestSyncMs: 2, pausedMs: 30, aborted: 0 },
  stepMs: { sealSource: 1 },
};

test('the worst gap is told apart from that of a disk that stood still', () => {
  const switches = [SWITCH, { ...SWITCH, gapMs: 900, longestSyncMs: 870 }, { ...SWITCH, gapMs: 70 }];
  expect(sumOf(switches)).toMatchObject({
    worstGapMs: 900,
    longestSyncMs: 870,
    onQuickDisk: { switches: 2, worstGapMs: 70 },
  });
});

test('a slowed Temporal is compared with as many switches without, and the cold first run with neither', () => {
  const runs = Array.from({ length: 9 }, (_, index): Run => {
    const temporalDelayMs = isSlowed(index + 1) ? 200 : 0;
    const gapMs = index === 0 ? 1_000 : temporalDelayMs > 0 ? 33 : 30;
    const one: Switch = { ...SWITCH, epoch: index, gapMs };
    return { cutover: one, rollback: one, errors: 0, temporalDelayMs, commandMs: 1 };
  });
  expect(runs.slice(1).filter(({ temporalDelayMs }) => temporalDelayMs > 0)).toHaveLength(4);
  expect(slowedSummary(200, runs)).toMatchObject({
    ...{ temporalDelayMs: 200, slowed: { medianGapMs: 33, worstGapMs: 33 }, usual: { medianGapMs: 30 } },
    medianGapGrowthPercent: 10,
  });
  expect(slowedSummary(200, runs.slice(0, 1))).toEqual({ temporalDelayMs: 200 });
  expect(slowedSummary(0, runs)).toEqual({ temporalDelayMs: 0 });
});

test.each(THOROUGH ? ['killed'] : [])(
  '%s measures the wait for nodes that have no engine, and the next engine ends the move',
  { timeout: RUN_MS },
  async (name) => {
    const lines = await bench(name, '--runs', '1', '--rows', '1000', '--lease-ms', '1000');
    const [run, summary] = lines.map(json);
    expect(run).toMatchObject({ run: 1, step: 'awaitParity', decision: 'aborted', leaseMs: 1_000, errors: 0 });
    // Less than that, and the engine was not killed inside the pause.
    expect(run?.longestGapMs).toBeGreaterThan(500);
    expect(summary).toMatchObject({
      ...{ summary: true, runs: 1, leaseMs: 1_000, limitMs: 2_000, errors: 0, lost: 0, doubled: 0, unexpected: 0 },
      ...{ balanceOk: true, historyOk: true, staleReads: 0, ...numbers('longestGapMs', 'longestWaitMs') },
      withinLimit: expect.any(Boolean) as boolean,
    });
  },
);

test.each(THOROUGH ? ['boot'] : [])(
  '%s compares a start with records to one without',
  { timeout: RUN_MS },
  async (name) => {
    const [line] = await bench(name, '--rounds', '1');
    expect(json(line)).toMatchObject(numbers('withoutRecordsMs', 'withRecordsMs', 'moreMs', 'ratio'));
  },
);

test('stall prints a line a run and a summary with both directions', { timeout: RUN_MS }, async () => {
  const lines = await bench('stall', '--runs', '1', '--tables', '3', '--rows', '1000', '--nodes', '2', '--idle', '50');
  expect(lines).toHaveLength(2);
  const one = { ...numbers('epoch', 'gapMs', 'stallMs', 'longestSyncMs', 'pausedMs'), aborted: 0 };
  expect(json(lines[0])).toMatchObject({
    run: 1,
    cutover: { ...one, epoch: 1 },
    rollback: { ...one, epoch: 2 },
    errors: 0,
  });
  const sum = numbers('medianGapMs', 'worstGapMs', 'medianPausedMs');
  expect(json(lines[1])).toMatchObject({
    ...{
      summary: true,
      runs: 1,
      tables: 3,
      nodes: 2,
      idleClients: 50,
      idleLost: 0,
      errors: 0,
      lost: 0,
      doubled: 0,
      unexpected: 0,
    },
    ...{
      balanceOk: true,
      historyOk: true,
      staleReads: 0,
      cutover: sum,
      rollback: sum,
      machine: numbers('loadAverage'),
    },
  });
});

test.skipIf(programPath('pgbench') === undefined)(
  'relay measures every target in every mode and sums them up (needs pgbench)',
  { timeout: RUN_MS },
  async () => {
    const lines = await bench('relay', '--rounds', '1', '--seconds', '1');
    const measured = lines.filter((line) => line.includes('"transactionsPerSecond"')).map(json);
    const targets = programPath('pgbouncer') === undefined ? 3 : 4;
    expect(measured).toHaveLength(3 * targets);
    for (const line of measured) expect(line).toMatchObject(numbers('transactionsPerSecond', 'latencyMs'));
    expect(lines.slice(-targets).map((line) => line.slice(0, 12).trim())).toEqual(
      ['direct', 'bare relay', 'proxy', 'PgBouncer'].slice(0, targets),
    );
  },
);

test('an unknown bench and a wrong option are one clear line', async () => {
  await expect(bench('speed')).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining('no bench "speed"') as string,
  });
  await expect(bench('stall', '--runs', 'many')).rejects.toMatchObject({
    code: 1,
    stderr: 'bench: --runs is a whole number from 1 to 1000\n',
  });
});
