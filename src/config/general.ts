/** One task: the `[general]` table with its defaults (PgDog's, where PgDog has the key). */
import type { CutoverConfig, GeneralConfig } from './config.js';
import type { GeneralKeys } from './schema.js';

/** PgDog has no limit here; ours is high, but a limit. */
const PREPARED_STATEMENTS_LIMIT = 10_000;

/** PgDog has no limit here. As many idle ones take about 120 MB (docs/evidence/scale.md). */
const MAX_CLIENTS = 10_000;

/** Ten gigabytes: an alarm before most disks are full, and far above what a healthy stream keeps. */
const SLOT_LIMIT_BYTES = 10_000_000_000;

/** Four gigabytes: what PostgreSQL itself copies within a minute or two, and whose loss nobody minds when a server is lost in the middle. */
const COPY_RANGE_BYTES = 4_000_000_000;

export function generalConfig(keys: GeneralKeys): GeneralConfig {
  return {
    host: keys.host ?? '0.0.0.0',
    port: keys.port ?? 6432,
    defaultPoolSize: keys.default_pool_size ?? 10,
    minPoolSize: keys.min_pool_size ?? 1,
    poolerMode: keys.pooler_mode ?? 'transaction',
    authType: keys.auth_type ?? 'scram',
    passthroughAuth: keys.passthrough_auth ?? 'disabled',
    connectTimeoutMs: keys.connect_timeout ?? 5_000,
    connectAttempts: keys.connect_attempts ?? 1,
    connectAttemptDelayMs: keys.connect_attempt_delay ?? 0,
    checkoutTimeoutMs: keys.checkout_timeout ?? 5_000,
    idleTimeoutMs: keys.idle_timeout ?? 60_000,
    maxClients: keys.cutover_max_clients === 0 ? MAX_CLIENTS : (keys.cutover_max_clients ?? MAX_CLIENTS),
    clientLoginTimeoutMs: keys.client_login_timeout ?? 60_000,
    clientIdleTimeoutMs: keys.client_idle_timeout ?? null,
    clientIdleInTransactionTimeoutMs: keys.client_idle_in_transaction_timeout ?? null,
    clientConnectionRecovery: keys.client_connection_recovery ?? 'recover',
    connectionRecovery: keys.connection_recovery ?? 'recover',
    rollbackTimeoutMs: keys.rollback_timeout ?? 5_000,
    serverLifetimeMs: keys.server_lifetime ?? 86_400_000,
    serverLifetimeJitterMs: keys.server_lifetime_jitter ?? 0,
    healthcheckIntervalMs: keys.healthcheck_interval ?? 30_000,
    healthcheckTimeoutMs: keys.healthcheck_timeout ?? 5_000,
    idleHealthcheckIntervalMs: keys.idle_healthcheck_interval ?? 30_000,
    idleHealthcheckDelayMs: keys.idle_healthcheck_delay ?? 5_000,
    shutdownTimeoutMs: keys.shutdown_timeout ?? 60_000,
    shutdownTerminationTimeoutMs: keys.shutdown_termination_timeout ?? null,
    queryTimeoutMs: keys.query_timeout ?? null,
    dnsTtlMs: keys.dns_ttl ?? null,
    preparedStatements: keys.prepared_statements ?? 'extended',
    preparedStatementsLimit: keys.prepared_statements_limit ?? PREPARED_STATEMENTS_LIMIT,
    preparedStatementsTtlMs: keys.prepared_statements_ttl ?? null,
    preparedStatementsTtlJitterMs: keys.prepared_statements_ttl_jitter ?? 30_000,
    pipelining: keys.pipelining ?? 'off',
  };
}

export function cutoverConfig(keys: GeneralKeys, warn: (sentence: string) => void): CutoverConfig {
  if (keys.cutover_last_transaction_delay !== undefined) {
    warn(
      '"cutover_last_transaction_delay" is no longer needed and has no effect: parity is exact, also on an idle source',
    );
  }
  if (keys.cutover_replication_lag_threshold !== undefined) {
    warn(
      '"cutover_replication_lag_threshold" is no longer needed and has no effect: the swap waits for the last write',
    );
  }
  if (keys.cutover_timeout_action === 'cutover') {
    warn('"cutover_timeout_action = cutover" swaps without parity, and only where the request says acceptLoss');
  }
  if (keys.cutover_fence === 'off') {
    warn(
      '"cutover_fence = off" bars no writer that bypasses the proxy: such a write may be lost, or made on the wrong side',
    );
  }
  return {
    trafficStopThresholdBytes: keys.cutover_traffic_stop_threshold ?? 1_000_000,
    replicationLagThresholdBytes: keys.cutover_replication_lag_threshold ?? 0,
    lastTransactionDelayMs: keys.cutover_last_transaction_delay ?? 1_000,
    timeoutMs: keys.cutover_timeout ?? 30_000,
    timeoutAction: keys.cutover_timeout_action ?? 'abort',
    saveConfig: keys.cutover_save_config ?? false,
    leaseMs: keys.cutover_lease ?? 2_000,
    drainAction: keys.cutover_drain_action ?? 'abort',
    sessionState: keys.cutover_session_state ?? 'wait',
    drainTimeoutMs: keys.cutover_drain_timeout ?? 1_000,
    maxAttempts: keys.cutover_max_attempts ?? 10,
    soakMs: keys.cutover_soak ?? null,
    verify: keys.cutover_verify ?? 'off',
    verifyWindowMs: keys.cutover_verify_window ?? 86_400_000,
    ddl: keys.cutover_ddl ?? 'refuse',
    retainedWalLimitBytes: keys.cutover_retained_wal_limit ?? SLOT_LIMIT_BYTES,
    slotLagLimitBytes: keys.cutover_slot_lag_limit ?? SLOT_LIMIT_BYTES,
    slotLimitAction: keys.cutover_slot_limit_action ?? 'warn',
    fence: keys.cutover_fence ?? 'on',
    prepare: keys.cutover_prepare ?? 'off',
    parallelCopies: keys.resharding_parallel_copies ?? 1,
    copyBytesPerSecond: keys.resharding_copy_bytes_per_second ?? null,
    copyFormat: keys.resharding_copy_format ?? 'binary',
    copyRangeBytes: keys.cutover_copy_range_bytes ?? COPY_RANGE_BYTES,
  };
}
