/** One task: prove that no server outlives the program that started it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { childrenOf, isRunning } from '../../src/dev/processes.js';
import { spawnScript } from '../support/child.js';
import { until } from '../support/wait.js';

const SCRIPT = join(import.meta.dirname, 'starts-servers.ts');

interface Started {
  readonly pids: readonly number[];
  readonly directory: string;
}

async function serversOf(output: () => string): Promise<Started> {
  const line = await until('the program has started its servers', () => /^\{.*\}$/m.exec(output())?.[0], 60_000);
  return JSON.parse(line) as Started;
}

test.each(['SIGKILL', 'SIGTERM', 'SIGINT'] as const)(
  'a program ended by %s leaves no server behind',
  async (signal) => {
    const child = spawnScript(SCRIPT);
    const { pids, directory } = await serversOf(child.output);
    const all = [...pids, ...pids.flatMap(childrenOf)];
    expect(all.length).toBeGreaterThan(pids.length);
    expect(all.filter(isRunning)).toEqual(all);
    child.process.kill(signal);
    await child.ended;
    await until('every server process has ended', () => !all.some(isRunning));
    await until('the temporary directory is gone', () => !existsSync(directory));
  },
);

test('a program that ends by an uncaught error leaves no server behind', async () => {
  const child = spawnScript(SCRIPT, ['throw']);
  const { pids, directory } = await serversOf(child.output);
  expect(await child.ended).toBe(1);
  await until('every server process has ended', () => !pids.some(isRunning));
  await until('the temporary directory is gone', () => !existsSync(directory));
});
