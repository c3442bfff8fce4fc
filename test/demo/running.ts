/** One task: run the demo as a person does, read what it says, and see that nothing of it is left. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { release, watch } from '../../src/dev/guardian.js';
import { childrenOf, isRunning } from '../../src/dev/processes.js';
import { messageOf } from '../../src/errors/errors.js';
import { invariant } from '../../src/errors/invariant.js';
import { until } from '../support/wait.js';

const PROGRAM = fileURLToPath(new URL('../../dist/src/cli/demo.js', import.meta.url));
/** A test has as long; what it waits for ends earlier, so that it can say what the demo said. */
export const WHOLE_RUN_MS = 180_000;
const WITHIN_MS = 120_000;

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

/** Waits for a sentence. @throws Error with all that the demo said, when it ends before it has said that, or says it too late */
export async function said(demo: Demo, sentence: RegExp): Promise<string> {
  const heard = (): string | undefined => sentence.exec(demo.output())?.[0];
  const gone = demo.exit.then((code) => heard() ?? Promise.reject(new Error(`it ended with ${code.toString()}`)));
  return explained(demo, sentence.source, Promise.race([gone, until('the demo says so', heard, WITHIN_MS)]));
}

/** Its exit code. @throws Error with all that the demo said, when it does not end */
export async function ended(demo: Demo): Promise<number | NodeJS.Signals> {
  let exit: { readonly code: number | NodeJS.Signals } | undefined;
  void demo.exit.then((code) => (exit = { code }));
  return (
    await explained(
      demo,
      'its end',
      until('the demo ends', () => exit, WITHIN_MS),
    )
  ).code;
}

async function explained<T>(demo: Demo, what: string, waiting: Promise<T>): Promise<T> {
  try {
    return await waiting;
  } catch (cause) {
    throw new Error(`${what}: ${messageOf(cause)}; the demo said:\n${demo.output()}`, { cause });
  }
}

export async function nobodyLeft(family: readonly number[]): Promise<void> {
  await until('no process is left', () => !family.some(isRunning));
}

export function passwordsIn(file: string): readonly string[] {
  const found = [...readFileSync(file, 'utf8').matchAll(/^password = "(.+)"$/gm)].map(([, password]) => password ?? '');
  invariant(found.length >= 3, 'users.toml has the passwords of two users and of the admin');
  return found;
}
