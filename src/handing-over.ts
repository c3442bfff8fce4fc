/** One task: hand this process's clients over when it is told to: refuse where that is not safe, start the next process, let the clients leave. */
import { CutoverError, messageOf } from './errors/errors.js';
import { startSuccessor } from './hand-over.js';
import type { Logger } from './proxy/logger.js';
import type { Served } from './serve.js';

export class HandingOver {
  readonly #served: Served;
  readonly #logger: Logger;
  readonly #forbidden: string | null;
  #underWay = false;
  #done: () => void = () => undefined;
  /** resolves when the other process serves and this one's clients have left, or had their time */
  readonly done = new Promise<void>((resolve) => {
    this.#done = resolve;
  });

  /** @param forbidden why this process cannot be followed by another one; null where it can */
  constructor(served: Served, logger: Logger, forbidden: string | null) {
    this.#served = served;
    this.#logger = logger;
    this.#forbidden = forbidden;
  }

  /** Hands over, or says in the log why not. May be called again. Never rejects. */
  readonly asked = async (): Promise<void> => {
    if (this.#underWay) return;
    this.#underWay = true;
    const { proxy, node, monitoring } = this.#served;
    try {
      this.#expectSafe();
      node.service.share();
      const successor = await startSuccessor([proxy.listener, ...(monitoring?.servers ?? [])]).catch(
        (error: unknown) => {
          node.service.alone();
          throw error;
        },
      );
      this.#logger.info({ successor }, 'another process serves: no new client is taken');
      await this.#served.retire();
      this.#done();
    } catch (error) {
      this.#logger.error({ problem: messageOf(error) }, 'not handed over');
      this.#underWay = false;
    }
  };

  /** The next process knows nothing of what is held in the memory of this one, and no cutover may be on its way in either. */
  #expectSafe(): void {
    const { proxy, node } = this.#served;
    if (this.#forbidden !== null) throw new CutoverError('successor_failed', { problem: this.#forbidden });
    node.service.expect(node.name);
    for (const name of new Set(proxy.config.databases.map((database) => database.name))) {
      const { reasons } = proxy.gate(name);
      if (reasons.length === 0) continue;
      throw new CutoverError('successor_failed', { problem: `clients of "${name}" are held (${reasons.join(', ')})` });
    }
  }
}
