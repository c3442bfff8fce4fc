/**
 * One task: the keys of pgdog.toml and users.toml: which have an effect, which are accepted without one, which are refused.
 *
 * PgDog's users keep their files, so every key of PgDog is known here. A key without an effect is named in a warning. A key
 * is *refused* where ignoring it would be unsafe: it forbids something (writes, plain text) that the proxy would then allow.
 * `docs/configuration.md` lists the same keys; a test compares the two.
 */
import { z } from 'zod';
import { REPLICA_DATABASE, REPLICA_GENERAL } from './replica-schema.js';
import { SHARDED_TABLES_IGNORED, SHARDING_TABLES } from './sharding-schema.js';
import { TCP, TCP_IGNORED } from './tcp.js';

/** Longest delay of a Node timer; a longer one would fire at once (Node documentation, `setTimeout`). */
export const TIME_MAX_MS = 2_147_483_647;
const CONNECTIONS_MAX = 10_000;
const STATEMENTS_MAX = 1_000_000;
const CLIENTS_MAX = 1_000_000;
const PARALLEL_COPIES_MAX = 64;
const ATTEMPTS_MAX = 1_000;
const LEASE_MIN_MS = 100;
const LEASE_MAX_MS = 60_000;
const SHARD_MAX = 1_023;

const timeMs = z.int().min(0).max(TIME_MAX_MS);
const positiveTimeMs = z.int().min(1).max(TIME_MAX_MS);
const sizeBytes = z.int().min(0);
const port = z.int().min(1).max(65_535);
const text = z.string().min(1);
const poolSize = z.int().min(0).max(CONNECTIONS_MAX);
const poolerMode = z.enum(['transaction', 'session', 'statement']);

/** Known keys whose value is not looked at. */
function ignored<const Key extends string>(keys: readonly Key[]): Record<Key, z.ZodOptional<z.ZodUnknown>> {
  return Object.fromEntries(keys.map((key) => [key, z.unknown().optional()])) as Record<
    Key,
    z.ZodOptional<z.ZodUnknown>
  >;
}

/** A key that must keep a harmless value, because the proxy cannot do what the others ask for. */
function only<const Value extends string | boolean>(
  values: readonly Value[],
  problem: string,
): z.ZodOptional<z.ZodLiteral<Value>> {
  return z.literal(values, { error: problem }).optional();
}

/** Names that metrics may begin with; a dot, as Datadog has it, is written as "_". */
const NAMESPACE = /^[A-Za-z_:][\w:.]{0,63}$/;
/** As PostgreSQL stores passwords (PostgreSQL documentation, 52.9). */
const PASSWORD_HASH = /^(?:SCRAM-SHA-256\$\d{1,7}:[^$:]+\$[^$:]+:[^$:]+|md5[0-9a-f]{32})$/;
/** A level, or PgDog's list of directives, in which only a bare level has an effect. */
const LOG_LEVEL = /^(?:(?:off|error|warn|info|debug|trace|[\w:]+=\w+)(?:,(?!$)|$))+$/i;
const listeningPort = z.int().min(0).max(65_535);

/** `[general]` keys with an effect. Port 0 lets the operating system choose, for tests and `--dev`. */
export const GENERAL = {
  host: text.optional(),
  port: listeningPort.optional(),
  healthcheck_port: listeningPort.optional(),
  openmetrics_port: listeningPort.optional(),
  openmetrics_namespace: z.string().regex(NAMESPACE, 'letters, digits, "_", ":" and ".", at most 64').optional(),
  log_connections: z.boolean().optional(),
  log_disconnections: z.boolean().optional(),
  log_format: z.enum(['text', 'json', 'json_flattened']).optional(),
  log_level: z.string().regex(LOG_LEVEL, 'one of off, error, warn, info, debug, trace').optional(),
  default_pool_size: poolSize.optional(),
  max_pool_size: poolSize.optional(),
  min_pool_size: poolSize.optional(),
  pooler_mode: poolerMode.optional(),
  auth_type: z.enum(['scram', 'md5', 'plain', 'trust']).optional(),
  passthrough_auth: z
    .enum(['disabled', 'enabled', 'enabled_plain', 'enabled_allow_change', 'enabled_plain_allow_change'])
    .optional(),
  connect_timeout: positiveTimeMs.optional(),
  connect_attempts: z.int().min(1).max(ATTEMPTS_MAX).optional(),
  connect_attempt_delay: timeMs.optional(),
  checkout_timeout: positiveTimeMs.optional(),
  idle_timeout: positiveTimeMs.optional(),
  client_login_timeout: positiveTimeMs.optional(),
  client_idle_timeout: positiveTimeMs.optional(),
  client_idle_in_transaction_timeout: positiveTimeMs.optional(),
  rollback_timeout: positiveTimeMs.optional(),
  connection_recovery: z.enum(['recover', 'rollback_only', 'drop']).optional(),
  client_connection_recovery: z.enum(['recover', 'drop']).optional(),
  server_lifetime: positiveTimeMs.optional(),
  server_lifetime_jitter: timeMs.optional(),
  healthcheck_interval: timeMs.optional(),
  healthcheck_timeout: positiveTimeMs.optional(),
  idle_healthcheck_interval: timeMs.optional(),
  idle_healthcheck_delay: timeMs.optional(),
  shutdown_timeout: timeMs.optional(),
  shutdown_termination_timeout: timeMs.optional(),
  query_timeout: positiveTimeMs.optional(),
  tls_certificate: text.optional(),
  tls_private_key: text.optional(),
  tls_client_required: z.boolean().optional(),
  tls_client_ca_certificate: text.optional(),
  tls_verify: z.enum(['prefer', 'disabled', 'verify_ca', 'verify_full']).optional(),
  tls_server_ca_certificate: text.optional(),
  tls_server_certificate: text.optional(),
  tls_server_private_key: text.optional(),
  dns_ttl: positiveTimeMs.optional(),
  prepared_statements: z.enum(['extended', 'extended_anonymous', 'full', 'disabled']).optional(),
  prepared_statements_limit: z.int().min(1).max(STATEMENTS_MAX).optional(),
  prepared_statements_ttl: positiveTimeMs.optional(),
  prepared_statements_ttl_jitter: timeMs.optional(),
  pipelining: z.enum(['auto', 'off']).optional(),
  cutover_max_clients: z.int().min(0).max(CLIENTS_MAX).optional(),
  cutover_traffic_stop_threshold: sizeBytes.optional(),
  cutover_replication_lag_threshold: sizeBytes.optional(),
  cutover_last_transaction_delay: timeMs.optional(),
  cutover_timeout: positiveTimeMs.optional(),
  cutover_timeout_action: z.enum(['abort', 'cutover']).optional(),
  cutover_save_config: z.boolean().optional(),
  cutover_lease: z.int().min(LEASE_MIN_MS).max(LEASE_MAX_MS).optional(),
  cutover_drain_action: z.enum(['abort', 'cancel']).optional(),
  cutover_session_state: z.enum(['wait', 'close']).optional(),
  cutover_drain_timeout: positiveTimeMs.optional(),
  cutover_max_attempts: z.int().min(1).max(ATTEMPTS_MAX).optional(),
  cutover_soak: timeMs.optional(),
  cutover_verify: z.enum(['off', 'require']).optional(),
  cutover_verify_window: positiveTimeMs.optional(),
  cutover_ddl: z.enum(['refuse', 'allow']).optional(),
  cutover_retained_wal_limit: sizeBytes.optional(),
  cutover_slot_lag_limit: sizeBytes.optional(),
  cutover_slot_limit_action: z.enum(['warn', 'abort']).optional(),
  cutover_fence: z.enum(['on', 'off']).optional(),
  cutover_prepare: z.enum(['off', 'auto']).optional(),
  cutover_copy_range_bytes: sizeBytes.optional(),
  resharding_parallel_copies: z.int().min(1).max(PARALLEL_COPIES_MAX).optional(),
  resharding_copy_bytes_per_second: z.int().min(1).optional(),
  resharding_copy_format: z.enum(['binary', 'text']).optional(),
  ...REPLICA_GENERAL,
};

// prettier-ignore
const GENERAL_IGNORED = ignored([
  'workers', 'require_healthcheck_on_discovery', 'pub_sub_channel_size', 'stats_period', 'mirror_queue', 'mirror_exposure',
  'cross_shard_disabled', 'dry_run', 'expanded_explain',
  'omnisharded_sticky', 'system_catalogs', 'query_parser', 'query_parser_enabled', 'query_parser_engine',
  'query_cache_limit', 'load_schema', 'reload_schema_on_ddl', 'canonicalize_type_information', 'unique_id_function',
  'unique_id_min', 'sharding_lookup_cache_size', 'sharding_lookup_timeout', 'two_phase_commit', 'two_phase_commit_auto',
  'two_phase_commit_wal_dir', 'two_phase_commit_wal_segment_size', 'two_phase_commit_wal_fsync_interval',
  'two_phase_commit_wal_checkpoint_interval', 'resharding_copy_retry_max_attempts', 'resharding_copy_retry_min_delay',
  'resharding_replication_retry_max_attempts', 'resharding_replication_retry_min_delay', 'broadcast_address',
  'broadcast_port', 'query_log',
]);

/** Keys that `[[databases]]` and `[[users]]` share. */
const POOL = {
  pool_size: poolSize.optional(),
  max_pool_size: poolSize.optional(),
  min_pool_size: poolSize.optional(),
  pooler_mode: poolerMode.optional(),
  statement_timeout: timeMs.optional(),
  lock_timeout: timeMs.optional(),
  idle_timeout: positiveTimeMs.optional(),
  server_lifetime: positiveTimeMs.optional(),
  server_lifetime_jitter: timeMs.optional(),
};

const READ_ONLY = only(
  [false],
  'read_only is not enforced: each transaction may ask for READ WRITE itself, so writes would be let through',
);

const DATABASE = {
  name: text,
  host: text,
  port: port.optional(),
  role: z.enum(['primary', 'replica', 'auto']).optional(),
  shard: z.int().min(0).max(SHARD_MAX).optional(),
  database_name: text.optional(),
  user: text.optional(),
  password: z.string().optional(),
  ...POOL,
  ...REPLICA_DATABASE,
};

// prettier-ignore
const DATABASE_IGNORED = ignored([
]);

const USER = {
  name: text,
  database: text.optional(),
  databases: z.array(text).optional(),
  all_databases: z.boolean().optional(),
  password: z.string().optional(),
  passwords: z.array(z.string()).optional(),
  password_hash: z.string().regex(PASSWORD_HASH, 'a SCRAM verifier or an md5 hash, as in pg_authid').optional(),
  identity: z.string().regex(/^[^.]/, 'a name, without a "." before it').optional(),
  server_user: text.optional(),
  server_password: z.string().optional(),
  schema_admin: z.boolean().optional(),
  tls_client_certificate_required: z.boolean().optional(),
  ...POOL,
};

const USER_REFUSED = {
  read_only: READ_ONLY,
  server_auth: only(['password'], 'only password authentication toward servers is implemented'),
  vault_path: z.never({ error: 'Vault is not implemented, so the password could not be checked' }).optional(),
};

// prettier-ignore
const USER_IGNORED = ignored([
  'server_iam_region', 'server_vault_path',
  'vault_refresh_percent', 'replication_mode', 'replication_sharding', 'cross_shard_disabled', 'two_phase_commit',
  'two_phase_commit_auto',
]);

/** A name in the list of nodes and in every message; `/` separates the workers of one node. */
const NODE = z.strictObject({
  name: z.string().regex(/^[\w.-]{1,63}$/, 'a name of letters, digits, ".", "_" and "-"'),
  host: text,
  port,
});

const ADMIN = z.strictObject({ name: text.optional(), user: text.optional(), password: text.optional() });

/** A table, or an array of tables, that has no effect here; its keys are still checked for spelling. */
const ignoredTable = <const Key extends string>(keys: readonly Key[]) => z.strictObject(ignored(keys)).optional();
const ignoredTables = <const Key extends string>(keys: readonly Key[]) =>
  z.array(z.strictObject(ignored(keys))).optional();

// prettier-ignore
const TABLES_IGNORED = {
  memory: ignoredTable(['net_buffer', 'message_buffer', 'stack_size']),
  rewrite: ignoredTable(['enabled', 'shard_key', 'split_inserts', 'primary_key']),
  replica_lag: ignoredTable(['check_interval', 'max_age']),
  query_parsers: ignoredTables(['database', 'level', 'engine']),
  mirroring: ignoredTables(['source_db', 'destination_db', 'queue_length', 'queue_depth', 'exposure', 'level']),
  // Ignored as a whole: what is inside belongs to a product or plugin that is not here.
  ...ignored(['plugins', 'manual_queries', 'vault', 'control', 'stats', 'otel']),
};

export const CONFIG_FILE = z.strictObject({
  general: z.strictObject({ ...GENERAL_IGNORED, ...GENERAL }).optional(),
  databases: z.array(z.strictObject({ ...DATABASE_IGNORED, read_only: READ_ONLY, ...DATABASE })).optional(),
  admin: ADMIN.optional(),
  nodes: z.array(NODE).optional(),
  temporal: z.strictObject({ address: text, namespace: text, task_queue: text }).partial().optional(),
  replication: z.strictObject({ pg_dump_path: text.optional() }).optional(),
  multi_tenant: z
    .never({ error: 'the tenant check is not implemented, and without it queries would be let through' })
    .optional(),
  tcp: z.strictObject({ ...ignored(TCP_IGNORED), ...TCP }).optional(),
  ...SHARDING_TABLES,
  ...TABLES_IGNORED,
});

export const USERS_FILE = z.strictObject({
  users: z.array(z.strictObject({ ...USER_IGNORED, ...USER_REFUSED, ...USER })).optional(),
  admin: ADMIN.optional(),
});

/** Keys named in a warning, by table; `''` holds the tables that are ignored altogether. */
export const IGNORED: Readonly<Record<string, ReadonlySet<string>>> = {
  '': new Set(Object.keys(TABLES_IGNORED)),
  general: new Set(Object.keys(GENERAL_IGNORED)),
  databases: new Set(Object.keys(DATABASE_IGNORED)),
  users: new Set(Object.keys(USER_IGNORED)),
  tcp: new Set(TCP_IGNORED),
  sharded_tables: new Set(SHARDED_TABLES_IGNORED),
};

export type ConfigFile = z.infer<typeof CONFIG_FILE>;
export type UsersFile = z.infer<typeof USERS_FILE>;
export type GeneralKeys = NonNullable<ConfigFile['general']>;
export type DatabaseKeys = NonNullable<ConfigFile['databases']>[number];
export type UserKeys = NonNullable<UsersFile['users']>[number];
export type AdminKeys = z.infer<typeof ADMIN>;
