/** One task: the keys of pgdog.toml that are about replicas and the reads they serve. */
import { z } from 'zod';

const TIME_MAX_MS = 2_147_483_647;
const CONNECTIONS_MAX = 10_000;
const WEIGHT_MAX = 255;

const poolSize = z.int().min(0).max(CONNECTIONS_MAX);
const timeMs = z.int().min(0).max(TIME_MAX_MS);

/** Of `[general]`. */
export const REPLICA_GENERAL = {
  load_balancing_strategy: z
    .enum(['random', 'round_robin', 'least_active_connections', 'weighted_round_robin'])
    .optional(),
  read_write_strategy: z.enum(['conservative', 'aggressive']).optional(),
  read_write_split: z
    .enum(['include_primary', 'exclude_primary', 'include_primary_if_replica_banned', 'prefer_primary'])
    .optional(),
  ban_timeout: timeMs.optional(),
  lsn_check_delay: timeMs.optional(),
  lsn_check_interval: timeMs.min(1).optional(),
  lsn_check_timeout: timeMs.min(1).optional(),
  ban_replica_lag: timeMs.min(1).optional(),
  ban_replica_lag_bytes: z.int().min(1).optional(),
};

/** Of a row of `[[databases]]`. */
export const REPLICA_DATABASE = {
  lb_weight: z.int().min(0).max(WEIGHT_MAX).optional(),
  resharding_only: z.boolean().optional(),
  pool_size_primary: poolSize.optional(),
  pool_size_replica: poolSize.optional(),
  min_pool_size_primary: poolSize.optional(),
  min_pool_size_replica: poolSize.optional(),
  idle_timeout_primary: timeMs.min(1).optional(),
  idle_timeout_replica: timeMs.min(1).optional(),
};
