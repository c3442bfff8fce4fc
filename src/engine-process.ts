/**
 * One task: run the engine in a process of its own beside the proxy: start it, start it again when it dies, tell it by what the proxy goes.
 *
 * What a worker does at once, as the answer of a thousand tables, would hold up every client of its process. The engine reaches the
 * proxy as one that runs on another machine does, over the admin database; what it knows before the files do, as a switch that was
 * not saved, and an admin password that was made up, it is told over the channel between a process and its child.
 */
import { fork, type ChildProcess, type StdioOptions } from 'node:child_process';
import { constants, getPriority, setPriority } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Config, TemporalConfig } from './config/config.js';
import { messageOf } from './errors/errors.js';
import type { Logger } from './proxy/logger.js';

/** What a proxy tells its engine. The first message is `start`. */
export type ToEngine =
  | {
      readonly type: 'start';
      readonly config: Config;
      /** the name of the proxy where it has no row of [[nodes]] */
      readonly row: string;
      /** where the proxy listens, which a socket that was handed to it decides and not the file */
      readonly host: string;
      readonly port: number;
      /** given on the command line: wins over the configuration */
      readonly logLevel: string | undefined;
    }
  /** `reloaded`: other servers may stand at its addresses */
  | { readonly type: 'configuration'; readonly config: Config; readonly reloaded: boolean }
  | { readonly type: 'stop' };

export type EngineStart = Omit<Extract<ToEngine, { type: 'start' }>, 'type' | 'config'> & {
  /** what the proxy goes by now */
  readonly config: () => Config;
  readonly logger: Logger;
};

const PROGRAM = fileURLToPath(new URL('./engine-program.js', import.meta.url));
/**
 * Below the proxy: where both want a processor, clients come first. In a pause nobody else wants it, so that a switch takes no longer; on
 * processors that other programs keep busy it takes up to a third longer (docs/decisions/0053).
 */
const NICE = 10;
const RESTART_MS = 2_000;
/** Its worker gives what it does three seconds to end. */
const END_MS = 6_000;

export class EngineProcess {
  readonly #start: EngineStart;
  readonly #stopping = new AbortController();
  readonly #kept: Promise<void>;
  /** of the start: the proxy stays with that one, and both have to meet at the same queue */
  readonly #temporal: TemporalConfig;
  #child: ChildProcess | null = null;

  /** Starts it, and keeps it running until it is stopped. */
  constructor(start: EngineStart) {
    this.#start = start;
    this.#temporal = start.config().temporal;
    this.#kept = this.#keep();
  }

  /**
   * The proxy goes by another configuration.
   *
   * @param reloaded the files were read again: other servers may stand at the addresses
   */
  configured(config: Config, reloaded: boolean): void {
    this.#tell({ type: 'configuration', config: this.#asStarted(config), reloaded });
  }

  #asStarted(config: Config): Config {
    return { ...config, temporal: this.#temporal };
  }

  /** Resolves once it has ended: by itself, or by SIGKILL when that takes too long. May be called again. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#tell({ type: 'stop' });
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), END_MS);
    await this.#kept;
    clearTimeout(timer);
  }

  /** Without a limit on how often: traffic goes on meanwhile, and moves wait. */
  async #keep(): Promise<void> {
    const { logger } = this.#start;
    const { signal: stopping } = this.#stopping;
    while (!stopping.aborted) {
      const how = await this.#runOnce().catch((error: unknown) => ({ problem: messageOf(error) }));
      if (this.#stopping.signal.aborted) return;
      logger.warn(how, 'the engine has ended and is started again: moves wait, traffic goes on');
      await delay(RESTART_MS, undefined, { signal: stopping }).catch(() => undefined);
    }
  }

  /** Resolves with how it has ended. @throws what fork() throws: no process is to be had */
  async #runOnce(): Promise<object> {
    const { config, row, host, port, logLevel } = this.#start;
    // A debugger of the proxy has the port that it was given.
    const execArgv = process.execArgv.filter((argument) => !argument.startsWith('--inspect'));
    const stdio: StdioOptions = ['ignore', 'inherit', 'inherit', 'ipc'];
    const child = fork(PROGRAM, { execArgv, serialization: 'advanced', stdio });
    this.#child = child;
    this.#lower(child);
    this.#tell({ type: 'start', config: this.#asStarted(config()), row, host, port, logLevel });
    return new Promise((resolve) => {
      child.once('error', ({ message }) => {
        resolve({ problem: message });
      });
      child.once('exit', (code, signal) => {
        resolve({ code, signal });
      });
    });
  }

  #lower({ pid }: ChildProcess): void {
    if (pid === undefined) return;
    try {
      setPriority(pid, Math.min(getPriority() + NICE, constants.priority.PRIORITY_LOW));
    } catch (error) {
      this.#start.logger.warn({ problem: messageOf(error) }, 'the engine runs at the priority of the proxy');
    }
  }

  #tell(message: ToEngine): void {
    // One that has just died is started again with what is in force then.
    if (this.#child?.connected === true) this.#child.send(message, () => undefined);
  }
}
