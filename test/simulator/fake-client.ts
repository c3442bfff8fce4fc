/**
 * One task: stand in for `pg.Client`: the product's own connect(), Connections, Directory and RemoteNode run on it.
 *
 * A message takes a random time each way. The statements of one client run one after the other, as with the driver.
 */
import { EventEmitter } from 'node:events';
import pg from 'pg';
import type { Actor, Scheduler } from './scheduler.js';
import type { Reply, Row } from './statements.js';

/** What listens at an address: a database, or the admin database of a node. */
export interface Listener {
  /** events at this end are its own */
  readonly actor: Actor;
  answer(client: Actor, text: string, values: readonly unknown[], reply: Reply): void;
}

export interface Network {
  readonly scheduler: Scheduler;
  /** who listens now at an address, as the machine of the asking actor sees it; null: refused */
  listenerAt(host: string, port: number, asking: Actor): Listener | null;
  /** told of every statement on its way to a server */
  sent(client: Actor, host: string, text: string, values: readonly unknown[]): void;
  readonly clients: Set<FakeClient>;
}

interface ClientConfig {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly connectionTimeoutMillis: number;
  readonly query_timeout: number;
}

interface Query {
  readonly text: string;
  readonly values: readonly unknown[];
  readonly resolve: (result: { rows: readonly Row[] }) => void;
  readonly reject: (error: Error) => void;
  settled: boolean;
}

const LATENCY_MIN_MS = 0.1;
const LATENCY_MAX_MS = 0.6;

/** The network of the simulation that runs. */
let network: Network | null = null;

function inForce(): Network {
  if (!network) throw new Error('no simulation runs');
  return network;
}

export class FakeClient extends EventEmitter {
  readonly database: string;
  readonly owner: Actor;
  listener: Listener | null = null;
  /** messages are lost in both directions and nobody is told: a firewall forgot the connection */
  silent = false;
  readonly #network: Network;
  readonly #config: ClientConfig;
  readonly #queue: Query[] = [];
  #active: Query | null = null;
  #broken: Error | null = null;
  #ended = false;

  constructor(config: ClientConfig) {
    super();
    this.#config = config;
    this.#network = inForce();
    this.database = config.database;
    this.owner = this.#network.scheduler.current;
  }

  get host(): string {
    return this.#config.host;
  }

  connect(): Promise<void> {
    const { scheduler } = this.#network;
    const { host, port } = this.#config;
    return new Promise((resolve, reject) => {
      let settled = false;
      const settle = (run: () => void): void => {
        if (settled) return;
        settled = true;
        limit.cancelled = true;
        run();
      };
      const limit = scheduler.after(this.owner, this.#config.connectionTimeoutMillis, () => {
        settle(() => {
          reject(new Error('timeout expired'));
        });
      });
      const listener = this.#network.listenerAt(host, port, this.owner);
      if (!listener) {
        this.#later(this.owner, () => {
          settle(() => {
            reject(new Error(`connect ECONNREFUSED ${host}:${port.toString()}`));
          });
        });
        return;
      }
      // Three round trips: socket, authentication, parameters.
      this.#later(listener.actor, () => {
        this.#later(this.owner, () => {
          settle(() => {
            this.listener = listener;
            this.#network.clients.add(this);
            resolve();
          });
        });
      });
    });
  }

  query(
    given: string | { readonly text: string; readonly values?: readonly unknown[] },
    values: readonly unknown[] = [],
  ): Promise<{ rows: readonly Row[] }> {
    const text = typeof given === 'string' ? given : given.text;
    return new Promise((resolve, reject) => {
      const sent = typeof given === 'string' ? values : (given.values ?? []);
      const query: Query = { text, values: sent, resolve, reject, settled: false };
      if (this.#broken ?? this.#ended) {
        this.#settle(query, this.#broken ?? new Error('Client was closed and is not queryable'), []);
        return;
      }
      this.#queue.push(query);
      this.#network.scheduler.after(this.owner, this.#config.query_timeout, () => {
        const index = this.#queue.indexOf(query);
        if (index >= 0) this.#queue.splice(index, 1);
        this.#settle(query, new Error('Query read timeout'), []);
      });
      this.#next();
    });
  }

  #next(): void {
    if (this.#active || !this.listener) return;
    const query = this.#queue.shift();
    if (!query) return;
    this.#active = query;
    const { listener } = this;
    this.#network.sent(this.owner, this.host, query.text, query.values);
    this.#later(listener.actor, () => {
      if (this.silent || this.#broken) return;
      listener.answer(this.owner, query.text, query.values, (error, rows) => {
        this.#later(this.owner, () => {
          if (this.silent || this.#broken) return;
          this.#active = null;
          this.#settle(query, error, rows);
          this.#next();
        });
      });
    });
  }

  #settle(query: Query, error: Error | null, rows: readonly Row[]): void {
    if (query.settled) return;
    query.settled = true;
    if (error) query.reject(error);
    else query.resolve({ rows });
  }

  #later(owner: Actor, run: () => void): void {
    const { scheduler } = this.#network;
    scheduler.after(owner, scheduler.between(LATENCY_MIN_MS, LATENCY_MAX_MS), run);
  }

  /** The other end is gone, and its machine says so. */
  break(reason: string): void {
    this.#network.clients.delete(this);
    this.#later(this.owner, () => {
      if (this.#broken) return;
      const error = new Error(reason);
      this.emit('error', error);
      this.#close(error);
    });
  }

  /** With a statement under way the socket is closed at once, and nobody hears its answer. */
  end(): Promise<void> {
    this.#ended = true;
    this.#network.clients.delete(this);
    return new Promise((resolve) => {
      this.#later(this.owner, () => {
        this.#close(new Error('Connection terminated'));
        resolve();
      });
    });
  }

  #close(reason: Error): void {
    if (this.#broken) return;
    this.#broken = reason;
    if (this.#active) this.#settle(this.#active, reason, []);
    for (const query of this.#queue.splice(0)) this.#settle(query, reason, []);
    this.#active = null;
    this.emit('end');
  }
}

/** Puts the simulated network behind the driver; answers the function that gives the real one back. */
export function installNetwork(given: Network): () => void {
  const real = pg.Client;
  network = given;
  Object.assign(pg, { Client: FakeClient });
  return () => {
    Object.assign(pg, { Client: real });
    network = null;
  };
}
