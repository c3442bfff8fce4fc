/** One task: look at processes of this machine and wait for their end, without `ps` where /proc exists. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';

const POLL_MS = 10;

/** Sends `signal`; false when the process is already gone. */
export function signalProcess(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if (hasCode(error, 'ESRCH')) return false;
    throw error;
  }
}

/** True while the process runs; a zombie (ended, not yet collected by its parent) does not run. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it exists and belongs to somebody else.
    return !hasCode(error, 'ESRCH');
  }
  return statOf(pid)?.state !== 'Z';
}

/** The direct children of a process. */
export function childrenOf(pid: number): readonly number[] {
  if (!existsSync('/proc/self/stat')) return childrenByPs(pid);
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((candidate) => statOf(candidate)?.parent === pid);
}

/** The words it was started with; empty when it is gone. */
export function commandOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid.toString()}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/** Resolves true once `condition` holds, false at the deadline. The condition is looked at every 10 ms. */
export async function holdsWithin(condition: () => boolean, deadlineMs: number): Promise<boolean> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() >= end) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return true;
}

/** State and parent of a process from /proc/<pid>/stat (proc(5)); undefined without /proc or when it is gone. */
function statOf(pid: number): { readonly state: string; readonly parent: number } | undefined {
  let line: string;
  try {
    line = readFileSync(`/proc/${pid.toString()}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The second field is the command in parentheses and may itself contain spaces and parentheses.
  const [state = '', parent = ''] = line.slice(line.lastIndexOf(')') + 2).split(' ');
  return { state, parent: Number(parent) };
}

function childrenByPs(pid: number): readonly number[] {
  return execFileSync('ps', ['-axo', 'pid=,ppid='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, parent]) => parent === pid)
    .flatMap(([child]) => (child === undefined ? [] : [child]));
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
