/** One task: run the program of one driver: hear what it prints, tell it to end, and know what it said when it does not. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { release, watch } from '../../src/dev/guardian.js';
import { invariant } from '../../src/errors/invariant.js';
import { until } from '../support/wait.js';
import type { Command } from './drivers.js';

/** Of a feature, by one way. */
export interface Outcome {
  readonly via: 'direct' | 'proxy';
  readonly feature: string;
  /** null: the driver does not have it */
  readonly ok: boolean | null;
  readonly detail?: string;
  /** of the loop: how many of its numbers were acknowledged */
  readonly acknowledged?: number;
}

type Line = Outcome | { readonly begun: true };

/** All features have been run by then; on a busy machine that takes a while. */
const BEGUN_DEADLINE_MS = 150_000;
const END_DEADLINE_MS = 30_000;
const LAST_WORDS_CHARACTERS = 2_000;

export class Program {
  readonly outcomes: Outcome[] = [];
  readonly #name: string;
  readonly #process: ChildProcess;
  #begun = false;
  #exit: { readonly code: number | NodeJS.Signals } | null = null;
  #complaints = '';

  /** @param env where it connects */
  constructor(name: string, { program, args, env }: Command, where: NodeJS.ProcessEnv) {
    this.#name = name;
    const child = spawn(program, [...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...where, ...env, CLIENT: name },
    });
    this.#process = child;
    const { pid } = child;
    invariant(pid !== undefined, `the program of ${name} runs`);
    watch({ pid, signal: 'SIGKILL' });
    child.stdin.on('error', () => undefined);
    child.stderr.on('data', (chunk: Buffer) => (this.#complaints += chunk.toString()));
    createInterface({ input: child.stdout }).on('line', (text) => {
      this.#heard(text);
    });
    child.once('close', (code, signal) => {
      release(pid);
      this.#exit = { code: code ?? signal ?? 1 };
    });
  }

  /** Waits until its features have been run and it writes, or it has ended. One that hangs is killed, and its verdicts are missing. */
  async begun(): Promise<void> {
    await this.#until(() => this.#begun, BEGUN_DEADLINE_MS);
  }

  /** Tells it to write no more, and waits for its verdict, as above. */
  async end(): Promise<void> {
    this.#process.stdin?.end();
    await this.#until(() => false, END_DEADLINE_MS);
  }

  /** It writes no more. */
  get over(): boolean {
    return this.#exit !== null || this.outcomes.some(({ feature }) => feature === 'cutover');
  }

  kill(): void {
    if (this.#exit === null) this.#process.kill('SIGKILL');
  }

  /** What it printed beside its outcomes, and how it ended. */
  get lastWords(): string {
    const ending = this.#exit === null ? 'runs' : `ended with ${this.#exit.code.toString()}`;
    return `${this.#name} ${ending}: ${this.#complaints.slice(-LAST_WORDS_CHARACTERS)}`;
  }

  #heard(text: string): void {
    if (!text.startsWith('{')) {
      this.#complaints += `${text}\n`;
      return;
    }
    const line = JSON.parse(text) as Line;
    if ('begun' in line) this.#begun = true;
    else this.outcomes.push(line);
  }

  async #until(condition: () => boolean, deadlineMs: number): Promise<void> {
    try {
      await until('the program goes on', () => condition() || this.#exit !== null, deadlineMs);
    } catch {
      this.#complaints += `it hung behind ${this.outcomes.at(-1)?.feature ?? 'its start'} and was killed`;
      this.kill();
    }
  }
}
