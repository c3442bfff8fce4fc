/** One task: the configuration of the simulated fleet, made in memory. */
import type { Config, DatabaseEntry, NodeEntry } from '../../src/config/config.js';
import { cutoverConfig, generalConfig } from '../../src/config/general.js';
import { loggingConfig, monitoringConfig } from '../../src/config/monitoring.js';
import { replicaConfig } from '../../src/config/replicas.js';
import { NOT_SHARDED } from '../../src/config/sharding.js';
import { tcpConfig } from '../../src/config/tcp.js';
import { NO_TLS } from '../../src/config/tls.js';

export interface Patience {
  readonly leaseMs: number;
  readonly drainMs: number;
  readonly timeoutMs: number;
  readonly attempts: number;
}

export const PORT = 6432;
export const SOURCE_HOST = 'source';
export const DESTINATION_HOST = 'destination';

function database(name: string, host: string): DatabaseEntry {
  return { name, host, port: 5432, role: 'primary', shard: 0, databaseName: 'app' };
}

/** What stands in the files of every node: `app` is at the source, `app_new` at the destination. */
export function configurationOf(nodes: readonly string[], patience: Patience): Config {
  const user = { name: 'app', passwords: ['simulated'], schemaAdmin: true };
  const rows: NodeEntry[] = nodes.map((name) => ({ name, host: name, port: PORT }));
  const keys = {
    cutover_lease: patience.leaseMs,
    cutover_drain_timeout: patience.drainMs,
    cutover_timeout: patience.timeoutMs,
    cutover_max_attempts: patience.attempts,
  };
  return {
    general: generalConfig({}),
    tls: NO_TLS,
    tcp: tcpConfig({}),
    databases: [database('app', SOURCE_HOST), database('app_new', DESTINATION_HOST)],
    replicas: replicaConfig({}),
    sharding: NOT_SHARDED,
    users: [
      { ...user, database: 'app' },
      { ...user, database: 'app_new' },
    ],
    admin: { name: 'admin', user: 'admin', password: 'simulated', passwordConfigured: true },
    nodes: rows,
    temporal: { taskQueue: 'cutover' },
    replication: {},
    cutover: cutoverConfig(keys, () => undefined),
    logging: loggingConfig({}, () => undefined),
    monitoring: monitoringConfig({}, () => undefined),
    files: null,
    warnings: [],
  };
}
