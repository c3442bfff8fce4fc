/** One task: the way to Temporal over which a call can be made to take longer, as to a server in another region. */
import { ChaosProxy } from '../src/dev/chaos-proxy.js';

export class SlowTemporal {
  /** how much longer a call takes while it is slowed */
  readonly delayMs: number;
  #way: ChaosProxy | null = null;

  constructor(delayMs: number) {
    this.delayMs = delayMs;
  }

  /** Answers the address that leads to `address` over this way; slowed from the beginning. Not to be called twice. */
  async to(address: string): Promise<string> {
    const { hostname, port } = new URL(`http://${address}`);
    // A call and its answer: half of the delay in each direction.
    this.#way = await ChaosProxy.listen(Number(port), { slowMs: this.delayMs / 2 });
    this.slow(true);
    return `${hostname}:${this.#way.port.toString()}`;
  }

  /** Present connections and new ones. */
  slow(slowed: boolean): void {
    this.#way?.set(slowed && this.delayMs > 0 ? 'slow' : 'calm');
  }

  /** May be called again. */
  async end(): Promise<void> {
    const way = this.#way;
    this.#way = null;
    await way?.close();
  }
}
