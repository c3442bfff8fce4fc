/** One task: SHOW CONFIG, SHOW LISTS, SHOW VERSION and any other SHOW. */
import type { Config } from '../config/config.js';
import type { AdminResult, Proxy } from '../proxy/contract.js';
import { bigint, table, text, type Column } from './table.js';

type Setting = readonly [name: string, value: string | number | boolean | null | undefined];

/** Every setting in force under its name in the files, in the units of the files; never a password. */
export function showConfig(config: Config): AdminResult {
  const columns: readonly Column<Setting>[] = [
    text('name', ([name]) => name),
    text('value', ([, value]) => String(value ?? 'default')),
  ];
  const settings = [
    ...generalSettings(config),
    ...cutoverSettings(config),
    ...replicaSettings(config),
    ...watchedSettings(config),
    ...otherSettings(config),
  ];
  return table(
    columns,
    settings.sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

function generalSettings({ general, tls }: Config): Setting[] {
  return [
    ['host', general.host],
    ['port', general.port],
    ['default_pool_size', general.defaultPoolSize],
    ['min_pool_size', general.minPoolSize],
    ['pooler_mode', general.poolerMode],
    ['auth_type', general.authType],
    ['passthrough_auth', general.passthroughAuth],
    ['connect_timeout', general.connectTimeoutMs],
    ['connect_attempts', general.connectAttempts],
    ['connect_attempt_delay', general.connectAttemptDelayMs],
    ['checkout_timeout', general.checkoutTimeoutMs],
    ['idle_timeout', general.idleTimeoutMs],
    ['cutover_max_clients', general.maxClients],
    ['client_login_timeout', general.clientLoginTimeoutMs],
    ['client_idle_timeout', general.clientIdleTimeoutMs],
    ['client_idle_in_transaction_timeout', general.clientIdleInTransactionTimeoutMs],
    ['client_connection_recovery', general.clientConnectionRecovery],
    ['connection_recovery', general.connectionRecovery],
    ['rollback_timeout', general.rollbackTimeoutMs],
    ['server_lifetime', general.serverLifetimeMs],
    ['server_lifetime_jitter', general.serverLifetimeJitterMs],
    ['healthcheck_interval', general.healthcheckIntervalMs],
    ['healthcheck_timeout', general.healthcheckTimeoutMs],
    ['idle_healthcheck_interval', general.idleHealthcheckIntervalMs],
    ['idle_healthcheck_delay', general.idleHealthcheckDelayMs],
    ['shutdown_timeout', general.shutdownTimeoutMs],
    ['shutdown_termination_timeout', general.shutdownTerminationTimeoutMs],
    ['query_timeout', general.queryTimeoutMs],
    ['dns_ttl', general.dnsTtlMs],
    ['prepared_statements', general.preparedStatements],
    ['prepared_statements_limit', general.preparedStatementsLimit],
    ['prepared_statements_ttl', general.preparedStatementsTtlMs],
    ['prepared_statements_ttl_jitter', general.preparedStatementsTtlJitterMs],
    ['pipelining', general.pipelining],
    ['tls_certificate', tls.clients?.pair.certificate.path],
    ['tls_private_key', tls.clients?.pair.privateKey.path],
    ['tls_client_required', tls.clients?.required ?? false],
    ['tls_client_ca_certificate', tls.clients?.authority?.path],
    ['tls_verify', tls.servers.verify],
    ['tls_server_ca_certificate', tls.servers.authority?.path],
    ['tls_server_certificate', tls.servers.pair?.certificate.path],
    ['tls_server_private_key', tls.servers.pair?.privateKey.path],
  ];
}

function cutoverSettings({ cutover }: Config): Setting[] {
  return [
    ['cutover_traffic_stop_threshold', cutover.trafficStopThresholdBytes],
    ['cutover_replication_lag_threshold', cutover.replicationLagThresholdBytes],
    ['cutover_last_transaction_delay', cutover.lastTransactionDelayMs],
    ['cutover_timeout', cutover.timeoutMs],
    ['cutover_timeout_action', cutover.timeoutAction],
    ['cutover_save_config', cutover.saveConfig],
    ['cutover_lease', cutover.leaseMs],
    ['cutover_drain_action', cutover.drainAction],
    ['cutover_session_state', cutover.sessionState],
    ['cutover_drain_timeout', cutover.drainTimeoutMs],
    ['cutover_max_attempts', cutover.maxAttempts],
    ['cutover_soak', cutover.soakMs],
    ['cutover_fence', cutover.fence],
    ['cutover_prepare', cutover.prepare],
    ['cutover_ddl', cutover.ddl],
    ['cutover_retained_wal_limit', cutover.retainedWalLimitBytes],
    ['cutover_slot_lag_limit', cutover.slotLagLimitBytes],
    ['cutover_slot_limit_action', cutover.slotLimitAction],
    ['cutover_verify', cutover.verify],
    ['cutover_verify_window', cutover.verifyWindowMs],
    ['resharding_parallel_copies', cutover.parallelCopies],
    ['resharding_copy_bytes_per_second', cutover.copyBytesPerSecond],
    ['resharding_copy_format', cutover.copyFormat],
    ['cutover_copy_range_bytes', cutover.copyRangeBytes],
  ];
}

function replicaSettings({ replicas }: Config): Setting[] {
  return [
    ['load_balancing_strategy', replicas.strategy],
    ['read_write_split', replicas.split],
    ['read_write_strategy', replicas.transactions],
    ['ban_timeout', replicas.banTimeoutMs],
    ['lsn_check_delay', replicas.lsnCheck.delayMs],
    ['lsn_check_interval', replicas.lsnCheck.intervalMs],
    ['lsn_check_timeout', replicas.lsnCheck.timeoutMs],
    ['ban_replica_lag', replicas.banLagMs],
    ['ban_replica_lag_bytes', replicas.banLagBytes],
  ];
}

function watchedSettings({ logging, monitoring }: Config): Setting[] {
  return [
    ['log_connections', logging.connections],
    ['log_disconnections', logging.disconnections],
    ['log_format', logging.format],
    ['log_level', logging.level],
    ['healthcheck_port', monitoring.healthcheckPort],
    ['openmetrics_port', monitoring.openmetricsPort],
    ['openmetrics_namespace', monitoring.namespace === '' ? null : monitoring.namespace],
  ];
}

function otherSettings({ admin, temporal, replication, tcp }: Config): Setting[] {
  return [
    ['tcp_keepalive', tcp.keepAliveMs !== null],
    ['tcp_time', tcp.keepAliveMs],
    ['admin_name', admin.name],
    ['admin_user', admin.user],
    ['temporal_address', temporal.address],
    ['temporal_namespace', temporal.namespace],
    ['temporal_task_queue', temporal.taskQueue],
    ['replication_pg_dump_path', replication.pgDumpPath],
  ];
}

export function showLists(proxy: Proxy): AdminResult {
  const { databases, users } = proxy.config;
  const [clients, servers] = [proxy.clients(), proxy.servers()];
  const usedClients = clients.filter((client) => client.state !== 'idle').length;
  const usedServers = servers.filter((server) => server.state !== 'idle').length;
  const columns: readonly Column<null>[] = [
    bigint('databases', () => new Set(databases.map((entry) => entry.name)).size),
    bigint('users', () => new Set(users.map((entry) => entry.name)).size),
    bigint('pools', () => proxy.pools().length),
    bigint('used_clients', () => usedClients),
    bigint('free_clients', () => clients.length - usedClients),
    bigint('free_servers', () => servers.length - usedServers),
    bigint('used_servers', () => usedServers),
  ];
  return table(columns, [null]);
}

export function showVersion(version: string): AdminResult {
  return table([text<string>('version', (value) => `Cutover v${value}`)], [version]);
}

/** PgDog answers any other SHOW with an empty value, so that drivers which ask for settings go on. */
export function showOther(name: string, value = ''): AdminResult {
  return table([text<string>(name, (cell) => cell)], [value]);
}
