/** One task: a real replica that is too far behind gets no reads, and gets them again when it has caught up. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import type { ReplicaConfig } from '../../src/config/replica-config.js';
import { startStandby, type Cluster } from '../../src/dev/embedded-postgres.js';
import type { PoolStatus, Proxy } from '../../src/proxy/contract.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor } from './support.js';

const clusters = useClusters({ primary: { major: 17 } });
const PORT = `SELECT current_setting('port')::int AS port`;
let replica: Cluster;

beforeAll(async () => {
  await clusters.primary.createDatabase('shop');
  await clusters.primary.query('shop', 'CREATE TABLE item (id int)');
  replica = await startStandby(clusters.primary, 'replica');
  await loadStatementParser();
});

afterAll(() => replica.remove());

function configOf(how: Partial<ReplicaConfig>): Config {
  const target = { name: 'prod', databaseName: 'shop', cluster: clusters.primary };
  const config = configFor([target]);
  const rows = configFor([{ ...target, cluster: replica }]).databases;
  return {
    ...config,
    databases: [...config.databases, ...rows.map((row) => ({ ...row, role: 'replica' as const }))],
    replicas: {
      ...config.replicas,
      split: 'exclude_primary',
      lsnCheck: { delayMs: 0, intervalMs: 1, timeoutMs: 5_000 },
      ...how,
    },
  };
}

function poolOf(proxy: Proxy, role: string): PoolStatus | undefined {
  return proxy.pools().find((pool) => pool.role === role);
}

/** What is written from here on is not replayed until the end of `work`. */
async function whileReplayStands(work: () => Promise<void>): Promise<void> {
  await replica.query('postgres', 'SELECT pg_wal_replay_pause()');
  await until('the replay stands', async () => {
    const [row] = await replica.query<{ state: string }>('postgres', 'SELECT pg_get_wal_replay_pause_state() AS state');
    return row?.state === 'paused';
  });
  try {
    await work();
  } finally {
    await replica.query('postgres', 'SELECT pg_wal_replay_resume()');
  }
}

test.each([{ banLagBytes: 1_000_000 }, { banLagMs: 300 }])(
  'with %o reads leave a replica that is behind, and come back when it has caught up',
  async (limit) => {
    const proxy = await proxyFor({ config: configOf(limit) });
    const client = await clientOf(proxy, 'prod');
    const readAt = async (): Promise<number | undefined> => (await client.query<{ port: number }>(PORT)).rows[0]?.port;
    expect(await readAt()).toBe(replica.port);
    await whileReplayStands(async () => {
      await client.query('INSERT INTO item SELECT generate_series(1, 50000)');
      await until('the replica is banned', () => poolOf(proxy, 'replica')?.ban !== null);
      const pool = poolOf(proxy, 'replica');
      expect(pool?.ban?.reason).toMatch(/^\d+ (bytes|ms) behind its primary$/);
      expect(pool?.ban?.leftMs).toBeNull();
      expect(pool?.replication).toMatchObject({ recovering: true });
      expect(pool?.replication?.lagBytes).toBeGreaterThan(1_000_000);
      expect(pool?.replication?.lagMs).toBeGreaterThan(0);
      expect(await readAt()).toBe(clusters.primary.port);
    });
    await until('the replica is fit again', () => poolOf(proxy, 'replica')?.ban === null);
    expect(await readAt()).toBe(replica.port);
    expect(poolOf(proxy, 'replica')?.replication).toMatchObject({ lagBytes: 0, lagMs: 0 });
    expect(poolOf(proxy, 'primary')?.replication).toMatchObject({ recovering: false, lagMs: null });
  },
);

test('a ban by hand outlives the look at the replica, and without a limit nobody is banned', async () => {
  const proxy = await proxyFor({ config: configOf({}) });
  const client = await clientOf(proxy, 'prod');
  await until('the replica was asked', () => poolOf(proxy, 'replica')?.replication !== null);
  expect(proxy.setBan(null, true)).toBe(1);
  await whileReplayStands(async () => {
    await client.query('INSERT INTO item SELECT generate_series(1, 50000)');
    await until('it is seen to be behind', () => (poolOf(proxy, 'replica')?.replication?.lagBytes ?? 0) > 1_000_000);
    expect(poolOf(proxy, 'replica')?.ban?.reason).toBe('banned by hand');
    proxy.setBan(null, false);
    const lagBytes = poolOf(proxy, 'replica')?.replication?.lagBytes ?? 0;
    await client.query('INSERT INTO item SELECT generate_series(1, 50000)');
    await until('it was asked again', () => (poolOf(proxy, 'replica')?.replication?.lagBytes ?? 0) > lagBytes);
    expect(poolOf(proxy, 'replica')?.ban).toBeNull();
  });
});

test('a RELOAD that ends the look lifts what it has banned', async () => {
  const config = configOf({ banLagBytes: 1_000_000 });
  const proxy = await proxyFor({ config });
  const client = await clientOf(proxy, 'prod');
  await whileReplayStands(async () => {
    await client.query('INSERT INTO item SELECT generate_series(1, 50000)');
    await until('the replica is banned', () => poolOf(proxy, 'replica')?.ban !== null);
    proxy.apply({
      ...config,
      replicas: { ...config.replicas, lsnCheck: { ...config.replicas.lsnCheck, delayMs: null } },
    });
    expect(poolOf(proxy, 'replica')).toMatchObject({ ban: null, replication: null });
  });
});
