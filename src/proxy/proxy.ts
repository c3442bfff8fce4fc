/**
 * One task: be the proxy that contract.ts promises: listen, and hold together gates, routes and sessions.
 */
import { timingSafeEqual } from 'node:crypto';
import { createServer, type AddressInfo, type ListenOptions, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import type { ChangeOptions } from '../sharding/coordinator-change.js';
import { Acceptor, type AcceptorContext } from './acceptor.js';
import { ClientSession } from './client-session.js';
import type {
  AdminHandler,
  ClientStatus,
  PoolStats,
  PoolStatus,
  ProxyFigures,
  ProxyHooks,
  ReachedServer,
  ServerStatus,
  WatchedProxy,
} from './contract.js';
import { Gate, type Holder } from './gate.js';
import { Journal } from './journal.js';
import { SILENT, type Logger } from './logger.js';
import { Pipelining } from './pipelining/pipelining.js';
import { Reach } from './reach.js';
import { Routes } from './routes.js';
import type { LoggedInClient } from './session-context.js';
import { ShardRecovery } from './shard-recovery.js';
import { ShardRouters } from './shard-routers.js';
import { StatementCache } from './statement-cache.js';
import { clientCounts, clientStatus, poolStats, poolStatus, serverStatuses, visitOf } from './status.js';
import { hotTexts, warmUp } from './warm-up.js';

export interface ProxyOptions {
  readonly config: Config;
  readonly hooks?: ProxyHooks;
  /** absent: the admin database answers with an error */
  readonly admin?: AdminHandler;
  readonly logger?: Logger;
  /** longest time a client waits at a closed gate before it is told; default 60 s */
  readonly gateWaitMs?: number;
  /** how a change of the schema of all shards takes the coordinator along */
  readonly schemaChanges?: Partial<ChangeOptions>;
}

const GATE_WAIT_MS = 60_000;
const SWEEP_MS = 500;
/** It is spent inside a pause. */
const LISTENERS_DEADLINE_MS = 250;
const FAREWELL_MS = 500;
const CLIENT_ID_MAX = 0x7fff_ffff;

/** Starts listening and resolves once clients can connect. @throws the error of listen(), as EADDRINUSE */
export async function startProxy(options: ProxyOptions): Promise<WatchedProxy> {
  const proxy = new RunningProxy(options);
  await proxy.listen();
  return proxy;
}

class RunningProxy implements WatchedProxy, AcceptorContext {
  readonly routes: Routes;
  readonly routers: ShardRouters;
  readonly statements = new StatementCache();
  readonly pipelining: Pipelining;
  readonly hooks: ProxyHooks | undefined;
  readonly logger: Logger;
  readonly journal: Journal;
  readonly gateWaitMs: number;
  #config: Config;
  readonly admin: AdminHandler | undefined;
  readonly #acceptor: Acceptor;
  readonly #listener: Server;
  /** where this worker alone is reached; null when it shares its port with nobody */
  #alone: Server | null = null;
  readonly #sessions = new Map<number, ClientSession>();
  readonly #gates = new Map<string, Gate>();
  readonly #recovery: ShardRecovery;
  readonly #reach: Reach;
  readonly #sweeper: NodeJS.Timeout;
  /** sessions that go along with what apply() has changed */
  #following: Promise<unknown> = Promise.resolve();
  #lastId = 0;
  #closing = false;
  #onForgotten: (() => void) | null = null;

  constructor(options: ProxyOptions) {
    this.#config = options.config;
    this.hooks = options.hooks;
    this.admin = options.admin;
    this.logger = options.logger ?? SILENT;
    this.journal = new Journal(this.logger, () => this.#config.logging);
    this.gateWaitMs = options.gateWaitMs ?? GATE_WAIT_MS;
    this.routes = new Routes(options.config);
    this.routers = new ShardRouters(this.routes, options.config, options.schemaChanges);
    this.pipelining = new Pipelining(options.config);
    this.#reach = new Reach(this.routes);
    this.#recovery = new ShardRecovery(this.routes, this.logger);
    this.#acceptor = new Acceptor(options.config, this);
    this.#listener = this.#makeListener();
    this.#sweeper = setInterval(() => {
      this.#sweep();
    }, SWEEP_MS);
    this.#sweeper.unref();
  }

  get config(): Config {
    return this.#config;
  }

  get address(): { readonly host: string; readonly port: number } {
    const address = this.#listener.address() as AddressInfo | null;
    invariant(address !== null, 'the proxy listens');
    return { host: address.address, port: address.port };
  }

  async listen(): Promise<void> {
    const { host, port } = this.#config.general;
    await this.#listenAt(this.#listener, { host, port });
  }

  async listenAlone(): Promise<number> {
    this.#alone ??= this.#makeListener();
    await this.#listenAt(this.#alone, { host: this.#config.general.host, port: 0, exclusive: true });
    return (this.#alone.address() as AddressInfo).port;
  }

  #makeListener(): Server {
    return createServer({ noDelay: true, keepAlive: true, pauseOnConnect: true }, (socket) => {
      void this.#acceptor.accept(socket);
    });
  }

  async #listenAt(listener: Server, options: ListenOptions): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject);
      listener.listen(options, () => {
        listener.off('error', reject);
        resolve();
      });
    });
    listener.on('error', (error) => {
      this.logger.error({}, `listener: ${error.message}`);
    });
  }

  gate(database: string): Gate {
    let gate = this.#gates.get(database);
    if (gate === undefined) {
      const holders = (): readonly ClientSession[] =>
        [...this.#sessions.values()].filter((session) => session.database === database && this.#holds(session));
      gate = new Gate({ holders: () => holders().map(holderOf) });
      this.#gates.set(database, gate);
    }
    return gate;
  }

  #holds(session: ClientSession): boolean {
    return session.holding || (session.bound && this.#config.cutover.sessionState === 'wait');
  }

  waitsForBound(database: string): boolean {
    const { reasons } = this.gate(database);
    return this.#config.cutover.sessionState === 'wait' && reasons.every((reason) => reason === 'cutover');
  }

  apply(config: Config): void {
    this.#config = config;
    this.#acceptor.apply(config);
    this.routes.apply(config);
    this.routers.apply(config);
    this.pipelining.apply(config);
    this.#following = Promise.all([...this.#sessions.values()].map((session) => session.follow()));
  }

  async listenersMoved(): Promise<boolean> {
    const late = sleep(LISTENERS_DEADLINE_MS, false, { ref: false });
    const moved = await Promise.race([this.#following.then(() => true), late]);
    if (!moved) this.logger.warn({}, 'sessions that LISTEN hear the other side later than the resume');
    return moved;
  }

  async warm(database: string, like: string, deadlineMs: number): Promise<void> {
    const users = this.#config.users.flatMap((user) => (user.database === database ? [user.name] : []));
    const read = async (user: string): Promise<void> => {
      await this.routers.read(user, database);
      await this.routers.meet(user, database, hotTexts(this.routes, user, like));
    };
    const reading = this.routers.isSharded(database) ? users.map(read) : [];
    await warmUp(this.routes, database, like, deadlineMs, reading);
  }

  reconnect(database?: string): void {
    for (const pool of this.routes.pools) {
      if (database === undefined || pool.label.database === database) pool.reconnect();
    }
  }

  cancelRunning(database: string): void {
    for (const session of this.#sessions.values()) {
      if (session.database === database && session.holding) session.cancel();
    }
  }

  pools(): readonly PoolStatus[] {
    return this.routes.pools.map((pool) => poolStatus(pool, this.gate(pool.label.database).closed));
  }

  clients(): readonly ClientStatus[] {
    return [...this.#sessions.values()].filter((session) => session.phase !== 'leaving').map(clientStatus);
  }

  servers(): readonly ServerStatus[] {
    return this.routes.allPools.flatMap(serverStatuses);
  }

  stats(): readonly PoolStats[] {
    return this.routes.pools.map(poolStats);
  }

  figures(): ProxyFigures {
    const databases = [...new Set(this.#config.databases.map(({ name }) => name))];
    return {
      clients: clientCounts(databases, this.#sessions.values()),
      pools: this.routes.pools.map((pool) => ({
        ...poolStatus(pool, this.gate(pool.label.database).closed),
        ...poolStats(pool),
        size: pool.options.size,
      })),
      servers: this.reached(),
      routers: this.routers.caches,
      journal: this.journal.counts,
      statements: this.statements.size,
    };
  }

  reached(): readonly ReachedServer[] {
    return this.#reach.servers();
  }

  askServers(): Promise<void> {
    return this.#reach.ask();
  }

  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    clearInterval(this.#sweeper);
    const closed = Promise.all(
      [this.#listener, this.#alone].flatMap((listener) => (listener ? closing(listener) : [])),
    );
    this.#endIdleSessions();
    await this.#sessionsEnded(graceMs);
    for (const session of this.#sessions.values()) session.terminate(new CutoverError('shutting_down'));
    for (const pool of this.routes.allPools) pool.destroy();
    // Last words get a moment to be read.
    for (const socket of this.#acceptor.sockets) socket.destroySoon();
    const timer = setTimeout(() => {
      for (const socket of this.#acceptor.sockets) socket.destroy();
    }, FAREWELL_MS);
    await closed;
    clearTimeout(timer);
    this.journal.end();
  }

  forget(id: number): void {
    const session = this.#sessions.get(id);
    if (session !== undefined) this.journal.disconnected(session, visitOf(session));
    this.#sessions.delete(id);
    if (this.#sessions.size === 0) this.#onForgotten?.();
  }

  // ---- clients

  begin(client: LoggedInClient): void {
    const session = new ClientSession(client, this);
    this.journal.connected(session);
    if (session.phase === 'closed') this.journal.disconnected(session, visitOf(session));
    else this.#sessions.set(client.id, session);
  }

  admit(): number {
    if (this.#closing) throw new CutoverError('shutting_down');
    do this.#lastId = (this.#lastId % CLIENT_ID_MAX) + 1;
    while (this.#sessions.has(this.#lastId));
    return this.#lastId;
  }

  cancel(processId: number, secret: Buffer): void {
    const session = this.#sessions.get(processId);
    if (session?.secret.length === secret.length && timingSafeEqual(session.secret, secret)) session.cancel();
  }

  // ---- time and the end

  #sweep(): void {
    this.routes.sweep();
    this.journal.sweep();
    this.#recovery.sweep();
    const limitMs = this.#config.general.queryTimeoutMs;
    if (limitMs === null) return;
    for (const session of this.#sessions.values()) session.cancelAfter(limitMs);
  }

  #endIdleSessions(): void {
    for (const session of this.#sessions.values()) {
      if (!session.holding) session.terminate(new CutoverError('shutting_down'));
      else session.endAfterTransaction();
    }
  }

  #sessionsEnded(graceMs: number): Promise<void> {
    if (this.#sessions.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, graceMs);
      this.#onForgotten = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function holderOf(session: ClientSession): Holder {
  return {
    clientId: session.id,
    user: session.user,
    application: session.applicationName,
    serverPid: session.serverPid,
    transactionMs: session.counters.transactionMsSoFar,
  };
}

function closing(listener: Server): Promise<void> {
  return new Promise((resolve) =>
    listener.close(() => {
      resolve();
    }),
  );
}
