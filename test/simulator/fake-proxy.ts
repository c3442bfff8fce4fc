/**
 * One task: stand in for the proxy of a node: real gates, a configuration in force, and sessions that hold a server.
 *
 * What a client session does at its gate is told again in node-client.ts; relaying bytes is tested on real servers.
 */
import type { Config } from '../../src/config/config.js';
import { addressServing } from '../../src/config/swap.js';
import { invariant } from '../../src/errors/invariant.js';
import type { ClientStatus, PoolStats, PoolStatus, Proxy, ServerStatus } from '../../src/proxy/contract.js';
import { Gate, type GateReason, type Holder } from '../../src/proxy/gate.js';
import type { Scheduler } from './scheduler.js';

/** A gate that tells when it was moved. */
class ToldGate extends Gate {
  readonly #moved: () => void;

  constructor(holders: () => readonly Holder[], moved: () => void) {
    super({ holders });
    this.#moved = moved;
  }

  override close(reason: GateReason): void {
    super.close(reason);
    this.#moved();
  }

  override open(reason: GateReason): void {
    super.open(reason);
    this.#moved();
  }
}

export interface Session {
  readonly holder: Holder;
  readonly database: string;
}

export class FakeProxy implements Proxy {
  readonly address: { readonly host: string; readonly port: number };
  config: Config;
  readonly sessions = new Set<Session>();
  /** the route or a gate changed since somebody looked */
  moved = true;
  readonly #scheduler: Scheduler;
  readonly #gates = new Map<string, Gate>();

  constructor(config: Config, address: { readonly host: string; readonly port: number }, scheduler: Scheduler) {
    this.config = config;
    this.address = address;
    this.#scheduler = scheduler;
  }

  gate(database: string): Gate {
    let gate = this.#gates.get(database);
    if (!gate) {
      const holders = (): readonly Holder[] =>
        [...this.sessions].filter((s) => s.database === database).map((s) => s.holder);
      gate = new ToldGate(holders, () => {
        this.moved = true;
      });
      this.#gates.set(database, gate);
    }
    return gate;
  }

  apply(config: Config): void {
    this.config = config;
    this.moved = true;
  }

  /** The host behind a name now. */
  route(database: string): string {
    const address = addressServing(this.config.databases, database);
    invariant(address, 'the name is configured');
    return address.host;
  }

  warm(): Promise<void> {
    return new Promise((resolve) => {
      this.#scheduler.after(this.#scheduler.current, this.#scheduler.between(0.1, 3), resolve);
    });
  }

  listenAlone(): Promise<number> {
    return Promise.resolve(this.address.port);
  }

  reconnect(): void {
    // Nothing here keeps a connection.
  }

  setBan(): number {
    return 0;
  }

  cancelRunning(): void {
    // The simulated configuration says cutover_drain_action = "abort".
  }

  listenersMoved(): Promise<boolean> {
    return Promise.resolve(true);
  }

  pools(): readonly PoolStatus[] {
    return [];
  }

  clients(): readonly ClientStatus[] {
    return [];
  }

  servers(): readonly ServerStatus[] {
    return [];
  }

  stats(): readonly PoolStats[] {
    return [];
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
