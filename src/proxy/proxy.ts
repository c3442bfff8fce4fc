/**
 * One task: be the proxy that contract.ts promises: listen, and hold together gates, routes and sessions.
 */
import { timingSafeEqual } from 'node:crypto';
import { createServer, type AddressInfo, type ListenOptions, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/config.js';
import { keepAliveOptions } from '../config/tcp.js';
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import type { ChangeOptions } from '../sharding/coordinator-change.js';
import { readPastStream } from './accepted-socket.js';
import { Acceptor, type AcceptorContext } from './acceptor.js';
import { ClientSession } from './client-session.js';
import { DnsWatch, type Resolve } from './dns-watch.js';
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
import { endIdleClients } from './idle-clients.js';
import { listenAt, type Inherit } from './inherited.js';
import { Journal } from './journal.js';
import { SILENT, type Logger } from './logger.js';
import { Pipelining } from './pipelining/pipelining.js';
import { ProvenCredentials } from './proven-credentials.js';
import type { Pool } from './pool.js';
import { Reach } from './reach.js';
import { ReplicaWatch, type WatchContext } from './replica-watch.js';
import { Routes } from './routes.js';
import type { LoggedInClient } from './session-context.js';
import { ShardRecovery } from './shard-recovery.js';
import { ShardRouters } from './shard-routers.js';
import { StatementCache } from './statement-cache.js';
import { clientCounts, clientStatus, poolStats, poolStatus, serverStatuses, visitOf } from './status.js';
import { UnreadClients } from './unread-clients.js';
import { hotTexts, warmUp } from './warm-up.js';

export interface ProxyOptions {
  readonly config: Config;
  readonly hooks?: ProxyHooks;
  /** absent: the admin database answers with an error */
  readonly admin?: AdminHandler;
  readonly logger?: Logger;
  /** where another process, or systemd, listens already for the clients */
  readonly inherit?: Inherit;
  /** longest time a client waits at a closed gate before it is told; default 60 s */
  readonly gateWaitMs?: number;
  /** how names of servers are looked up for `dns_ttl`; absent: as the operating system does */
  readonly resolve?: Resolve;
  /** how a change of the schema of all shards takes the coordinator along */
  readonly schemaChanges?: Partial<ChangeOptions>;
}

const GATE_WAIT_MS = 60_000;
const SWEEP_MS = 500;
/** It is spent inside a pause. */
const LISTENERS_DEADLINE_MS = 250;
const FAREWELL_MS = 500;
const RETIRE_POLL_MS = 50;
const CLIENT_ID_MAX = 0x7fff_ffff;

/** Starts listening and resolves once clients can connect. @throws the error of listen(), as EADDRINUSE */
export async function startProxy(options: ProxyOptions): Promise<WatchedProxy> {
  const proxy = new RunningProxy(options);
  await proxy.listen(options.inherit);
  return proxy;
}

class RunningProxy implements WatchedProxy, AcceptorContext, WatchContext {
  readonly routes: Routes;
  readonly proven = new ProvenCredentials(() => {
    this.#route();
  });
  readonly routers: ShardRouters;
  readonly unread = new UnreadClients();
  readonly statements = new StatementCache();
  readonly pipelining: Pipelining;
  readonly hooks: ProxyHooks | undefined;
  readonly logger: Logger;
  readonly journal: Journal;
  readonly gateWaitMs: number;
  #config: Config;
  readonly admin: AdminHandler | undefined;
  readonly #acceptor: Acceptor;
  readonly listener: Server;
  /** kept when the listener is closed: while it is handed over, this process is asked on its behalf until it ends */
  #address: WatchedProxy['address'] | null = null;
  /** where this worker alone is reached; null when it shares its port with nobody */
  #alone: Server | null = null;
  readonly #sessions = new Map<number, ClientSession>();
  readonly #gates = new Map<string, Gate>();
  readonly #recovery: ShardRecovery;
  readonly #reach: Reach;
  readonly #dns: DnsWatch;
  readonly #watch: ReplicaWatch;
  readonly #sweeper: NodeJS.Timeout;
  /** sessions that go along with what apply() has changed */
  #following: Promise<unknown> = Promise.resolve();
  #lastId = 0;
  #closing = false;
  #onForgotten: (() => void) | null = null;
  readonly #isHeld = (database: string): boolean => this.gate(database).closed;

  constructor(options: ProxyOptions) {
    this.#config = options.config;
    this.hooks = options.hooks;
    this.admin = options.admin;
    this.logger = options.logger ?? SILENT;
    this.journal = new Journal(this.logger, () => this.#config.logging);
    this.gateWaitMs = options.gateWaitMs ?? GATE_WAIT_MS;
    this.proven.apply(options.config);
    this.#watch = new ReplicaWatch(this);
    this.#watch.apply();
    this.routes = new Routes(this.#watch.rolesOf(options.config));
    this.routers = new ShardRouters(this.routes, options.config, options.schemaChanges);
    this.pipelining = new Pipelining(options.config, this.statements);
    this.#reach = new Reach(this.routes);
    this.#dns = new DnsWatch(() => this.routes.pools, this.#isHeld, options.resolve);
    this.#recovery = new ShardRecovery(this.routes, this.logger);
    this.#acceptor = new Acceptor(options.config, this);
    this.listener = this.#makeListener();
    this.#sweeper = setInterval(() => {
      this.#sweep();
    }, SWEEP_MS);
    this.#sweeper.unref();
    this.#watch.sweep();
  }

  get config(): Config {
    return this.#config;
  }

  get address(): WatchedProxy['address'] {
    invariant(this.#address !== null, 'the proxy has listened');
    return this.#address;
  }

  async listen(inherit?: Inherit): Promise<void> {
    const { host, port } = this.#config.general;
    await this.#listenAt(this.listener, { host, port }, inherit);
    const bound = this.listener.address() as AddressInfo;
    this.#address = { host: bound.address, port: bound.port };
  }

  async listenAlone(): Promise<number> {
    this.#alone ??= this.#makeListener();
    await this.#listenAt(this.#alone, { host: this.#config.general.host, port: 0, exclusive: true });
    return (this.#alone.address() as AddressInfo).port;
  }

  #makeListener(): Server {
    return createServer({ noDelay: true, pauseOnConnect: true }, (accepted) => {
      const socket = readPastStream(accepted);
      // Not as options of the listener, which would keep them: a RELOAD may change them.
      const { keepAlive, keepAliveInitialDelay } = keepAliveOptions(this.#config.tcp.keepAliveMs);
      socket.setKeepAlive(keepAlive, keepAliveInitialDelay);
      void this.#acceptor.accept(socket);
    });
  }

  async #listenAt(listener: Server, options: ListenOptions, inherit?: Inherit): Promise<void> {
    await listenAt(listener, options, inherit);
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
    return session.servers.holding || (session.servers.bound && this.#config.cutover.sessionState === 'wait');
  }

  waitsForBound(database: string): boolean {
    const { reasons } = this.gate(database);
    return this.#config.cutover.sessionState === 'wait' && reasons.every((reason) => reason === 'cutover');
  }

  apply(config: Config): void {
    this.#config = config;
    this.#acceptor.apply(config);
    this.proven.apply(config);
    this.#watch.apply();
    this.#route();
    this.#watch.sweep();
    this.routers.apply(config);
    this.pipelining.apply(config);
    this.#follow();
    this.hooks?.onApplied?.(config);
  }

  #follow(): void {
    this.#following = Promise.all([...this.#sessions.values()].map((session) => session.follow()));
  }

  /** Also when a client has proven something that its pools need. */
  #route(): void {
    this.routes.apply(this.#watch.rolesOf(this.proven.addedTo(this.#config)));
  }

  rolesChanged(): void {
    this.#route();
    this.#follow();
  }

  async listenersMoved(): Promise<boolean> {
    const late = sleep(LISTENERS_DEADLINE_MS, false, { ref: false });
    const moved = await Promise.race([this.#following.then(() => true), late]);
    if (!moved) this.logger.warn({}, 'sessions that LISTEN hear the other side later than the resume');
    return moved;
  }

  async warm(database: string, like: string, deadlineMs: number): Promise<void> {
    this.proven.makeAlike(database, like);
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

  setBan(poolId: number | null, banned: boolean): number {
    return this.routes.setBan(poolId, banned);
  }

  cancelRunning(database: string): void {
    for (const session of this.#sessions.values()) {
      if (session.database === database && session.servers.holding) session.servers.cancel();
    }
  }

  pools(): readonly PoolStatus[] {
    return this.routes.pools.map((pool) => this.#statusOf(pool));
  }

  #statusOf(pool: Pool): PoolStatus {
    const seen = { ban: this.routes.bans.of(pool), replication: this.#watch.statusOf(pool) };
    return poolStatus(pool, this.gate(pool.label.database).closed, seen);
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
        ...this.#statusOf(pool),
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

  async retire(patienceMs: number): Promise<void> {
    this.listener.close();
    const end = performance.now() + patienceMs;
    const someAreHere = (): boolean => this.#sessions.size + this.#acceptor.logins > 0;
    while (someAreHere() && performance.now() < end) await sleep(RETIRE_POLL_MS);
  }

  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    clearInterval(this.#sweeper);
    const unwatched = this.#watch.close();
    const listeners = [this.listener, this.#alone].filter((listener) => listener !== null);
    const closed = Promise.all(listeners.map(closing));
    this.#endIdleSessions();
    await this.#sessionsEnded(graceMs);
    await this.#stopStatements();
    for (const session of this.#sessions.values()) session.terminate(new CutoverError('shutting_down'));
    for (const pool of this.routes.allPools) pool.destroy();
    // Last words get a moment to be read.
    for (const socket of this.#acceptor.sockets) socket.destroySoon();
    const timer = setTimeout(() => {
      for (const socket of this.#acceptor.sockets) socket.destroy();
    }, FAREWELL_MS);
    // A listener does not count those that are read past their streams.
    await Promise.all([closed, this.#acceptor.emptied(), unwatched]);
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
    if (session?.secret.length === secret.length && timingSafeEqual(session.secret, secret)) session.servers.cancel();
  }

  // ---- time and the end

  #sweep(): void {
    const held = this.#isHeld;
    this.routes.sweep(held);
    this.#dns.sweep(this.#config.general.dnsTtlMs);
    this.#watch.sweep();
    this.proven.sweep(this.#config.general.idleTimeoutMs);
    this.journal.sweep();
    this.#recovery.sweep();
    endIdleClients(this.#sessions.values(), { general: this.#config.general, held });
    this.unread.sweep();
    const limitMs = this.#config.general.queryTimeoutMs;
    if (limitMs === null) return;
    for (const session of this.#sessions.values()) session.servers.cancelAfter(limitMs);
  }

  #endIdleSessions(): void {
    for (const session of this.#sessions.values()) {
      if (!session.servers.holding) session.terminate(new CutoverError('shutting_down'));
      else session.endAfterTransaction();
    }
  }

  /** What still runs at the end of the grace may be cancelled in time: a server does not notice by itself that nobody waits. */
  async #stopStatements(): Promise<void> {
    const { shutdownTerminationTimeoutMs: limitMs } = this.#config.general;
    if (limitMs === null || this.#sessions.size === 0) return;
    for (const session of this.#sessions.values()) {
      session.servers.cancel();
      session.terminate(new CutoverError('shutting_down'));
    }
    await this.#sessionsEnded(limitMs);
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
    serverPid: session.servers.pid,
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
