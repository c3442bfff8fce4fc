/** One task: the pool keys that `[[databases]]` and `[[users]]` share. */
import type { PoolKeys } from './config.js';
import type { DatabaseKeys, UserKeys } from './schema.js';

/** Only keys that are set appear; `max_pool_size` is PgDog's alias of `pool_size`. */
export function poolKeys(keys: DatabaseKeys | UserKeys): PoolKeys {
  const poolSize = keys.pool_size ?? keys.max_pool_size;
  return {
    ...(poolSize === undefined ? {} : { poolSize }),
    ...(keys.min_pool_size === undefined ? {} : { minPoolSize: keys.min_pool_size }),
    ...(keys.pooler_mode === undefined ? {} : { poolerMode: keys.pooler_mode }),
    ...(keys.statement_timeout === undefined ? {} : { statementTimeoutMs: keys.statement_timeout }),
    ...(keys.lock_timeout === undefined ? {} : { lockTimeoutMs: keys.lock_timeout }),
    ...(keys.idle_timeout === undefined ? {} : { idleTimeoutMs: keys.idle_timeout }),
    ...(keys.server_lifetime === undefined ? {} : { serverLifetimeMs: keys.server_lifetime }),
    ...(keys.server_lifetime_jitter === undefined ? {} : { serverLifetimeJitterMs: keys.server_lifetime_jitter }),
  };
}

/** The sentence for an entry that has both names of one key, or null. */
export function aliasProblem(keys: DatabaseKeys | UserKeys): string | null {
  const both = keys.pool_size !== undefined && keys.max_pool_size !== undefined;
  return both ? '"max_pool_size" is another name of "pool_size": keep one' : null;
}
