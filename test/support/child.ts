/** One task: run a TypeScript file of this repository in a process of its own, so that a test can kill it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { release, watch } from '../../src/dev/guardian.js';

export interface Child {
  readonly process: ChildProcess;
  /** all that it printed so far, both streams */
  readonly output: () => string;
  /** resolves with the exit code, or null when a signal ended it */
  readonly ended: Promise<number | null>;
}

/** Runs `file` (an absolute path; built JavaScript as it is, TypeScript by vite) with `process.argv[2…]` = `args`. The caller ends it. */
export function spawnScript(file: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Child {
  const program = `
    import { runnerImport } from 'vite';
    await runnerImport(${JSON.stringify(file)}, { configFile: false, logLevel: 'error' });`;
  const how = file.endsWith('.js') ? [] : ['--input-type=module', '-e', program];
  const child = spawn(process.execPath, [...how, file, ...args], {
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
