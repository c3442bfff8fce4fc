/** One task: be a node in another process: each call is one command on its admin database, which a person could type too. */
import type { Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { Connections, type Purpose } from '../postgres/connections.js';
import type { Endpoint } from '../postgres/endpoint.js';
import { quoteLiteral, type Connection } from '../postgres/connection.js';
import type { AdminResult } from '../proxy/contract.js';
import type { FleetNode, Member, NodeState, PauseAnswer, PauseRequest, SwapRequest } from './node.js';

const CONNECT_TIMEOUT_MS = 2_000;
const LOOK_DEADLINE_MS = 2_000;
const PREPARE_DEADLINE_MS = 15_000;
/** What a node that works needs at most beyond the drain. */
const PAUSE_MARGIN_MS = 1_000;
/** After the decision: a node that does not answer in this time resolves the epoch by its own lease. */
const TURN_DEADLINE_MS = 1_000;

/** What must not queue behind anything else has a connection of its own. */
const IN_A_PAUSE = ['pause', 'renew'] as const;

export class RemoteNode implements FleetNode {
  readonly name: string;
  readonly #endpoint: () => Endpoint;
  /** by database: what one waits for must not hold up another one's pause; empty: what concerns them all */
  readonly #connections = new Map<string, Connections>();

  /** @param endpoint where its admin database is, and by which password; asked for each new connection */
  constructor(name: string, endpoint: () => Endpoint) {
    this.name = name;
    this.#endpoint = endpoint;
  }

  members(): Promise<readonly Member[]> {
    return this.#call('members', {}, LOOK_DEADLINE_MS);
  }

  state(database: string): Promise<NodeState> {
    return this.#call('state', { database }, LOOK_DEADLINE_MS);
  }

  states(): Promise<readonly NodeState[]> {
    return this.#call('states', {}, LOOK_DEADLINE_MS);
  }

  /** Opens too what the pause will be told over: a login takes as long as several of its steps. */
  async prepare(request: SwapRequest): Promise<void> {
    const connections = this.#connectionsOf(request.database);
    const opened = IN_A_PAUSE.map((purpose) => connections.get(this.#endpoint(), purpose));
    const prepared = this.#call('prepare', request, PREPARE_DEADLINE_MS);
    try {
      await Promise.all([prepared, ...opened]);
    } catch (error) {
      await prepared;
      throw this.#readable(error);
    }
  }

  save(database: string): Promise<void> {
    return this.#call('save', { database }, PREPARE_DEADLINE_MS);
  }

  pause(request: PauseRequest): Promise<PauseAnswer> {
    return this.#call('pause', request, request.drainMs + PAUSE_MARGIN_MS, 'pause');
  }

  /** On a connection of its own: a renewal must not queue behind a pause that drains. */
  renew(database: string, epoch: number, leaseMs: number): Promise<boolean> {
    return this.#call('renew', { database, epoch, leaseMs }, leaseMs / 3, 'renew');
  }

  swap(request: SwapRequest): Promise<void> {
    return this.#call('swap', request, TURN_DEADLINE_MS);
  }

  resume(database: string, epoch: number, serving: Side): Promise<void> {
    return this.#call('resume', { database, epoch, serving }, TURN_DEADLINE_MS);
  }

  /** One command of the admin database on this worker alone. */
  async execute(statement: string): Promise<AdminResult> {
    return this.#call('execute', { statement }, PREPARE_DEADLINE_MS);
  }

  /** A call without an answer in time gives its connection up: what follows must not queue behind it. */
  async #call<T>(method: string, argument: object, deadlineMs: number, purpose: Purpose = 'record'): Promise<T> {
    const connections = this.#connectionsOf(databaseOf(argument));
    const endpoint = this.#endpoint();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        void connections.discard(endpoint, purpose);
        reject(new Error(`no answer within ${Math.round(deadlineMs).toString()} ms`));
      }, deadlineMs);
    });
    try {
      return await Promise.race([ask<T>(connections.get(endpoint, purpose), method, argument), late]);
    } catch (error) {
      throw this.#readable(error);
    } finally {
      clearTimeout(timer);
    }
  }

  #connectionsOf(database: string): Connections {
    let connections = this.#connections.get(database);
    if (connections === undefined) {
      const deadlines = { connectTimeoutMs: CONNECT_TIMEOUT_MS, queryTimeoutMs: PREPARE_DEADLINE_MS };
      connections = new Connections({ applicationName: 'cutover engine', ...deadlines });
      this.#connections.set(database, connections);
    }
    return connections;
  }

  /** The refusal of a dead epoch, or by a node that is being handed over, is something the engine acts on, so it keeps its code. */
  #readable(error: unknown): Error {
    const text = messageOf(error);
    const closed = /^epoch (\d+) is over \((.*)\)$/.exec(text);
    if (closed) return new CutoverError('epoch_closed', { epoch: closed[1] ?? '', state: closed[2] ?? '' });
    const handedOver = /^node (\S+) is being handed over/.exec(text);
    if (handedOver) return new CutoverError('node_handed_over', { node: handedOver[1] ?? '' });
    return new CutoverError('node_unreachable', { node: this.name, problem: text });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#connections.values()].map((connections) => connections.close()));
  }
}

function databaseOf(argument: object): string {
  return 'database' in argument && typeof argument.database === 'string' ? argument.database : '';
}

async function ask<T>(opening: Promise<Connection>, method: string, argument: object): Promise<T> {
  const connection = await opening;
  const { rows } = await connection.query<{ result: string }>(
    `CUTOVER_NODE ${method} ${quoteLiteral(JSON.stringify(argument))}`,
  );
  return JSON.parse(rows[0]?.result ?? 'null') as T;
}
