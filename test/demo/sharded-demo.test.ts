/** One task: the demo of a move to shards as a person runs it: what it shows, its honest exit code, and that it leaves nothing behind. */
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { THOROUGH } from '../support/thorough.js';
import { ended, familyOf, nobodyLeft, said, startDemo, WHOLE_RUN_MS } from './running.js';

const FEW = ['--shards', '2', '--rows', '4000', '--writers', '2'];

test(
  'a whole run shows the rows on their shards and a report over all of them, stays when asked to, and ends with its verdict',
  { timeout: WHOLE_RUN_MS },
  async () => {
    const demo = startDemo('--keep', ...FEW);
    await said(demo, /Everything is left running/);
    const output = demo.output();
    expect(output).toContain('RESHARD prod prod_sharded shop');
    expect(output.match(/^CUTOVER \d+: /gm)).toHaveLength(2);
    for (const step of ['pauseTraffic', 'sealSource', 'awaitParity', 'commitCutover', 'resumeTraffic'])
      expect(output.match(new RegExp(`\\d ${step} +[\\d.]+ ms`, 'g')), step).toHaveLength(3);
    expect(rowsOfHistory(output)).toEqual([4_000, 4_000, 4_000]);
    expect(
      output.match(/report over all tenants, through the proxy, in [\d.]+ ms:\n +tenant \d+: \d+ orders/g),
    ).toHaveLength(3);
    expect(output).toContain('tables that prod has differently: none');
    expect(output).toContain('Result: every acknowledged order is there exactly once');
    const folder = /passwords and log of the proxy: (\S+)/.exec(output)?.[1] ?? '';
    const family = familyOf(demo.pid);
    process.kill(demo.pid, 'SIGINT');
    expect(await ended(demo), demo.output()).toBe(0);
    await nobodyLeft(family);
    expect(existsSync(folder)).toBe(false);
  },
);

/** After each of the three moves: on both shards together, or in the one database. Each shard has some of them. */
function rowsOfHistory(output: string): readonly number[] {
  const lines = [...output.matchAll(/(shard \d|all rows) \(port .*history ([\d,]+)$/gm)];
  const counts = lines.map(([, , rows = '']) => Number(rows.replace(',', '')));
  expect(lines.map(([, where]) => where)).toEqual(['shard 0', 'shard 1', 'all rows', 'shard 0', 'shard 1']);
  expect(counts.every((rows) => rows > 0)).toBe(true);
  const [first = 0, second = 0, back = 0, third = 0, fourth = 0] = counts;
  return [first + second, back, third + fourth];
}

// The verdict alone is in sharded-verdict.test.ts.
if (THOROUGH)
  test('one acknowledged order deleted by hand makes the run exit with 1', { timeout: WHOLE_RUN_MS }, async () => {
    const demo = startDemo('--lose-one-write', ...FEW);
    await said(demo, /Shop:/);
    const family = familyOf(demo.pid);
    expect(await ended(demo), demo.output()).toBe(1);
    expect(demo.output()).toContain('Result: FAILED');
    expect(demo.output()).toContain('1 acknowledged write lost');
    await nobodyLeft(family);
  });

test('interrupted in the middle of the move it leaves no process behind', { timeout: WHOLE_RUN_MS }, async () => {
  const demo = startDemo(...FEW);
  await said(demo, /syncing schema/);
  const family = familyOf(demo.pid);
  process.kill(demo.pid, 'SIGINT');
  expect(await ended(demo), demo.output()).toBe(130);
  await nobodyLeft(family);
});

test.each([
  [['--shards', '1'], '--shards is a whole number from 2 to 8'],
  [['--shards', '2', '--from', '15'], '--from is one of 16, 17, 18'],
])('%j is one clear line, and nothing is started', async (options, sentence) => {
  const demo = startDemo(...options);
  expect(await ended(demo), demo.output()).toBe(1);
  expect(demo.output()).toBe(`demo: ${sentence}\n`);
});
