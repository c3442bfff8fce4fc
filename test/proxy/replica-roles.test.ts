/** One task: with `role = "auto"` writes go to the real server that is the primary, follow a promotion, and go nowhere while there is none. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, expect, test } from 'vitest';
import type pg from 'pg';
import type { Config, GeneralConfig } from '../../src/config/config.js';
import { startCluster, startStandby, type Cluster } from '../../src/dev/embedded-postgres.js';
import { freePort } from '../../src/dev/ports.js';
import type { PoolStatus, Proxy } from '../../src/proxy/contract.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { startupMessage } from '../../src/wire/frontend.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient, USER } from './support.js';

const WRITE = `INSERT INTO item SELECT current_setting('port')::int RETURNING id`;
const PORT = `SELECT current_setting('port')::int AS id`;
const PROMOTE = 'SELECT pg_promote(true, 60)';

const made: Cluster[] = [];
beforeAll(loadStatementParser);
afterEach(async () => {
  await Promise.all(made.splice(0).map((cluster) => cluster.remove()));
});

async function pair(): Promise<{ readonly primary: Cluster; readonly standby: Cluster }> {
  const primary = await startCluster({ major: 17 });
  made.push(primary);
  await primary.createDatabase('shop');
  await primary.query('shop', 'CREATE TABLE item (id int)');
  const standby = await startStandby(primary, 'standby');
  made.push(standby);
  return { primary, standby };
}

/** Every server with the role `auto`, in this order. */
function configOf(servers: readonly Cluster[], general: Partial<GeneralConfig> = {}): Config {
  const targets = servers.map((cluster) => ({ name: 'prod', databaseName: 'shop', cluster }));
  const config = configFor(targets, { general });
  return {
    ...config,
    users: config.users.slice(0, 1),
    databases: config.databases.map((row) => ({ ...row, role: 'auto' as const })),
    replicas: {
      ...config.replicas,
      split: 'exclude_primary',
      lsnCheck: { delayMs: 600_000, intervalMs: 1, timeoutMs: 5_000 },
    },
  };
}

async function answer(client: pg.Client, text: string): Promise<number | undefined> {
  return (await client.query<{ id: number }>(text)).rows[0]?.id;
}

function rolesOf(proxy: Proxy): readonly (readonly [string, number])[] {
  return proxy.pools().map(({ role, port }) => [role, port] as const);
}

/**
 * Ends a server as a crash does, and waits until the proxy has seen its connections close: what is sent on one before that has an
 * outcome that nobody knows, and is answered so.
 */
async function crash(proxy: Proxy, cluster: Cluster): Promise<void> {
  await cluster.kill();
  const isGone = ({ port, serversIdle, serversActive }: PoolStatus): boolean =>
    port !== cluster.port || serversIdle + serversActive === 0;
  await until('its connections are closed', () => proxy.pools().every(isGone));
}

/** Waits until the proxy knows who the primary is. */
async function primaryIs(proxy: Proxy, cluster: Cluster): Promise<void> {
  const isPrimary = ({ role, port, replication }: PoolStatus): boolean =>
    role === 'primary' && port === cluster.port && replication?.recovering === false;
  await until('the primary is known', () => proxy.pools().some(isPrimary));
}

test('writes go to the server that is not in recovery, and follow a promotion; who comes in between waits', async () => {
  const { primary, standby } = await pair();
  const config = configOf([standby, primary]);
  const proxy = await proxyFor({ config });
  const client = await clientOf(proxy, 'prod');
  expect(await answer(client, WRITE)).toBe(primary.port);
  expect(await answer(client, PORT)).toBe(standby.port);
  expect(rolesOf(proxy)).toStrictEqual([
    ['primary', primary.port],
    ['replica', standby.port],
  ]);
  await crash(proxy, primary);
  const waiting = answer(client, WRITE);
  await until('the write waits', () => proxy.pools().some(({ clientsWaiting }) => clientsWaiting > 0));
  await standby.query('postgres', PROMOTE);
  expect(await waiting).toBe(standby.port);
  expect(rolesOf(proxy)).toContainEqual(['replica', primary.port]);
  // A RELOAD does not forget it, and a driver that asks for a server which takes writes is told of one.
  proxy.apply(config);
  expect(rolesOf(proxy)).toContainEqual(['primary', standby.port]);
  const raw = new RawClient(proxy);
  raw.send(startupMessage({ user: USER, database: 'prod' }));
  const told = (await raw.until('Z')).map(({ bytes }) => bytes.toString());
  expect(told.filter((text) => text.includes('in_hot_standby\0'))).toMatchObject([
    expect.stringContaining('in_hot_standby\0off'),
  ]);
});

test('a primary that has become a standby since it was asked last is lent to nobody', async () => {
  const { primary, standby } = await pair();
  const config = configOf([primary, standby], { checkoutTimeoutMs: 300 });
  const { replicas } = config;
  const seldom = { ...replicas, lsnCheck: { ...replicas.lsnCheck, intervalMs: 600_000 } };
  const proxy = await proxyFor({ config: { ...config, replicas: seldom } });
  await primaryIs(proxy, primary);
  const client = await clientOf(proxy, 'prod');
  expect(await answer(client, WRITE)).toBe(primary.port);
  await primary.stop();
  writeFileSync(join(primary.directory, 'data', 'standby.signal'), '');
  await primary.start();
  await expect(client.query(WRITE)).rejects.toMatchObject({
    code: '08006',
    message: expect.stringContaining('it is a standby now') as string,
  });
});

test('an old primary that comes back gets no writes and no reads as long as it says that it still is one', async () => {
  const { primary, standby } = await pair();
  const proxy = await proxyFor({ config: configOf([primary, standby]) });
  const client = await clientOf(proxy, 'prod');
  expect(await answer(client, WRITE)).toBe(primary.port);
  await crash(proxy, primary);
  await standby.query('postgres', PROMOTE);
  await primaryIs(proxy, standby);
  await primary.start();
  await until('it is banned', () => proxy.pools().some(({ port, ban }) => port === primary.port && ban !== null));
  await until('it says what it is', () => {
    const pool = proxy.pools().find(({ port }) => port === primary.port);
    return pool?.ban?.reason === 'it says that it is the primary, and is not the one of this database';
  });
  expect(await answer(client, WRITE)).toBe(standby.port);
  expect(await answer(client, PORT)).toBe(standby.port);
});

test('a proxy that finds two primaries at its start chooses none; its clients go on when one is left', async () => {
  const { primary, standby } = await pair();
  await standby.query('postgres', PROMOTE);
  const proxy = await proxyFor({ config: configOf([primary, standby], { checkoutTimeoutMs: 300 }) });
  await until('both have said so', () => proxy.pools().filter(({ replication }) => replication !== null).length > 2);
  const client = await clientOf(proxy, 'prod');
  await expect(client.query(WRITE)).rejects.toMatchObject({
    code: '08006',
    message: expect.stringContaining('none of its servers is known to be the primary') as string,
  });
  await primary.stop();
  await primaryIs(proxy, standby);
  expect(await answer(client, WRITE)).toBe(standby.port);
  expect(await standby.query('shop', 'SELECT id FROM item')).toStrictEqual([{ id: standby.port }]);
});

test('without a primary reads are answered by standbys, and a write waits for the promotion', async () => {
  const { primary, standby } = await pair();
  await primary.stop();
  const config = configOf([primary, standby]);
  const [first, ...others] = config.databases;
  const nobody = first === undefined ? [] : [{ ...first, port: await freePort() }];
  const replicas = { ...config.replicas, split: 'include_primary' as const, strategy: 'round_robin' as const };
  const proxy = await proxyFor({ config: { ...config, replicas, databases: [...nobody, ...others] } });
  const client = await clientOf(proxy, 'prod');
  for (let turn = 0; turn < 4; turn += 1) expect(await answer(client, PORT)).toBe(standby.port);
  const waiting = answer(client, WRITE);
  await until('the write waits', () =>
    proxy.pools().some((pool) => pool.role === 'primary' && pool.clientsWaiting > 0),
  );
  await standby.query('postgres', PROMOTE);
  expect(await waiting).toBe(standby.port);
});
