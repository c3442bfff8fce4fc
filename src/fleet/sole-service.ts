/** One task: know whether another process serves the clients of this node beside this one, so that no cutover begins meanwhile. */
import { CutoverError } from '../errors/errors.js';

/**
 * While a node is handed over two processes serve its clients, and the engine reaches one of them: the other one would hold nobody. So both
 * refuse to be asked and to pause until one of them is gone.
 */
export class SoleService {
  #shared = false;

  /** Another process serves too, from now on until it is {@link alone} again. May be called again. */
  share(): void {
    this.#shared = true;
  }

  /** May be called again. */
  alone(): void {
    this.#shared = false;
  }

  /** @throws CutoverError `node_handed_over` */
  expect(node: string): void {
    if (this.#shared) throw new CutoverError('node_handed_over', { node });
  }
}
