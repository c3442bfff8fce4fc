/** One task: be one of several workers that share a port: tell the supervisor where this one is reached, hear of the others. */
import type { Member } from './fleet/node.js';
import type { Siblings } from './fleet/local-node.js';

/** What a worker tells its supervisor. */
export type FromWorker =
  { readonly type: 'listening'; readonly port: number; readonly sharedPort: number } | { readonly type: 'shutdown' };

/** What the supervisor tells every worker. */
export interface ToWorker {
  readonly type: 'members';
  readonly members: readonly Member[];
}

/** The environment variable that makes a process the n-th worker. */
export const WORKER_NUMBER = 'CUTOVER_WORKER_NUMBER';

/** Where an embedded Temporal of the supervisor listens. */
export const WORKER_TEMPORAL = 'CUTOVER_WORKER_TEMPORAL';

export class Sibling implements Siblings {
  readonly name: string;
  readonly savesFiles: boolean;
  #members: readonly Member[] = [];

  /** @param row the name of the node these workers are together */
  constructor(row: string, number: number) {
    this.name = `${row}/${number.toString()}`;
    this.savesFiles = number === 1;
    process.on('message', (message: ToWorker) => {
      this.#members = message.members;
    });
  }

  members(): readonly Member[] {
    return this.#members;
  }

  listening(port: number, sharedPort: number): void {
    tell({ type: 'listening', port, sharedPort });
  }

  shutdown(): void {
    tell({ type: 'shutdown' });
  }
}

function tell(message: FromWorker): void {
  process.send?.(message);
}
