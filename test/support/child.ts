/** One task: run a program of this repository in a process of its own, so that a test can kill it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { release, watch } from '../../src/dev/guardian.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface Child {
  readonly process: ChildProcess;
  /** all that it printed so far, both streams */
  readonly output: () => string;
  /** resolves with the exit code, or null when a signal ended it */
  readonly ended: Promise<number | null>;
}

/** Runs `file` (an absolute path; of a source in test/, what was built of it: tsconfig.build.json names it) with `process.argv[2…]` = `args`. The caller ends it. */
export function spawnScript(file: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Child {
  const child = spawn(process.execPath, ['--enable-source-maps', builtOf(file), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const { pid } = child;
  if (pid !== undefined) {
    // The caller ends it; a test that fails or times out before that leaves it to the guardian.
    watch({ pid, signal: 'SIGKILL' });
    child.once('exit', () => {
      release(pid);
    });
  }
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { process: child, output: () => output, ended };
}

function builtOf(file: string): string {
  if (file.endsWith('.js')) return file;
  return join(ROOT, 'dist', relative(ROOT, file).replace(/\.ts$/, '.js'));
}
