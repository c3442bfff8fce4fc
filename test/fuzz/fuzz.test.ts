/**
 * One task: no stream of the fuzzer breaks a promise of the proxy's, and each planted fault does within its budget.
 *
 * `npm run fuzz -- --seed N --streams M` runs more of them; a stream that broke something is in test/fuzz/corpus.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PLANTED } from './planted.js';

const PROGRAM = join(import.meta.dirname, '..', '..', 'dist', 'test', 'fuzz', 'main.js');
const STREAMS = '1500';
/** The rarest takes half of them. */
const PLANTED_STREAMS = '1000';
const DEADLINE_MS = 240_000;

function fuzz(...args: readonly string[]): Promise<{ readonly code: number | null; readonly said: string }> {
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  return new Promise((resolve) =>
    child.once('close', (code) => {
      resolve({ code, said });
    }),
  );
}

test(
  `the corpus and ${STREAMS} mutated streams break no promise`,
  async () => {
    const { code, said } = await fuzz('--streams', STREAMS);
    expect(said).toMatch(/ 0 broken; /);
    expect(code).toBe(0);
  },
  DEADLINE_MS,
);

test(
  'the same numbers are the same run, also from the middle on',
  async () => {
    const [all, rest] = await Promise.all([
      fuzz('--seed', '2', '--streams', '600', '--world', '300'),
      fuzz('--seed', '2', '--from', '300', '--streams', '300', '--world', '300'),
    ]);
    const digests = (said: string): readonly string[] => said.match(/digest \w+/g) ?? [];
    expect(digests(all.said)).toHaveLength(3);
    expect(digests(rest.said)).toEqual([digests(all.said)[1]]);
  },
  DEADLINE_MS,
);

test.each(PLANTED)(
  '$name is found: $what',
  async ({ name, seed = 1 }) => {
    const { code, said } = await fuzz('--planted', name, '--seed', seed.toString(), '--streams', PLANTED_STREAMS);
    expect(said).toMatch(/^stream \d+ of seed \d+ /);
    expect(code).toBe(1);
  },
  DEADLINE_MS,
);
