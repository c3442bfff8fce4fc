/** One task: the keys of pools, of timeouts, lifetimes and health checks have the effect that docs/configuration.md says. */
import type pg from 'pg';
import { expect, test } from 'vitest';
import type { Config, GeneralConfig, UserEntry } from '../../src/config/config.js';
import { parseConfig } from '../../src/config/load.js';
import { ChaosProxy } from '../../src/dev/chaos-proxy.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { poolOptionsOf } from '../../src/proxy/pool-options.js';
import { frame } from '../../src/wire/backend.js';
import { parse, query, SYNC } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, endLater, proxyFor, RawClient, statementsSleep } from './support.js';

const clusters = useClusters({ main: { major: 18 } });

interface Started {
  readonly proxy: Proxy;
  readonly databaseName: string;
}

async function configured(
  general: Partial<GeneralConfig>,
  user: Partial<UserEntry> = {},
): Promise<{ readonly config: Config; readonly databaseName: string }> {
  const databaseName = await freshDatabase(clusters.main);
  return {
    config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general, user }),
    databaseName,
  };
}

async function start(general: Partial<GeneralConfig>, user: Partial<UserEntry> = {}): Promise<Started> {
  const { config, databaseName } = await configured(general, user);
  return { proxy: await proxyFor({ config }), databaseName };
}

/** The same, with a relay in between that can be told to break. */
async function startBehindRelay(general: Partial<GeneralConfig>): Promise<Started & { readonly relay: ChaosProxy }> {
  const { databaseName, config } = await configured(general);
  const relay = await ChaosProxy.listen(clusters.main.port);
  endLater(() => relay.close());
  const databases = config.databases.map((entry) => ({ ...entry, port: relay.port }));
  return { proxy: await proxyFor({ config: { ...config, databases } }), databaseName, relay };
}

async function pidOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  return rows[0]?.pid ?? 0;
}

test('in statement mode a transaction is refused and the session goes on; several statements in one text are one unit', async () => {
  const { proxy } = await start({ poolerMode: 'statement', defaultPoolSize: 1 });
  const client = await clientOf(proxy, 'prod');
  await client.query('CREATE TABLE kept (n int)');
  for (const text of ['BEGIN', ' start  transaction read only;', '/* why */ begin'])
    await expect(client.query(text)).rejects.toMatchObject({ code: '08P01', severity: 'ERROR' });
  await expect(client.query({ text: 'BEGIN', name: 'begin' })).rejects.toMatchObject({ code: '08P01' });
  await client.query('BEGIN; INSERT INTO kept VALUES (1); INSERT INTO kept VALUES (2); COMMIT');
  await expect(client.query('INSERT INTO kept VALUES (3); SELECT 1 / 0')).rejects.toMatchObject({ code: '22012' });
  expect((await client.query('SELECT n FROM kept ORDER BY n')).rows).toEqual([{ n: 1 }, { n: 2 }]);
});

test('in statement mode a transaction that is open all the same ends its session and is rolled back', async () => {
  const { proxy } = await start({ poolerMode: 'statement', defaultPoolSize: 1 });
  const [client, other] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await other.query('CREATE TABLE kept (n int)');
  const told = new Promise<unknown>((resolve) => client.once('error', resolve));
  await client.query('SELECT 1; BEGIN; INSERT INTO kept VALUES (1)').catch(() => undefined);
  expect(await told).toMatchObject({ code: '08P01', severity: 'FATAL' });
  expect((await other.query('SELECT n FROM kept')).rows).toEqual([]);
});

test.each([
  ['transaction', [1, 2, 3]],
  ['statement', [1, 3, 2]],
] as const)('in %s mode statements that come together hold the server in this order: %s', async (poolerMode, order) => {
  const { proxy, databaseName } = await start({ poolerMode, defaultPoolSize: 1 });
  const other = await clientOf(proxy, 'prod');
  await other.query('CREATE TABLE ran (n int, at serial)');
  const client = await RawClient.loggedIn(proxy, 'prod');
  client.send(
    query('INSERT INTO ran SELECT 1 FROM pg_sleep(0.3)'),
    query('INSERT INTO ran SELECT 2 FROM pg_sleep(0.1)'),
  );
  await statementsSleep(clusters.main, databaseName);
  await other.query('INSERT INTO ran VALUES (3)');
  await client.until('Z', 2);
  expect((await other.query<{ n: number }>('SELECT n FROM ran ORDER BY at')).rows.map(({ n }) => n)).toEqual(order);
});

test('an idle client ends with 57P05, one in a transaction with 25P03; one that works, or is held, does not', async () => {
  const { proxy } = await start({ clientIdleTimeoutMs: 400, clientIdleInTransactionTimeoutMs: 400 });
  const [idle, inTransaction, busy] = await Promise.all([1, 2, 3].map(() => clientOf(proxy, 'prod')));
  const piecemeal = await RawClient.loggedIn(proxy, 'prod');
  piecemeal.send(parse('', Buffer.from('SELECT 1\0\0\0')), frame('H'));
  await piecemeal.until('1');
  const told = [idle, inTransaction].map((client) => new Promise((resolve) => client?.once('error', resolve)));
  await inTransaction?.query('CREATE TABLE kept (n int)');
  await inTransaction?.query('BEGIN');
  await inTransaction?.query('INSERT INTO kept VALUES (1)');
  const ran = await busy?.query('SELECT 1 AS one FROM pg_sleep(1.2)');
  expect(ran?.rows).toEqual([{ one: 1 }]);
  expect(await Promise.all(told)).toMatchObject([
    { code: '57P05', message: 'terminating connection due to idle-session timeout' },
    { code: '25P03', message: 'terminating connection due to idle-in-transaction timeout' },
  ]);
  piecemeal.send(SYNC);
  await piecemeal.until('Z');
  piecemeal.socket.destroy();
  const gate = proxy.gate('prod');
  const [held, waiting] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await until('only they are left', () => proxy.clients().length === 3);
  gate.close('cutover');
  const waited = waiting.query('SELECT n FROM kept');
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  expect(proxy.clients()).toHaveLength(3);
  gate.open('cutover');
  expect((await waited).rows).toEqual([]);
  await until('the idle one ends behind the pause', () => proxy.clients().length < 3);
  await held.end().catch(() => undefined);
});

test('query_timeout counts from the statement on, not from the one before in the same transaction', async () => {
  const { proxy } = await start({ queryTimeoutMs: 300 });
  const client = await clientOf(proxy, 'prod');
  await client.query('BEGIN');
  await new Promise((resolve) => setTimeout(resolve, 900));
  await expect(client.query('SELECT pg_sleep(10)')).rejects.toMatchObject({ code: '57014' });
});

test('a connection that was unused for healthcheck_interval is checked before it is lent: one that is dead is not', async () => {
  const { proxy, relay } = await startBehindRelay({ healthcheckIntervalMs: 0, healthcheckTimeoutMs: 300 });
  const client = await clientOf(proxy, 'prod');
  const pid = await pidOf(client);
  expect(await pidOf(client)).toBe(pid);
  relay.set('half-open');
  expect(await pidOf(client)).not.toBe(pid);
});

test('idle connections are checked by themselves, and none while clients are held; a check is no use of the connection', async () => {
  const general = { idleHealthcheckIntervalMs: 100, idleHealthcheckDelayMs: 0, healthcheckTimeoutMs: 300 };
  const { proxy, relay } = await startBehindRelay(general);
  const client = await clientOf(proxy, 'prod');
  const pid = await pidOf(client);
  proxy.gate('prod').close('cutover');
  await until('a check that was under way is over', () => proxy.servers().every(({ state }) => state === 'idle'));
  relay.set('half-open');
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  expect(proxy.servers().map(({ remotePid }) => remotePid)).toEqual([pid]);
  proxy.gate('prod').open('cutover');
  await until('the dead connection is found', () => proxy.servers().length === 0);
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  proxy.apply({ ...proxy.config, general: { ...proxy.config.general, idleTimeoutMs: 700 } });
  await until('an unused connection is closed although it is checked', () => proxy.servers().length === 0);
});

test('a connection older than server_lifetime is not lent again, however busy it is', async () => {
  const { proxy } = await start({ defaultPoolSize: 1 }, { serverLifetimeMs: 300 });
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await first.query('BEGIN');
  const pid = await pidOf(first);
  const next = pidOf(second);
  await first.query('SELECT pg_sleep(0.4)');
  await first.query('COMMIT');
  expect(await next).not.toBe(pid);
});

// It waits for several sweeps.
if (THOROUGH)
  test('with server_lifetime_jitter connections that were opened together do not end together', async () => {
    const { proxy } = await start({ defaultPoolSize: 10, serverLifetimeMs: 1_000, serverLifetimeJitterMs: 1_000 });
    const clients = await Promise.all(Array.from({ length: 10 }, () => clientOf(proxy, 'prod')));
    await Promise.all(clients.map((client) => client.query('BEGIN')));
    const pids = new Set(proxy.servers().map(({ remotePid }) => remotePid));
    await Promise.all(clients.map((client) => client.query('ROLLBACK')));
    const counts = new Set<number>();
    await until('all have ended', () => {
      const left = proxy.servers().filter(({ remotePid }) => pids.has(remotePid)).length;
      counts.add(left);
      return left === 0;
    });
    expect(counts.size).toBeGreaterThan(3);
  });

test('a server is tried connect_attempts times, and no more', async () => {
  const { proxy, relay } = await startBehindRelay({ connectAttempts: 200, connectAttemptDelayMs: 20 });
  relay.set('reset');
  const connecting = clientOf(proxy, 'prod');
  await new Promise((resolve) => setTimeout(resolve, 200));
  relay.set('calm');
  expect(await pidOf(await connecting)).toBeGreaterThan(0);
  relay.set('reset');
  proxy.apply({ ...proxy.config, general: { ...proxy.config.general, connectAttempts: 3, connectAttemptDelayMs: 1 } });
  await expect((await connecting).query('SELECT 1')).rejects.toMatchObject({ code: '08006' });
});

test('lock_timeout and statement_timeout begin each session, and come back at RESET', async () => {
  const { proxy } = await start({ poolerMode: 'session' }, { lockTimeoutMs: 1_234, statementTimeoutMs: 56_000 });
  const client = await clientOf(proxy, 'prod');
  const shown = async (): Promise<unknown> =>
    (await client.query("SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS all"))
      .rows[0];
  expect(await shown()).toEqual({ lock: '1234ms', all: '56s' });
  await client.query('SET lock_timeout = 1');
  expect(await shown()).toEqual({ lock: '1ms', all: '56s' });
  await client.query('DISCARD ALL');
  expect(await shown()).toEqual({ lock: '1234ms', all: '56s' });
});

test('of the keys of a pool those of the user count before those of the database, and these before [general]', () => {
  const config = parseConfig(
    {
      file: 'c',
      text: `[general]\nserver_lifetime = 1\nserver_lifetime_jitter = 1
        [[databases]]\nname = "prod"\nhost = "h"\nserver_lifetime = 2\nserver_lifetime_jitter = 2\nlock_timeout = 2`,
    },
    { file: 'u', text: '[[users]]\nname = "app"\ndatabase = "prod"\npassword = "p"\nserver_lifetime_jitter = 3' },
    { environment: {} },
  );
  const [entry, user] = [config.databases[0], config.users[0]];
  const options = entry && user && poolOptionsOf(config, entry, user);
  expect(options).toMatchObject({ serverLifetimeMs: 2, serverLifetimeJitterMs: 3 });
  expect(options?.serverSettings).toEqual({ lock_timeout: '2' });
});

test('client_connection_recovery = "drop" ends a client that gets no server, and not one that is held', async () => {
  const general = { clientConnectionRecovery: 'drop', defaultPoolSize: 1, checkoutTimeoutMs: 100 } as const;
  const { config } = await configured(general);
  const proxy = await proxyFor({ config, gateWaitMs: 100 });
  const [first, second, third] = await Promise.all([1, 2, 3].map(() => clientOf(proxy, 'prod')));
  await first?.query('BEGIN');
  await expect(second?.query('SELECT 1')).rejects.toMatchObject({ code: '53300', severity: 'FATAL' });
  await first?.query('COMMIT');
  proxy.gate('prod').close('cutover');
  await expect(third?.query('SELECT 1')).rejects.toMatchObject({ code: '57P03', severity: 'ERROR' });
  proxy.gate('prod').open('cutover');
  expect((await third?.query('SELECT 1 AS one'))?.rows).toEqual([{ one: 1 }]);
});

test('with shutdown_termination_timeout what still runs behind shutdown_timeout is cancelled', async () => {
  const { proxy, databaseName } = await start({ shutdownTerminationTimeoutMs: 5_000 });
  const client = await clientOf(proxy, 'prod');
  const slow = client.query('SELECT pg_sleep(60)').catch(() => undefined);
  await statementsSleep(clusters.main, databaseName);
  await proxy.close(0);
  await slow;
  await statementsSleep(clusters.main, databaseName, 0);
});
