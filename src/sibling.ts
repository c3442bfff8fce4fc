/** One task: be one of several workers that share a port: tell the supervisor where this one is reached, hear of the others, answer it. */
import type { LoggingConfig } from './config/config.js';
import type { Member } from './fleet/node.js';
import type { Siblings } from './fleet/local-node.js';
import type { Figures } from './monitoring/figures.js';
import type { LocalWatch } from './monitoring/monitoring.js';
import type { Readiness } from './monitoring/readiness.js';

/** What a supervisor asks its workers, and what each answers. */
export interface Answers {
  readonly figures: Figures;
  readonly readiness: Readiness;
}

/** What a worker tells its supervisor. */
export type FromWorker =
  | { readonly type: 'listening'; readonly port: number; readonly sharedPort: number }
  | { readonly type: 'shutdown' }
  /** a configuration was put into force: what of it concerns the supervisor */
  | { readonly type: 'configured'; readonly logging: LoggingConfig; readonly namespace: string }
  | { readonly type: 'answer'; readonly id: number; readonly answer: Answers[keyof Answers] };

/** What the supervisor tells every worker. */
export type ToWorker =
  | { readonly type: 'members'; readonly members: readonly Member[] }
  | { readonly type: 'ask'; readonly id: number; readonly what: keyof Answers };

/** The environment variable that makes a process the n-th worker. */
export const WORKER_NUMBER = 'CUTOVER_WORKER_NUMBER';

/** Where an embedded Temporal of the supervisor listens. */
export const WORKER_TEMPORAL = 'CUTOVER_WORKER_TEMPORAL';

export class Sibling implements Siblings {
  readonly name: string;
  readonly savesFiles: boolean;
  /** asked for the supervisor; it gets no answer until there is one */
  watch: LocalWatch | null = null;
  #members: readonly Member[] = [];

  /** @param row the name of the node these workers are together */
  constructor(row: string, number: number) {
    this.name = `${row}/${number.toString()}`;
    this.savesFiles = number === 1;
    process.on('message', (message: ToWorker) => {
      if (message.type === 'members') this.#members = message.members;
      else void this.#answer(message.id, message.what);
    });
  }

  members(): readonly Member[] {
    return this.#members;
  }

  listening(port: number, sharedPort: number): void {
    tell({ type: 'listening', port, sharedPort });
  }

  configured(logging: LoggingConfig, namespace: string): void {
    tell({ type: 'configured', logging, namespace });
  }

  shutdown(): void {
    tell({ type: 'shutdown' });
  }

  async #answer(id: number, what: keyof Answers): Promise<void> {
    const { watch } = this;
    if (watch === null) return;
    tell({ type: 'answer', id, answer: what === 'figures' ? watch.figures() : await watch.readiness() });
  }
}

function tell(message: FromWorker): void {
  // The supervisor may be gone, which ends this process.
  if (process.connected) process.send?.(message);
}
