/** One task: the worker of a system in a process of its own, to be killed without a word and replaced. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Step } from '../../src/cutover/epoch.js';
import { invariant } from '../../src/errors/invariant.js';
import { spawnScript, type Child } from './child.js';
import type { System } from './served.js';
import { until } from './wait.js';

const PROGRAM = fileURLToPath(new URL('faults-worker.ts', import.meta.url));
const READY = 'the worker runs';
const START_DEADLINE_MS = 40_000;

export class WorkerProcess {
  readonly #system: System;
  readonly #fault: string;
  #child: Child | null = null;

  constructor(system: System) {
    this.#system = system;
    this.#fault = join(system.directory, 'fault');
  }

  /** Starts a worker that finds the proxy's admin database where it really listens. */
  async start(): Promise<void> {
    const { files, address, temporal } = this.#system;
    const port = address.port.toString();
    const child = spawnScript(PROGRAM, [files.config, files.users, temporal.address, this.#fault, port]);
    this.#child = child;
    await until(
      'the worker process is ready',
      () => {
        if (child.process.exitCode !== null) throw new Error(child.output());
        return child.output().includes(READY);
      },
      START_DEADLINE_MS,
    );
  }

  /** The worker kills itself at the beginning of the next `step`. */
  dieAt(step: Step): void {
    writeFileSync(this.#fault, step);
  }

  /** Resolves once the worker is dead by its own hand. */
  async died(): Promise<void> {
    invariant(this.#child, 'a worker was started');
    const { ended, process: worker } = this.#child;
    await ended;
    invariant(worker.signalCode === 'SIGKILL', `the worker ended by itself: ${this.#child.output()}`);
    this.#child = null;
  }

  async kill(): Promise<void> {
    this.#child?.process.kill('SIGKILL');
    await this.#child?.ended;
    this.#child = null;
  }
}
