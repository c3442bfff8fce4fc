/** One task: the shape of a loaded configuration. Loading, checking, swapping and saving live beside it. */
import type { ReplicaConfig } from './replica-config.js';
import type { ShardingConfig } from './sharding.js';
import type { TcpConfig } from './tcp.js';
import type { TlsConfig } from './tls.js';

export type PoolerMode = 'transaction' | 'session' | 'statement';
/** What becomes of a server whose client has gone: whatever it does is brought to an end, only an open transaction is, or nothing. */
export type ConnectionRecovery = 'recover' | 'rollback_only' | 'drop';
export type AuthType = 'scram' | 'md5' | 'plain' | 'trust';
/** Whether a server is asked about passwords that no file has: over TLS or also in plain text, once or again when another one comes. */
export type PassthroughAuth =
  'disabled' | 'enabled' | 'enabled_plain' | 'enabled_allow_change' | 'enabled_plain_allow_change';

/** Pool keys that `[[databases]]` and `[[users]]` share; what is absent is as in `[general]`, or as the server has it. */
export interface PoolKeys {
  readonly poolSize?: number;
  readonly minPoolSize?: number;
  readonly poolerMode?: PoolerMode;
  readonly statementTimeoutMs?: number;
  readonly lockTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
  readonly serverLifetimeMs?: number;
  readonly serverLifetimeJitterMs?: number;
}

/** One `[[databases]]` row: a server that plays one shard of the database `name`. */
export interface DatabaseEntry extends PoolKeys {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly role: 'primary' | 'replica' | 'auto';
  readonly shard: number;
  /** name of the database on the server */
  readonly databaseName: string;
  readonly user?: string;
  readonly password?: string;
  /** share of the reads under `weighted_round_robin`; absent: 255 */
  readonly weight?: number;
  /** of the primary's row among several with the role `auto`; added while the proxy runs, absent: the file has named it */
  readonly election?: 'elected' | 'none';
  /** a replica that serves no clients */
  readonly reshardingOnly?: boolean;
}

/** What stands for a password in SCRAM. Proven by a client, held in memory only: no file has a client key. */
export interface ScramKeys {
  readonly salt: Buffer;
  readonly iterations: number;
  readonly clientKey: Buffer;
  readonly serverKey: Buffer;
}

/** One `[[users]]` row expanded to one (user, database) pair. */
export interface UserEntry extends PoolKeys {
  readonly name: string;
  readonly database: string;
  /** every password a client may use */
  readonly passwords: readonly string[];
  /** SCRAM verifier a client may use instead */
  readonly passwordHash?: string;
  /** a client with a certificate of this name needs no password */
  readonly identity?: string;
  readonly serverUser?: string;
  readonly serverPassword?: string;
  /** in the place of a password toward servers; added while the proxy runs */
  readonly serverKeys?: ScramKeys;
  /** absent: yes where certificates of clients are asked for */
  readonly clientCertificateRequired?: boolean;
  /** the engine's own connections use the schema_admin of a database */
  readonly schemaAdmin: boolean;
}

export interface GeneralConfig {
  readonly host: string;
  readonly port: number;
  readonly defaultPoolSize: number;
  readonly minPoolSize: number;
  readonly poolerMode: PoolerMode;
  readonly authType: AuthType;
  readonly passthroughAuth: PassthroughAuth;
  readonly connectTimeoutMs: number;
  readonly connectAttempts: number;
  readonly connectAttemptDelayMs: number;
  readonly checkoutTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly maxClients: number;
  readonly clientLoginTimeoutMs: number;
  /** null = an idle client may stay for ever */
  readonly clientIdleTimeoutMs: number | null;
  readonly clientIdleInTransactionTimeoutMs: number | null;
  /** after an error of a pool */
  readonly clientConnectionRecovery: 'recover' | 'drop';
  readonly connectionRecovery: ConnectionRecovery;
  readonly rollbackTimeoutMs: number;
  readonly serverLifetimeMs: number;
  readonly serverLifetimeJitterMs: number;
  /** a connection unused for as long is checked before it is lent */
  readonly healthcheckIntervalMs: number;
  readonly healthcheckTimeoutMs: number;
  /** 0 = idle connections are not checked by themselves */
  readonly idleHealthcheckIntervalMs: number;
  readonly idleHealthcheckDelayMs: number;
  readonly shutdownTimeoutMs: number;
  /** what statements still running then get to be cancelled in; null = no time */
  readonly shutdownTerminationTimeoutMs: number | null;
  readonly queryTimeoutMs: number | null;
  /** null = open connections stay where the name of their server led once */
  readonly dnsTtlMs: number | null;
  /** none of PgDog's values makes a difference here */
  readonly preparedStatements: 'extended' | 'extended_anonymous' | 'full' | 'disabled';
  readonly preparedStatementsLimit: number;
  /** unused for as long, a statement is closed at its server; null = never */
  readonly preparedStatementsTtlMs: number | null;
  /** how much later than that, by chance for each connection */
  readonly preparedStatementsTtlJitterMs: number;
  /** `auto`: reads of several clients may be sent together over one server connection */
  readonly pipelining: 'auto' | 'off';
}

/** Keys that steer a move; times in ms, sizes in bytes. */
export interface CutoverConfig {
  readonly trafficStopThresholdBytes: number;
  readonly replicationLagThresholdBytes: number;
  /** accepted for PgDog's sake: parity is exact, so no idle trigger is needed */
  readonly lastTransactionDelayMs: number;
  readonly timeoutMs: number;
  readonly timeoutAction: 'abort' | 'cutover';
  readonly saveConfig: boolean;
  /** how long a node holds its clients without hearing from the engine */
  readonly leaseMs: number;
  readonly drainAction: 'abort' | 'cancel';
  /** of sessions that have on their server what no other one can give them: a drain waits for them, or the swap ends them */
  readonly sessionState: 'wait' | 'close';
  /** longest time clients may be held while transactions end */
  readonly drainTimeoutMs: number;
  /** attempts before the cutover gives up */
  readonly maxAttempts: number;
  /** time between a commit and an automatic finalize; null = until someone finalizes */
  readonly soakMs: number | null;
  /** whether clients may change the schema of tables that a migration carries */
  readonly ddl: 'refuse' | 'allow';
  /** WAL that a slot of a migration may keep; 0 = no limit */
  readonly retainedWalLimitBytes: number;
  /** WAL that a subscriber of a migration may be behind; 0 = no limit */
  readonly slotLagLimitBytes: number;
  /** beyond a limit: tell, or before a commit end the migration as well */
  readonly slotLimitAction: 'warn' | 'abort';
  /** `off`: nothing bars writers that bypass the proxy, and every move says so */
  readonly fence: 'on' | 'off';
  /** `auto`: a table whose replica identity lacks its sharding column gets one for the time of the move */
  readonly prepare: 'off' | 'auto';
  /** `require`: no cutover and no rollback without a comparison that found both sides equal */
  readonly verify: 'off' | 'require';
  /** how old that comparison may be */
  readonly verifyWindowMs: number;
  readonly parallelCopies: number;
  /** bytes per second over all copies; null = unlimited */
  readonly copyBytesPerSecond: number | null;
  readonly copyFormat: 'binary' | 'text';
  /** a larger table is copied in ranges of this size where copies run in parallel; 0 = never */
  readonly copyRangeBytes: number;
}

export type LogVerbosity = 'off' | 'error' | 'warn' | 'info' | 'debug' | 'trace';

/** What the program says of itself. RELOAD changes it. */
export interface LoggingConfig {
  /** one line for each client that has logged in */
  readonly connections: boolean;
  /** one line for each that leaves */
  readonly disconnections: boolean;
  readonly format: 'text' | 'json';
  readonly level: LogVerbosity;
}

/** Where monitoring asks, over HTTP. The ports are read at the start only. */
export interface MonitoringConfig {
  /** the proxy's address where the files name it, else the loopback address */
  readonly host: string;
  /** null = nobody listens */
  readonly healthcheckPort: number | null;
  readonly openmetricsPort: number | null;
  /** what the name of each metric begins with */
  readonly namespace: string;
}

export interface AdminConfig {
  readonly name: string;
  readonly user: string;
  readonly password: string;
  /** false when the password was generated for this start */
  readonly passwordConfigured: boolean;
}

/** One `[[nodes]]` row: a proxy of the fleet, reached over its admin database. */
export interface NodeEntry {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

export interface TemporalConfig {
  readonly address?: string;
  readonly namespace?: string;
  readonly taskQueue: string;
}

export interface ReplicationConfig {
  /** a system pg_dump to use in place of the built-in WebAssembly one */
  readonly pgDumpPath?: string;
}

export interface Config {
  readonly general: GeneralConfig;
  readonly tls: TlsConfig;
  readonly tcp: TcpConfig;
  readonly databases: readonly DatabaseEntry[];
  readonly replicas: ReplicaConfig;
  readonly sharding: ShardingConfig;
  readonly users: readonly UserEntry[];
  readonly admin: AdminConfig;
  /** empty: this proxy is the only one */
  readonly nodes: readonly NodeEntry[];
  readonly temporal: TemporalConfig;
  readonly replication: ReplicationConfig;
  readonly cutover: CutoverConfig;
  readonly logging: LoggingConfig;
  readonly monitoring: MonitoringConfig;
  /** where it was read from; null for a configuration made in memory */
  readonly files: { readonly config: string; readonly users: string } | null;
  /** sentences for the log: keys accepted and ignored */
  readonly warnings: readonly string[];
}
