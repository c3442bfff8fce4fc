/** One task: run the demo as a person does, read what it says, and see that nothing of it is left. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { release, watch } from '../../src/dev/guardian.js';
import { childrenOf, isRunning } from '../../src/dev/processes.js';
import { invariant } from '../../src/errors/invariant.js';
import { until } from '../support/wait.js';

const PROGRAM = fileURLToPath(new URL('../../dist/src/cli/demo.js', import.meta.url));
export const WHOLE_RUN_MS = 180_000;

export interface Demo {
  readonly pid: number;
  readonly output: () => string;
  readonly exit: Promise<number | NodeJS.Signals>;
}

export function startDemo(...args: readonly string[]): Demo {
  invariant(existsSync(PROGRAM), 'the demo is built: npm run build');
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const { pid } = child;
  invariant(pid !== undefined, 'the demo runs');
  watch({ pid, signal: 'SIGKILL' });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const exit = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once('close', (code, signal) => {
      release(pid);
      resolve(code ?? signal ?? 1);
    });
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return { pid, output: () => output, exit };
}

/** The demo and every process below it. */
export function familyOf(pid: number): readonly number[] {
  return [pid, ...childrenOf(pid).flatMap((child) => familyOf(child))];
}

export async function said(demo: Demo, sentence: RegExp): Promise<string> {
  return until(
    `the demo says ${sentence.source}\n${demo.output()}`,
    () => sentence.exec(demo.output())?.[0],
    WHOLE_RUN_MS,
  );
}

export async function nobodyLeft(family: readonly number[]): Promise<void> {
  await until('no process is left', () => !family.some(isRunning));
}

export function passwordsIn(file: string): readonly string[] {
  const found = [...readFileSync(file, 'utf8').matchAll(/^password = "(.+)"$/gm)].map(([, password]) => password ?? '');
  invariant(found.length >= 3, 'users.toml has the passwords of two users and of the admin');
  return found;
}
