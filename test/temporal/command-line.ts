/** One task: run the `temporal` program, as an operator without Cutover's own commands would. */
import { execFile } from 'node:child_process';
import { temporalBinary } from '../../src/dev/temporal-binary.js';

const DEADLINE_MS = 60_000;

export interface Printed {
  readonly exitCode: number;
  /** standard output, and standard error where it failed */
  readonly text: string;
}

/** Runs `temporal …` against the server at `address`, with nothing from the environment that would point elsewhere. */
export async function temporal(address: string, ...args: readonly string[]): Promise<Printed> {
  const program = await temporalBinary();
  const all = [...args, '--address', address, '--color', 'never', '--disable-config-file', '--disable-config-env'];
  return new Promise((resolve) => {
    execFile(program, all, { timeout: DEADLINE_MS }, (error, stdout, stderr) => {
      resolve({ exitCode: error ? 1 : 0, text: error ? `${stdout}${stderr}` : stdout });
    });
  });
}

/** What `temporal workflow start` needs for a workflow of ours: exactly the arguments the documentation shows. */
export function startArguments(type: string, workflowId: string, input: string): readonly string[] {
  return ['--type', type, '--task-queue', 'cutover', '--workflow-id', workflowId, '--input', input];
}
