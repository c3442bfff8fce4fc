/** One task: be a node in another process: each call is one command on its admin database, which a person could type too. */
import type { Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { Connections } from '../postgres/connections.js';
import type { Endpoint } from '../postgres/endpoint.js';
import { quoteLiteral } from '../postgres/connection.js';
import type { FleetNode, NodeState, PauseAnswer, PauseRequest, SwapRequest } from './node.js';

export class RemoteNode implements FleetNode {
  readonly name: string;
  readonly #endpoint: Endpoint;
  readonly #connections = new Connections({ applicationName: 'cutover engine', queryTimeoutMs: 15_000 });

  constructor(name: string, endpoint: Endpoint) {
    this.name = name;
    this.#endpoint = endpoint;
  }

  state(database: string): Promise<NodeState> {
    return this.#call('state', { database });
  }

  prepare(request: SwapRequest): Promise<void> {
    return this.#call('prepare', request);
  }

  pause(request: PauseRequest): Promise<PauseAnswer> {
    return this.#call('pause', request);
  }

  /** On a connection of its own: a renewal must not queue behind a pause that drains. */
  renew(database: string, epoch: number, leaseMs: number): Promise<boolean> {
    return this.#call('renew', { database, epoch, leaseMs }, 'watch');
  }

  swap(request: SwapRequest): Promise<void> {
    return this.#call('swap', request);
  }

  resume(database: string, epoch: number, serving: Side): Promise<void> {
    return this.#call('resume', { database, epoch, serving });
  }

  async #call<T>(method: string, argument: object, purpose: 'record' | 'watch' = 'record'): Promise<T> {
    try {
      const connection = await this.#connections.get(this.#endpoint, purpose);
      const { rows } = await connection.query<{ result: string }>(
        `CUTOVER_NODE ${method} ${quoteLiteral(JSON.stringify(argument))}`,
      );
      return JSON.parse(rows[0]?.result ?? 'null') as T;
    } catch (error) {
      throw this.#readable(error);
    }
  }

  /** The refusal of a dead epoch is something the engine acts on, so it keeps its code. */
  #readable(error: unknown): Error {
    const text = messageOf(error);
    const closed = /^epoch (\d+) is over \((.*)\)$/.exec(text);
    if (closed) return new CutoverError('epoch_closed', { epoch: closed[1] ?? '', state: closed[2] ?? '' });
    return new CutoverError('node_unreachable', { node: this.name, problem: text });
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }
}
