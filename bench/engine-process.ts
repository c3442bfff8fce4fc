/** One task: start the engine in a process of its own, tell it where to die, and see it dead. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ConfigFiles } from '../src/config/load.js';
import type { Step } from '../src/cutover/epoch.js';
import { nowMs } from '../src/dev/ledger/book.js';
import { release, watch } from '../src/dev/guardian.js';
import { holdsWithin } from '../src/dev/processes.js';

const ANSWER_DEADLINE_MS = 60_000;
const LOG_TAIL_CHARACTERS = 2_000;

export class EngineProcess {
  readonly #child: ChildProcess;
  readonly #logFile: string;
  readonly #heard: unknown[] = [];
  #endedAtMs: number | null = null;

  private constructor(child: ChildProcess, logFile: string) {
    this.#child = child;
    this.#logFile = logFile;
    const { pid } = child;
    if (pid !== undefined) watch({ pid, signal: 'SIGKILL' });
    child.on('error', () => undefined);
    child.on('message', (message) => this.#heard.push(message));
    child.once('exit', () => {
      this.#endedAtMs = nowMs();
      if (pid !== undefined) release(pid);
    });
  }

  /** Resolves once it asks Temporal for work. It ends with this process, however that ends. @throws Error with the end of its log */
  static async start(files: ConfigFiles, logFile: string): Promise<EngineProcess> {
    const module = fileURLToPath(new URL('./engine.js', import.meta.url));
    const log = openSync(logFile, 'a', 0o600);
    const child = spawn(process.execPath, [module, files.config, files.users], { stdio: ['ignore', log, log, 'ipc'] });
    closeSync(log);
    const engine = new EngineProcess(child, logFile);
    await engine.#hear('ready');
    return engine;
  }

  /** It kills itself at the beginning of the next `step`; resolves once it knows. */
  async dieAt(step: Step): Promise<void> {
    this.#child.send(step);
    await this.#hear('armed');
  }

  /** Resolves with the time of its death. @throws Error when it lives at the deadline, or ended in another way */
  async killedWithin(deadlineMs: number): Promise<number> {
    await holdsWithin(() => this.#endedAtMs !== null, deadlineMs);
    if (this.#endedAtMs === null) throw new Error(`the engine did not come to its step: ${this.#logTail}`);
    if (this.#child.signalCode !== 'SIGKILL') throw new Error(`the engine ended by itself: ${this.#logTail}`);
    return this.#endedAtMs;
  }

  /** May be called again. */
  async end(): Promise<void> {
    if (this.#endedAtMs === null) this.#child.kill('SIGKILL');
    await holdsWithin(() => this.#endedAtMs !== null, ANSWER_DEADLINE_MS);
  }

  async #hear(word: string): Promise<void> {
    const heard = await holdsWithin(() => this.#heard.includes(word) || this.#endedAtMs !== null, ANSWER_DEADLINE_MS);
    if (heard && this.#heard.includes(word)) return;
    await this.end();
    throw new Error(`the engine is not ${word}: ${this.#logTail}`);
  }

  get #logTail(): string {
    return readFileSync(this.#logFile, 'utf8').slice(-LOG_TAIL_CHARACTERS);
  }
}
