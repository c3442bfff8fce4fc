/** One task: what the files say about replicas: how reads are spread, and which pool keys hold for a row by its role. */
import type { DatabaseEntry } from './config.js';
import type { ReplicaConfig } from './replica-config.js';
import type { DatabaseKeys, GeneralKeys } from './schema.js';

const BAN_TIMEOUT_MS = 300_000;
const LSN_CHECK_MS = 5_000;

export function replicaConfig(keys: GeneralKeys, warn: (sentence: string) => void = () => undefined): ReplicaConfig {
  const limited = keys.ban_replica_lag !== undefined || keys.ban_replica_lag_bytes !== undefined;
  if (limited && keys.lsn_check_delay === undefined)
    warn('"ban_replica_lag" and "ban_replica_lag_bytes" have no effect without "lsn_check_delay": no replica is asked');
  return {
    strategy: keys.load_balancing_strategy ?? 'random',
    split: keys.read_write_split ?? 'include_primary',
    transactions: keys.read_write_strategy ?? 'conservative',
    banTimeoutMs: keys.ban_timeout ?? BAN_TIMEOUT_MS,
    lsnCheck: {
      delayMs: keys.lsn_check_delay ?? null,
      intervalMs: keys.lsn_check_interval ?? LSN_CHECK_MS,
      timeoutMs: keys.lsn_check_timeout ?? LSN_CHECK_MS,
    },
    banLagMs: keys.ban_replica_lag ?? null,
    banLagBytes: keys.ban_replica_lag_bytes ?? null,
  };
}

/** Keys of a row that hold for one role only, over those that hold for both. Only keys that are set appear. */
export function roleKeys(keys: DatabaseKeys): Partial<DatabaseEntry> {
  const replica = keys.role === 'replica';
  const poolSize = replica ? keys.pool_size_replica : keys.pool_size_primary;
  const minPoolSize = replica ? keys.min_pool_size_replica : keys.min_pool_size_primary;
  const idleTimeoutMs = replica ? keys.idle_timeout_replica : keys.idle_timeout_primary;
  return {
    ...(poolSize === undefined ? {} : { poolSize }),
    ...(minPoolSize === undefined ? {} : { minPoolSize }),
    ...(idleTimeoutMs === undefined ? {} : { idleTimeoutMs }),
    ...(keys.lb_weight === undefined ? {} : { weight: keys.lb_weight }),
    ...(keys.resharding_only === true ? { reshardingOnly: true } : {}),
  };
}

/**
 * The rows of which the proxy finds out by itself which is the primary: all of a shard, where it has several and they have the role `auto`.
 * Empty where the file says who it is.
 */
export function automaticRows(databases: readonly DatabaseEntry[], name: string, shard = 0): readonly DatabaseEntry[] {
  const rows = databases.filter((row) => row.name === name && row.shard === shard && row.role === 'auto');
  return rows.length > 1 ? rows : [];
}

/** Rows whose servers answer reads beside the primary of a database with one shard. */
export function readReplicas(databases: readonly DatabaseEntry[], name: string): readonly DatabaseEntry[] {
  return databases.filter((row) => row.name === name && row.role === 'replica' && row.reshardingOnly !== true);
}
