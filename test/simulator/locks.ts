/** One task: the locks of one database: first come, first served, as PostgreSQL's lock queue is. */

export type LockMode = 'shared' | 'exclusive';

interface Waiting {
  readonly holder: object;
  readonly mode: LockMode;
  readonly granted: () => void;
}

interface Queue {
  readonly holders: Map<object, LockMode>;
  readonly waiting: Waiting[];
}

export class Locks {
  readonly #queues = new Map<string, Queue>();

  /** Calls `granted`, now or later. @returns a function that gives up waiting */
  acquire(holder: object, key: string, mode: LockMode, granted: () => void): () => void {
    let queue = this.#queues.get(key);
    if (!queue) {
      queue = { holders: new Map(), waiting: [] };
      this.#queues.set(key, queue);
    }
    const own = queue.holders.get(holder);
    if (own === 'exclusive' || own === mode) {
      granted();
      return () => undefined;
    }
    const request = { holder, mode, granted };
    queue.waiting.push(request);
    this.#serve(queue);
    const { waiting } = queue;
    return () => {
      const index = waiting.indexOf(request);
      if (index >= 0) waiting.splice(index, 1);
    };
  }

  isHeldByAnother(holder: object, key: string): boolean {
    const holders = this.#queues.get(key)?.holders.keys() ?? [];
    return [...holders].some((other) => other !== holder);
  }

  release(holder: object): void {
    for (const queue of this.#queues.values()) {
      queue.holders.delete(holder);
      for (let index = queue.waiting.length - 1; index >= 0; index--)
        if (queue.waiting[index]?.holder === holder) queue.waiting.splice(index, 1);
      this.#serve(queue);
    }
  }

  #serve(queue: Queue): void {
    for (;;) {
      const [next] = queue.waiting;
      if (!next) return;
      const others = [...queue.holders].filter(([holder]) => holder !== next.holder);
      const free = next.mode === 'shared' ? others.every(([, mode]) => mode === 'shared') : others.length === 0;
      if (!free) return;
      queue.waiting.shift();
      queue.holders.set(next.holder, next.mode);
      next.granted();
    }
  }
}
