/** One task: the demo as a person runs it: its exit code is honest, and it leaves nothing behind however it ends. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ended, familyOf, nobodyLeft, passwordsIn, said, startDemo, WHOLE_RUN_MS } from './running.js';

/** Where the copy is not the matter. The whole run has as many as the demo itself: fewer are copied before anybody looks. */
const FEW_ROWS = ['--rows', '20000'];

test(
  'a whole run loses nothing, stays when asked to, and ends with its verdict',
  { timeout: WHOLE_RUN_MS },
  async () => {
    const demo = startDemo('--keep');
    await said(demo, /Everything is left running/);
    const output = demo.output();
    expect(output).toMatch(/copy public\.history .* rows .* (KB|MB)/);
    for (const step of [
      'pauseTraffic',
      'sealSource',
      'awaitParity',
      'advanceSequences',
      'commitCutover',
      'resumeTraffic',
    ]) {
      expect(output.match(new RegExp(`\\d ${step} +[\\d.]+ ms`, 'g')), step).toHaveLength(3);
    }
    expect(output.match(/^CUTOVER \d+: /gm)).toHaveLength(2);
    expect(output).toContain('Comparison with the side that serves: PostgreSQL 18');
    expect(output).toMatch(/longest stall of any client in the whole run: [\d.]+ ms/);
    expect(output).toContain('Result: nothing lost, nothing doubled, nothing refused');
    const page = /Temporal, every step of every move: (\S+)/.exec(output)?.[1];
    expect((await fetch(page ?? '')).status).toBe(200);
    const folder = /passwords and log of the proxy: (\S+)/.exec(output)?.[1] ?? '';
    for (const password of passwordsIn(join(folder, 'users.toml'))) expect(output).not.toContain(password);
    const family = familyOf(demo.pid);
    expect(family.length).toBeGreaterThan(5);
    process.kill(demo.pid, 'SIGINT');
    expect(await ended(demo), demo.output()).toBe(0);
    await nobodyLeft(family);
    expect(existsSync(folder)).toBe(false);
  },
);

test('one acknowledged row deleted by hand makes the run exit with 1', { timeout: WHOLE_RUN_MS }, async () => {
  const demo = startDemo('--lose-one-write', ...FEW_ROWS);
  await said(demo, /Ledger:/);
  const family = familyOf(demo.pid);
  expect(await ended(demo), demo.output()).toBe(1);
  expect(demo.output()).toContain('Result: FAILED');
  expect(demo.output()).toContain('1 acknowledged write lost');
  await nobodyLeft(family);
});

test.each(['SIGINT', 'SIGTERM'] as const)(
  '%s in the middle leaves no process behind',
  { timeout: WHOLE_RUN_MS },
  async (signal) => {
    const demo = startDemo(...FEW_ROWS);
    await said(demo, /^RESHARD/m);
    const family = familyOf(demo.pid);
    process.kill(demo.pid, signal);
    expect(await ended(demo), demo.output()).toBe(130);
    await nobodyLeft(family);
  },
);

test('killed at its start, the demo leaves no process behind', { timeout: WHOLE_RUN_MS }, async () => {
  const demo = startDemo(...FEW_ROWS);
  await said(demo, /proxy at/);
  const family = familyOf(demo.pid);
  process.kill(demo.pid, 'SIGKILL');
  await ended(demo);
  await nobodyLeft(family);
});

test('a wrong option is one clear line, and nothing is started', async () => {
  const demo = startDemo('--from', '9');
  expect(await ended(demo), demo.output()).toBe(1);
  expect(demo.output()).toBe('demo: --from is one of 14, 15, 16, 17, 18\n');
});
