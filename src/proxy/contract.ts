/** One task: what the layers above (fleet, admin, main) may ask of the proxy. */
import type { Server } from 'node:net';
import type { Config } from '../config/config.js';
import type { Gate } from './gate.js';

export interface BanStatus {
  readonly reason: string;
  /** null: until it is lifted by hand */
  readonly leftMs: number | null;
}

/** What the server of a pool said when it was asked last (`lsn_check_delay`). */
export interface ReplicationStatus {
  /** how far it was behind its primary; null: it is the primary, or nobody can tell */
  readonly lagMs: number | null;
  readonly lagBytes: number | null;
  /** in bytes since the beginning of the log */
  readonly lsn: bigint;
  readonly lsnAgeMs: number;
  readonly recovering: boolean;
}

/** One row of SHOW POOLS: the server connections of one (user, database, server). */
export interface PoolStatus {
  readonly id: number;
  readonly database: string;
  readonly user: string;
  readonly host: string;
  readonly port: number;
  readonly shard: number;
  readonly role: string;
  readonly clientsWaiting: number;
  readonly serversIdle: number;
  readonly serversActive: number;
  readonly serversIdleInTransaction: number;
  readonly longestWaitMs: number;
  readonly poolerMode: string;
  readonly paused: boolean;
  /** of a replica that gets no reads */
  readonly ban: BanStatus | null;
  /** null: nobody has asked */
  readonly replication: ReplicationStatus | null;
  readonly errors: number;
}

export interface ClientStatus {
  readonly id: number;
  readonly user: string;
  readonly database: string;
  readonly host: string;
  readonly port: number;
  readonly state: 'idle' | 'active' | 'idle in transaction' | 'waiting' | 'login';
  readonly connectedAt: Date;
  readonly lastRequestAt: Date | null;
  readonly queries: number;
  readonly transactions: number;
  readonly waitMs: number;
  readonly queryMs: number;
  readonly transactionMs: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly errors: number;
  readonly applicationName: string;
  readonly preparedStatements: number;
  readonly tls: boolean;
}

export interface ServerStatus {
  readonly poolId: number;
  readonly database: string;
  readonly user: string;
  readonly host: string;
  readonly port: number;
  readonly state: 'idle' | 'active' | 'idle in transaction' | 'connecting';
  readonly connectedAt: Date;
  readonly lastRequestAt: Date | null;
  readonly remotePid: number;
  readonly clientId: number | null;
  readonly transactions: number;
  readonly queries: number;
  readonly rollbacks: number;
  readonly preparedStatements: number;
  readonly errors: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly tls: boolean;
}

/** Totals since start of one pool, for SHOW STATS. */
export interface PoolStats {
  readonly database: string;
  readonly user: string;
  readonly host: string;
  readonly port: number;
  readonly shard: number;
  readonly role: string;
  readonly transactions: number;
  readonly queries: number;
  readonly serverAssignments: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly transactionMs: number;
  readonly queryMs: number;
  readonly waitMs: number;
  readonly parses: number;
  readonly binds: number;
  readonly errors: number;
  readonly rollbacks: number;
  /** reads that were sent over one connection with those of other clients */
  readonly sharedReads: number;
  readonly connects: number;
  readonly connectMs: number;
}

/** How many came, went, and were told which error of the proxy's own, since start. */
export interface JournalCounts {
  readonly connections: number;
  readonly disconnections: number;
  readonly errors: readonly { readonly code: string; readonly count: number }[];
}

/** One shard of one database. */
export interface ReachedServer {
  readonly database: string;
  readonly shard: number;
  readonly host: string;
  readonly port: number;
  /** `reached`: a connection is open; `unreachable`: the last one that was tried could not be opened */
  readonly state: 'reached' | 'unreachable' | 'unknown';
  readonly problem: string | null;
}

/** What a sharded database's router keeps. */
export interface RouterCacheStatus {
  readonly database: string;
  readonly entries: number;
  readonly bytes: number;
  readonly hits: number;
  readonly misses: number;
}

export interface ClientCount {
  readonly database: string;
  readonly state: ClientStatus['state'];
  readonly count: number;
}

/** Figures of one moment that nobody but monitoring asks for. */
export interface ProxyFigures {
  readonly clients: readonly ClientCount[];
  readonly pools: readonly (PoolStatus & PoolStats & { readonly size: number })[];
  readonly servers: readonly ReachedServer[];
  readonly routers: readonly RouterCacheStatus[];
  readonly journal: JournalCounts;
  /** prepared statements kept for all clients together */
  readonly statements: number;
}

/** Tables that a migration carries: while it does, nobody may change their schema. */
export interface SchemaGuard {
  readonly migration: string;
  /** names without their schemas, as the catalogue has them */
  readonly tables: ReadonlySet<string>;
  /** a change of their schema passes, and `onSchemaChange` is told */
  readonly allowed: boolean;
}

/** Hooks by which a layer above steers what the proxy cannot decide itself. */
export interface ProxyHooks {
  /**
   * A server refused a statement with the fence's SQLSTATE. The hook closes the gate, asks the record and resolves when
   * the statement may be routed anew; it rejects when the client should read the refusal.
   */
  onFenceRefusal(database: string): Promise<void>;
  /** Asked for every statement: what must not be changed now, as far as is known. Null: everything may be. */
  schemaGuard?(database: string): SchemaGuard | null;
  /** A change that is allowed, as `ALTER TABLE`, is about to be sent. It does not wait for what is made of it. */
  onSchemaChange?(database: string, change: string): void;
  /** The proxy goes by another configuration from now on. */
  onApplied?(config: Config): void;
}

/** An authenticated session of the admin database: gets SQL text, answers rows. */
export interface AdminHandler {
  execute(statement: string): Promise<AdminResult>;
}

export interface AdminColumn {
  readonly name: string;
  readonly type: 'text' | 'bigint' | 'numeric' | 'bool';
}

export interface AdminResult {
  /** the command tag, as `SHOW` or `RESHARD` */
  readonly tag: string;
  readonly columns: readonly AdminColumn[];
  readonly rows: readonly (readonly (string | null)[])[];
  /** sent as NOTICE before the rows */
  readonly notices?: readonly string[];
}

export interface Proxy {
  /** where clients connect to, once listening; the same when no new ones are taken any more */
  readonly address: { readonly host: string; readonly port: number };
  readonly config: Config;
  /**
   * Listens at another port too, which the operating system chooses: where several workers share a port, each is reached
   * alone at its own. Answers the port.
   */
  listenAlone(): Promise<number>;
  /** the gate of a database; one object for the life of the proxy, whatever the name routes to */
  gate(database: string): Gate;
  /**
   * Puts a configuration into force: new names, servers, users. Pools whose server, role and credentials stay the same keep
   * their connections even if the database's *name* changed; a session idle between transactions goes to
   * the new target with its next statement. Synchronous: no client can see half of it.
   */
  apply(config: Config): void;
  /**
   * Waits, at most a quarter of a second, until the sessions that LISTEN hear the servers which apply() has led their database to. What they
   * have on their server beside that cannot go along, and ended them in apply().
   *
   * @returns false at the deadline: those that are late follow by themselves
   */
  listenersMoved(): Promise<boolean>;
  /**
   * Makes the pools of `database` ready to take the load of `like`: as many connections as `like` uses now, with the
   * prepared statements its clients hold. Best effort, bounded by `deadlineMs`. Called ahead of a pause.
   */
  warm(database: string, like: string, deadlineMs: number): Promise<void>;
  /** Closes every server connection of `database`; those in use when they are given back. RECONNECT. */
  reconnect(database?: string): void;
  /**
   * Bans a replica's pool by hand, until it is lifted, or lifts its ban whatever it came from; may be called again.
   *
   * @param poolId null: those of every replica
   * @returns how many pools that are; 0: there is no such pool, or it is no replica's
   */
  setBan(poolId: number | null, banned: boolean): number;
  /** Sends a cancel request for every statement that runs for this database (cutover_drain_action = "cancel"). */
  cancelRunning(database: string): void;
  pools(): readonly PoolStatus[];
  clients(): readonly ClientStatus[];
  servers(): readonly ServerStatus[];
  stats(): readonly PoolStats[];
  /** Stops listening, lets transactions end for at most `graceMs`, closes everything. */
  close(graceMs: number): Promise<void>;
}

/** A proxy as monitoring and the process around it see it. */
export interface WatchedProxy extends Proxy {
  /** at which clients come in */
  readonly listener: Server;
  /**
   * Takes no new client any more, while those that are here, and those that log in, go on. Resolves when the last one has left, or after
   * `patienceMs`. close() comes next; may be called once.
   */
  retire(patienceMs: number): Promise<void>;
  figures(): ProxyFigures;
  /** The servers of `figures()` alone: what a load balancer makes asked every few seconds. */
  reached(): readonly ReachedServer[];
  /** Asks every server to which no connection is open, at most once a second and for a bounded time; `figures()` tells the rest. */
  askServers(): Promise<void>;
}
