/** One task: answer for all workers that share a port: each is asked, and one that does not answer is named. */
import { familiesOfWorkers } from './monitoring/families.js';
import type { Watched } from './monitoring/monitoring.js';
import { exposition } from './monitoring/openmetrics.js';
import type { Phase, Readiness } from './monitoring/readiness.js';
import type { Supervisor } from './supervisor.js';

export class WorkersWatch implements Watched {
  readonly #supervisor: Supervisor;
  readonly #namespace: () => string;
  /** who asks meanwhile gets the same answer */
  #readiness: Promise<Readiness> | null = null;
  #metrics: Promise<string> | null = null;

  constructor(supervisor: Supervisor, namespace: () => string) {
    this.#supervisor = supervisor;
    this.#namespace = namespace;
  }

  get phase(): Phase {
    return this.#supervisor.phase;
  }

  readiness(): Promise<Readiness> {
    return (this.#readiness ??= this.#askReadiness().finally(() => (this.#readiness = null)));
  }

  metrics(): Promise<string> {
    return (this.#metrics ??= this.#askFigures().finally(() => (this.#metrics = null)));
  }

  /** Clients go to workers that take them: one that serves is enough, and the others are named. */
  async #askReadiness(): Promise<Readiness> {
    const answers = this.phase === 'ending' ? [] : await this.#supervisor.ask('readiness');
    const { phase } = this;
    if (phase === 'ending') return { ready: false, reasons: ['shutting down'] };
    if (phase === 'starting') return { ready: false, reasons: ['starting: not every worker listens'] };
    const reasons = answers.flatMap(({ worker, answer }) =>
      (answer?.reasons ?? ['does not answer']).map((reason) => `worker ${worker}: ${reason}`),
    );
    return { ready: answers.some(({ answer }) => answer?.ready === true), reasons };
  }

  async #askFigures(): Promise<string> {
    const answers = await this.#supervisor.ask('figures');
    const workers = answers.map(({ worker, answer }) => ({ worker, figures: answer }));
    return exposition(familiesOfWorkers(workers), this.#namespace());
  }
}
