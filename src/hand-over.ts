/**
 * One task: hand a node's clients over to a process that this one starts: what the two tell each other, and what ends their waiting.
 *
 * The process after asks for each listening socket when it is about to listen, so that it never has one it does not yet accept from. Node passes
 * sockets over the channel between a process and its child alone, hence the process before starts the one after. Whoever dies first leaves
 * the other one serving.
 */
import { fork, type ChildProcess } from 'node:child_process';
import type { AddressInfo, Server } from 'node:net';
import { CutoverError } from './errors/errors.js';
import type { Inherit } from './proxy/inherited.js';

/** Set for a process that was started to take over. */
const SUCCESSOR = 'CUTOVER_SUCCESSOR';
/** From its start to the moment when it serves: it reads its files and asks the record. */
const READY_DEADLINE_MS = 60_000;
const ANSWER_DEADLINE_MS = 5_000;

type FromSuccessor = { readonly type: 'listener'; readonly port: number } | { readonly type: 'ready' };
/** With the listener, or without where nobody listens at the port. */
interface ToSuccessor {
  readonly type: 'listener';
}

/** The process that started this one to take over from it. */
export class Predecessor {
  /** resolves when it has ended */
  readonly gone: Promise<void>;

  private constructor() {
    this.gone = new Promise((resolve) => {
      process.once('disconnect', resolve);
      if (!process.connected) resolve();
    });
  }

  /** Of this process; null where a person or a supervisor started it. To be called once: who is started by this one is asked anew. */
  static take(): Predecessor | null {
    const isSuccessor = process.env[SUCCESSOR] !== undefined && process.send !== undefined;
    Reflect.deleteProperty(process.env, SUCCESSOR);
    return isSuccessor ? new Predecessor() : null;
  }

  /** Its listener at `port`, from which this process accepts as soon as it has it; null where it has none, or is gone. One call at a time. */
  readonly inherit: Inherit = async (port) => {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(resolve, ANSWER_DEADLINE_MS, null);
      void this.gone.then(() => {
        resolve(null);
      });
    });
    const answered = new Promise<Server | null>((resolve) => {
      process.once('message', (_: ToSuccessor, listener: Server | undefined) => {
        resolve(listener ?? null);
      });
    });
    tell({ type: 'listener', port });
    const listener = await Promise.race([answered, late]);
    clearTimeout(timer);
    return listener;
  };

  /** This process serves: the one before may stop accepting. */
  ready(): void {
    tell({ type: 'ready' });
  }
}

function tell(message: FromSuccessor): void {
  // It may be gone: then nobody has to be told.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

/**
 * Starts the program again with the arguments of this process, which may be another version by now, and lends it the listeners. Resolves with its
 * process id once it serves too.
 *
 * @throws CutoverError `successor_failed`; then it has ended, and this process is what it was
 */
export async function startSuccessor(listeners: readonly Server[]): Promise<number> {
  const [, program = '', ...args] = process.argv;
  const child = fork(program, args, {
    env: { ...process.env, [SUCCESSOR]: process.pid.toString() },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const fail = (problem: string): void => {
        reject(new CutoverError('successor_failed', { problem }));
      };
      timer = setTimeout(fail, READY_DEADLINE_MS, `it does not serve after ${READY_DEADLINE_MS.toString()} ms`);
      child.once('error', (error) => {
        fail(error.message);
      });
      child.once('exit', (code, signal) => {
        fail(`it ended with ${signal ?? String(code)}; its log says why`);
      });
      child.on('message', (message: FromSuccessor) => {
        if (message.type === 'ready') resolve();
        else lend(child, listeners, message.port);
      });
    });
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return child.pid ?? 0;
}

function lend(child: ChildProcess, listeners: readonly Server[], port: number): void {
  const listener = listeners.find((each) => (each.address() as AddressInfo | null)?.port === port);
  child.send({ type: 'listener' } satisfies ToSuccessor, listener, (error) => {
    // It ends, and that is noticed; or it waits in vain, and listens by itself.
    if (error) child.kill('SIGTERM');
  });
}
