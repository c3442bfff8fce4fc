/** One task: a database with two shards behind a proxy, for tests. */
import type { Config } from '../../src/config/config.js';
import type { Proxy, ProxyHooks } from '../../src/proxy/contract.js';
import { shardOf } from '../../src/sharding/hash.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { configFor, proxyFor } from './support.js';

const SHARDS = 2;
const HASH = { kind: 'hash', hasher: 'postgres' } as const;
const SCHEMA = `
  CREATE TABLE notes (tenant_id bigint NOT NULL, id bigint NOT NULL, text text, PRIMARY KEY (tenant_id, id));
  CREATE TABLE rates (name text PRIMARY KEY, rate int);
  INSERT INTO rates VALUES ('a', 1);
  CREATE SCHEMA other;
  CREATE TABLE other.notes (tenant_id bigint PRIMARY KEY);`;

export interface Sharded {
  readonly proxy: Proxy;
  readonly config: Config;
  /** what a shard has itself */
  readonly on: (shard: number, sql: string) => Promise<readonly Record<string, unknown>[]>;
}

/** To be called once, at the top of a test file. @returns starts a proxy and its shards, empty each time */
export function useShards(): (
  adjust?: (config: Config) => Config | Promise<Config>,
  hooks?: ProxyHooks,
) => Promise<Sharded> {
  const clusters = useClusters({ first: { major: 18 }, second: { major: 18 } });
  return async (adjust = (config) => config, hooks) => {
    const databaseName = await freshDatabase(clusters.first);
    await clusters.second.createDatabase(databaseName);
    const all = [clusters.first, clusters.second];
    for (const cluster of all) await cluster.query(databaseName, SCHEMA);
    const config = configFor([{ name: 'prod', cluster: clusters.first, databaseName }]);
    const [entry] = config.databases;
    if (entry === undefined) throw new Error('no entry');
    const { host, port, password } = clusters.second;
    const sharded = await adjust({
      ...config,
      databases: [entry, { ...entry, host, port, password, shard: 1 }],
      sharding: {
        ...config.sharding,
        tables: [{ database: 'prod', schema: null, table: null, column: 'tenant_id', type: 'bigint', mapping: HASH }],
      },
    });
    const proxy = await proxyFor({ config: sharded, ...(hooks === undefined ? {} : { hooks }) });
    return { proxy, config: sharded, on: async (shard, sql) => (await all[shard]?.query(databaseName, sql)) ?? [] };
  };
}

/** The first tenants of a shard. */
function tenantsOf(shard: number): bigint[] {
  const rule = { type: 'bigint', mapping: HASH } as const;
  return Array.from({ length: 100 }, (_, index) => BigInt(index + 1)).filter(
    (tenant) => shardOf(rule, tenant, SHARDS) === shard,
  );
}

export const [HERE = 0n, HERE_TOO = 0n] = tenantsOf(0);
export const [THERE = 0n] = tenantsOf(1);

export async function failure(work: Promise<unknown>): Promise<{ code: string | undefined; message: string }> {
  const error: unknown = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Error)) throw new Error('it did not fail');
  return { code: (error as { code?: string }).code, message: error.message };
}
