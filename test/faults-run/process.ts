/** One task: one process of the product, to be killed, frozen and started again. */
import { invariant } from '../../src/errors/invariant.js';
import { spawnScript, type Child } from '../support/child.js';
import { until } from '../support/wait.js';
import { READY, type ProgramOptions } from './program-options.js';

const START_DEADLINE_MS = 60_000;

export class ProgramProcess {
  readonly name: string;
  readonly options: ProgramOptions;
  readonly #program: string;
  #child: Child | null = null;
  #earlier = '';

  constructor(program: string, options: ProgramOptions) {
    this.name = options.name;
    this.options = options;
    this.#program = program;
  }

  async start(): Promise<void> {
    const child = spawnScript(this.#program, [JSON.stringify(this.options)]);
    this.#child = child;
    await until(
      `process ${this.name} is ready`,
      () => {
        if (child.process.exitCode !== null) throw new Error(child.output());
        return child.output().includes(READY);
      },
      START_DEADLINE_MS,
    );
  }

  get pid(): number {
    const pid = this.#child?.process.pid;
    invariant(pid !== undefined, `process ${this.name} runs`);
    return pid;
  }

  /** False once it has ended by itself or was killed. */
  get running(): boolean {
    const child = this.#child;
    return child !== null && child.process.exitCode === null && child.process.signalCode === null;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.process.kill(signal);
  }

  /** SIGKILL, and waits for the end; may be called again. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child) return;
    child.process.kill('SIGKILL');
    await child.ended;
    this.#earlier += child.output();
    this.#child = null;
  }

  /** What it printed, over all its lives. */
  get output(): string {
    return this.#earlier + (this.#child?.output() ?? '');
  }
}
