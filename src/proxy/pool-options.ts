/** One task: say what the configuration asks of the pool of one user and one target. */
import type { Config, DatabaseEntry, PoolerMode, UserEntry } from '../config/config.js';
import { endpointFor, type Endpoint } from '../postgres/endpoint.js';

/**
 * Which servers a pool lends: any, one that is a primary (a standby counts as one that cannot be reached, and who waits goes on waiting, since
 * another server may soon be promoted), or none as long as nobody is the primary.
 */
export type PoolAccess = 'any' | 'primary' | 'nobody';

export interface PoolOptions {
  readonly endpoint: Endpoint;
  readonly access: PoolAccess;
  readonly size: number;
  readonly minimum: number;
  readonly mode: PoolerMode;
  /** bound of one attempt */
  readonly connectTimeoutMs: number;
  readonly connectAttempts: number;
  /** between two attempts */
  readonly connectAttemptDelayMs: number;
  readonly checkoutTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** for taking away what a client has left */
  readonly rollbackTimeoutMs: number;
  readonly serverLifetimeMs: number;
  /** how much sooner or later than that a connection ends, by chance */
  readonly serverLifetimeJitterMs: number;
  /** unused for as long, a connection is checked before it is lent */
  readonly healthcheckIntervalMs: number;
  readonly healthcheckTimeoutMs: number;
  /** 0 = idle connections are not checked by themselves */
  readonly idleHealthcheckIntervalMs: number;
  /** from the beginning of the pool to the first of these checks */
  readonly idleHealthcheckDelayMs: number;
  readonly preparedStatementsLimit: number;
  /** unused for as long, a statement is closed at its server; null: never */
  readonly preparedStatementsTtlMs: number | null;
  readonly preparedStatementsTtlJitterMs: number;
  /** what each session at the server begins with, by the names of PostgreSQL */
  readonly serverSettings: Readonly<Record<string, string>>;
}

const ACCESS = { named: 'any', elected: 'primary', none: 'nobody' } as const;

/** User before database before general. Without the mode, which is not this pool's alone to say. */
export function poolOptionsOf(config: Config, entry: DatabaseEntry, user: UserEntry): Omit<PoolOptions, 'mode'> {
  const { general } = config;
  return {
    endpoint: endpointFor(config, entry, user),
    access: ACCESS[entry.election ?? 'named'],
    size: Math.max(1, user.poolSize ?? entry.poolSize ?? general.defaultPoolSize),
    minimum: user.minPoolSize ?? entry.minPoolSize ?? general.minPoolSize,
    connectTimeoutMs: general.connectTimeoutMs,
    connectAttempts: general.connectAttempts,
    connectAttemptDelayMs: general.connectAttemptDelayMs,
    checkoutTimeoutMs: general.checkoutTimeoutMs,
    idleTimeoutMs: user.idleTimeoutMs ?? entry.idleTimeoutMs ?? general.idleTimeoutMs,
    rollbackTimeoutMs: general.rollbackTimeoutMs,
    serverLifetimeMs: user.serverLifetimeMs ?? entry.serverLifetimeMs ?? general.serverLifetimeMs,
    serverLifetimeJitterMs:
      user.serverLifetimeJitterMs ?? entry.serverLifetimeJitterMs ?? general.serverLifetimeJitterMs,
    healthcheckIntervalMs: general.healthcheckIntervalMs,
    healthcheckTimeoutMs: general.healthcheckTimeoutMs,
    idleHealthcheckIntervalMs: general.idleHealthcheckIntervalMs,
    idleHealthcheckDelayMs: general.idleHealthcheckDelayMs,
    preparedStatementsLimit: general.preparedStatementsLimit,
    preparedStatementsTtlMs: general.preparedStatementsTtlMs,
    preparedStatementsTtlJitterMs: general.preparedStatementsTtlJitterMs,
    serverSettings: serverSettingsOf(entry, user),
  };
}

function serverSettingsOf(entry: DatabaseEntry, user: UserEntry): Record<string, string> {
  const statementTimeoutMs = user.statementTimeoutMs ?? entry.statementTimeoutMs;
  const lockTimeoutMs = user.lockTimeoutMs ?? entry.lockTimeoutMs;
  return {
    ...(statementTimeoutMs === undefined ? {} : { statement_timeout: statementTimeoutMs.toString() }),
    ...(lockTimeoutMs === undefined ? {} : { lock_timeout: lockTimeoutMs.toString() }),
  };
}
