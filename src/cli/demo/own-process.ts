/** One task: run a module of this program in a process of its own, and learn the port it listens on. */
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { CutoverError } from '../../errors/errors.js';
import { release, watch } from '../../dev/guardian.js';

export interface OwnProcess {
  readonly pid: number;
  readonly port: number;
  /** true once it has ended, whoever ended it */
  readonly ended: boolean;
  /** Asks it to end and waits; after a grace it is killed. May be called again. */
  stop(): Promise<void>;
}

const START_DEADLINE_MS = 60_000;
const STOP_GRACE_MS = 10_000;

/**
 * Starts `module` (a file URL of built JavaScript), which must call {@link listening}. What it prints goes to our standard
 * error. It ends with this process, however that ends.
 *
 * @throws CutoverError `dev_server_unavailable` when it ends or stays silent
 */
export async function startOwnProcess(module: URL, args: readonly string[]): Promise<OwnProcess> {
  const path = fileURLToPath(module);
  // detached: Ctrl-C is for the parent, which ends its children in order.
  const child = fork(path, [...args], { stdio: ['ignore', 2, 2, 'ipc'], detached: true });
  const { pid } = child;
  if (pid === undefined) throw unavailable(path, 'the program could not be run');
  watch({ pid, signal: 'SIGTERM' });
  const end = new Promise<void>((resolve) => {
    child.once('exit', () => {
      release(pid);
      resolve();
    });
  });
  const port = await portOf(child, path);
  return {
    pid,
    port,
    get ended() {
      return child.exitCode !== null || child.signalCode !== null;
    },
    stop: async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_GRACE_MS);
      await end;
      clearTimeout(timer);
    },
  };
}

/** For the module: says the port to the parent, and ends when told to or when the parent is gone. */
export function listening(port: number, close: () => Promise<void>): void {
  process.send?.({ port });
  const end = (): void => {
    void close().finally(() => process.exit());
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'disconnect'] as const) process.once(signal, end);
}

function portOf(child: ChildProcess, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const fail = (problem: string): void => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      reject(unavailable(path, problem));
    };
    const timer = setTimeout(() => {
      fail('it does not say that it listens');
    }, START_DEADLINE_MS);
    const onExit = (): void => {
      fail('it ended at its start');
    };
    child.once('exit', onExit);
    child.once('message', (message: { readonly port: number }) => {
      clearTimeout(timer);
      child.off('exit', onExit);
      resolve(message.port);
    });
  });
}

function unavailable(server: string, problem: string): CutoverError {
  return new CutoverError('dev_server_unavailable', { server, problem, remedy: 'Its reason is above.' });
}
