/** One task: start proxies for tests, and connect to them as drivers and as raw sockets do. */
import { connect, type Socket } from 'node:net';
import pg from 'pg';
import { afterEach } from 'vitest';
import type { Config, DatabaseEntry, GeneralConfig, UserEntry } from '../../src/config/config.js';
import { replicaConfig } from '../../src/config/replicas.js';
import { NOT_SHARDED } from '../../src/config/sharding.js';
import type { TcpConfig } from '../../src/config/tcp.js';
import { NO_TLS, PREFER_TLS, type TlsConfig } from '../../src/config/tls.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { startProxy, type ProxyOptions } from '../../src/proxy/proxy.js';
import { FrameScanner, frameRules } from '../../src/wire/frames.js';
import { startupMessage } from '../../src/wire/frontend.js';
import { until } from '../support/wait.js';

export const USER = 'postgres';

const GENERAL: GeneralConfig = {
  host: '127.0.0.1',
  port: 0,
  defaultPoolSize: 4,
  minPoolSize: 0,
  poolerMode: 'transaction',
  authType: 'trust',
  passthroughAuth: 'disabled',
  connectTimeoutMs: 5_000,
  connectAttempts: 1,
  connectAttemptDelayMs: 0,
  checkoutTimeoutMs: 10_000,
  idleTimeoutMs: 60_000,
  maxClients: 10_000,
  clientLoginTimeoutMs: 10_000,
  clientIdleTimeoutMs: null,
  clientIdleInTransactionTimeoutMs: null,
  clientConnectionRecovery: 'recover',
  connectionRecovery: 'recover',
  rollbackTimeoutMs: 5_000,
  serverLifetimeMs: 3_600_000,
  serverLifetimeJitterMs: 0,
  healthcheckIntervalMs: 30_000,
  healthcheckTimeoutMs: 5_000,
  idleHealthcheckIntervalMs: 30_000,
  idleHealthcheckDelayMs: 5_000,
  shutdownTimeoutMs: 5_000,
  shutdownTerminationTimeoutMs: null,
  queryTimeoutMs: null,
  dnsTtlMs: null,
  preparedStatements: 'extended',
  preparedStatementsLimit: 100,
  preparedStatementsTtlMs: null,
  preparedStatementsTtlJitterMs: 30_000,
  pipelining: 'off',
};

/** Waits until `count` statements sleep in pg_sleep(), as the server says: one that is still on its way cannot be cancelled. */
export async function statementsSleep(cluster: Cluster, databaseName: string, count = 1): Promise<void> {
  await until(`${count.toString()} statements sleep`, async () => {
    const rows = await cluster.query(
      'postgres',
      `SELECT FROM pg_stat_activity WHERE datname = '${databaseName}' AND state = 'active' AND wait_event = 'PgSleep'`,
    );
    return rows.length === count;
  });
}

export interface Target {
  /** the name clients connect to */
  readonly name: string;
  readonly cluster: Cluster;
  readonly databaseName: string;
}

export interface Overrides {
  readonly general?: Partial<GeneralConfig>;
  readonly user?: Partial<UserEntry>;
  readonly tls?: Partial<TlsConfig>;
  readonly tcp?: Partial<TcpConfig>;
}

/** A configuration in which the superuser of each cluster may use each of the databases. */
export function configFor(targets: readonly Target[], overrides: Overrides = {}): Config {
  const databases = targets.map(({ name, cluster, databaseName }): DatabaseEntry => ({
    name,
    host: cluster.host,
    port: cluster.port,
    role: 'primary',
    shard: 0,
    databaseName,
    password: cluster.password,
  }));
  const users = targets.map(({ name }): UserEntry => ({
    name: USER,
    database: name,
    passwords: ['client secret'],
    schemaAdmin: true,
    ...overrides.user,
  }));
  return {
    general: { ...GENERAL, ...overrides.general },
    tls: { ...NO_TLS, servers: PREFER_TLS, ...overrides.tls },
    tcp: { keepAliveMs: 60_000, ...overrides.tcp },
    databases,
    replicas: replicaConfig({}),
    sharding: NOT_SHARDED,
    users,
    admin: { name: 'admin', user: 'admin', password: 'admin secret', passwordConfigured: true },
    nodes: [],
    temporal: { taskQueue: 'cutover' },
    replication: {},
    cutover: {
      trafficStopThresholdBytes: 1,
      replicationLagThresholdBytes: 0,
      lastTransactionDelayMs: 1,
      timeoutMs: 1,
      timeoutAction: 'abort',
      saveConfig: false,
      leaseMs: 1,
      drainAction: 'abort',
      sessionState: 'wait',
      drainTimeoutMs: 1,
      maxAttempts: 1,
      soakMs: null,
      verify: 'off',
      verifyWindowMs: 1,
      ddl: 'refuse',
      retainedWalLimitBytes: 0,
      slotLagLimitBytes: 0,
      slotLimitAction: 'warn',
      fence: 'on',
      prepare: 'off',
      parallelCopies: 1,
      copyBytesPerSecond: null,
      copyFormat: 'binary',
      copyRangeBytes: 0,
    },
    logging: { connections: true, disconnections: true, format: 'json', level: 'info' },
    monitoring: { host: '127.0.0.1', healthcheckPort: null, openmetricsPort: null, namespace: '' },
    files: null,
    warnings: [],
  };
}

const open = new Set<() => Promise<unknown>>();

afterEach(async () => {
  const ends = [...open].reverse();
  open.clear();
  for (const end of ends) await end();
});

/** Done when the test ends, the latest first. */
export function endLater(end: () => Promise<unknown>): void {
  open.add(end);
}

/** A proxy that is closed when the test ends. */
export async function proxyFor(options: ProxyOptions): Promise<Proxy> {
  const proxy = await startProxy(options);
  open.add(() => proxy.close(0));
  return proxy;
}

/** A connected driver that is ended when the test ends. */
export async function clientOf(proxy: Proxy, database: string, options: pg.ClientConfig = {}): Promise<pg.Client> {
  const { host, port } = proxy.address;
  const client = new pg.Client({ host, port, database, user: USER, password: 'client secret', ...options });
  client.on('error', () => undefined);
  open.add(() => client.end().catch(() => undefined));
  await client.connect();
  return client;
}

export interface Message {
  readonly type: string;
  readonly bytes: Buffer;
}

/** Everything printable, without limits: tests read what they are given. */
const ANY = frameRules([
  { types: String.fromCharCode(...Array.from({ length: 94 }, (_, at) => at + 33)), lengthMax: 0x3fff_ffff },
]);

/** A socket that speaks the protocol by hand. */
export class RawClient {
  readonly socket: Socket;
  readonly messages: Message[] = [];
  closed = false;
  readonly #scanner = new FrameScanner(ANY);
  /** messages of each type since they were last taken */
  readonly #counts = new Map<string, number>();
  #wake: () => void = () => undefined;

  constructor({ address }: Pick<Proxy, 'address'>) {
    const { host, port } = address;
    this.socket = connect({ host, port });
    this.socket.on('error', () => undefined);
    this.socket.on('data', (chunk: Buffer) => {
      this.#scanner.feed(chunk);
      const { buffer } = this.#scanner;
      while (this.#scanner.peek()) {
        const { type, start, end } = this.#scanner;
        const name = String.fromCharCode(type);
        this.messages.push({ type: name, bytes: Buffer.from(buffer.subarray(start, end)) });
        this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
        this.#scanner.consume();
      }
      this.#wake();
    });
    this.socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
    open.add(() => {
      this.socket.destroy();
      return Promise.resolve();
    });
  }

  /** Logs in with `trust` and forgets what was said. */
  static async loggedIn(
    proxy: Pick<Proxy, 'address'>,
    database: string,
    parameters: Record<string, string> = {},
  ): Promise<RawClient> {
    const client = new RawClient(proxy);
    client.send(startupMessage({ user: USER, database, ...parameters }));
    await client.until('Z');
    return client;
  }

  send(...parts: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Waits until `count` messages of `type` have come, and takes all messages. @throws Error after 10 s, or on a close */
  async until(type: string, count = 1): Promise<Message[]> {
    const end = performance.now() + 10_000;
    while ((this.#counts.get(type) ?? 0) < count) {
      if (this.closed || performance.now() > end) throw new Error(`no ${type}; came: ${this.types(this.messages)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#counts.clear();
    return this.messages.splice(0);
  }

  types(messages: readonly Message[]): string {
    return messages.map((message) => message.type).join('');
  }
}
