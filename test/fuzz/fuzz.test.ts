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
/** The rarest takes a third of them. */
const PLANTED_STREAMS = '3000';
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

test.each(PLANTED)(
  '$name is found: $what',
  async ({ name }) => {
    const { code, said } = await fuzz('--planted', name, '--streams', PLANTED_STREAMS);
    expect(said).toMatch(/^stream \d+ of seed 1 /);
    expect(code).toBe(1);
  },
  DEADLINE_MS,
);
