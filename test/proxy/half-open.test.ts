/** One task: a peer that vanishes without closing its connection is noticed, and keeps nobody else waiting for what it held. */
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { expect, test } from 'vitest';
import type { Config, GeneralConfig } from '../../src/config/config.js';
import { ChaosProxy } from '../../src/dev/chaos-proxy.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { frame } from '../../src/wire/backend.js';
import { query } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { HERE, THERE, useShards } from './shards.js';
import { clientOf, configFor, endLater, proxyFor, RawClient, statementsSleep } from './support.js';

const clusters = useClusters({ main: { major: 18 } });
const shards = useShards();

async function configWith(general: Partial<GeneralConfig>, keepAliveMs: number | null = 60_000): Promise<Config> {
  const databaseName = await freshDatabase(clusters.main);
  return configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general, tcp: { keepAliveMs } });
}

async function relayTo(port: number): Promise<ChaosProxy> {
  const relay = await ChaosProxy.listen(port);
  endLater(() => relay.close());
  return relay;
}

/**
 * What the kernel waits for on the open connection between these ports, and for how many ms yet: `00` nothing, `01` sends again, `02` asks
 * a silent peer (Linux, Documentation/networking/proc_net_tcp, which counts in hundredths of a second).
 */
function timerOf(localPort: number, remotePort: number): { kind: string; leftMs: number } {
  const end = (port: number): string => `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local = '', remote = '', state, , timer = ''] = line.trim().split(/\s+/);
    if (state !== '01' || !local.endsWith(end(localPort)) || !remote.endsWith(end(remotePort))) continue;
    const [kind = '', when = ''] = timer.split(':');
    return { kind, leftMs: Number.parseInt(when, 16) * 10 };
  }
  throw new Error(`no connection ${localPort.toString()} -> ${remotePort.toString()}`);
}

test.each([5_000, null])('TCP asks silent clients and servers after the time in [tcp]: %s ms', async (keepAliveMs) => {
  await expectAsked(await proxyFor({ config: await configWith({}, keepAliveMs) }), keepAliveMs);
});

test.each([5_000, null])('a RELOAD changes the time in [tcp] for new connections: %s ms', async (keepAliveMs) => {
  const proxy = await proxyFor({ config: await configWith({}, 30_000) });
  proxy.apply({ ...proxy.config, tcp: { keepAliveMs } });
  await expectAsked(proxy, keepAliveMs);
});

async function expectAsked(proxy: Proxy, keepAliveMs: number | null): Promise<void> {
  const client = await RawClient.loggedIn(proxy, 'prod');
  client.send(query('SELECT inet_client_port()'));
  const row = (await client.until('Z')).find(({ type }) => type === 'D')?.bytes ?? Buffer.alloc(0);
  const connections = {
    client: [proxy.address.port, client.socket.localPort ?? 0],
    server: [Number(row.subarray(11).toString()), clusters.main.port],
  } as const;
  for (const [peer, [local, remote]] of Object.entries(connections)) {
    await until(`the ${peer} is asked as configured`, () => {
      const { kind, leftMs } = timerOf(local, remote);
      return keepAliveMs === null ? kind === '00' : kind === '02' && leftMs <= keepAliveMs;
    });
  }
}

test.each([
  ['idle', '', { clientIdleTimeoutMs: 200 }],
  ['in a transaction', 'BEGIN; LOCK TABLE held', { clientIdleInTransactionTimeoutMs: 200 }],
])('a client that vanishes %s is ended, and what it held is free', async (_where, statement, general) => {
  const proxy = await proxyFor({ config: await configWith({ ...general, defaultPoolSize: 1 }) });
  const setup = await clientOf(proxy, 'prod');
  await setup.query('CREATE TABLE held (n int)');
  await setup.end();
  const relay = await relayTo(proxy.address.port);
  const vanishing = await RawClient.loggedIn({ address: { host: '127.0.0.1', port: relay.port } }, 'prod');
  vanishing.send(query(statement));
  await vanishing.until('Z');
  relay.set('blackhole');
  await until('the proxy has no client', () => proxy.clients().length === 0);
  expect(vanishing.closed).toBe(false);
  const next = await clientOf(proxy, 'prod');
  expect((await next.query('LOCK TABLE held; SELECT 1 AS one')) as unknown).toMatchObject([{}, { rows: [{ one: 1 }] }]);
});

test('a server that vanishes in a statement is given up behind query_timeout, and the next client gets another one', async () => {
  const relay = await relayTo(clusters.main.port);
  const config = await configWith({ queryTimeoutMs: 200, defaultPoolSize: 1 });
  const databases = config.databases.map((entry) => ({ ...entry, port: relay.port }));
  const proxy = await proxyFor({ config: { ...config, databases } });
  const client = await clientOf(proxy, 'prod');
  await client.query('SELECT 1');
  relay.set('blackhole');
  await expect(client.query('SELECT 2')).rejects.toMatchObject({ code: '08006' });
  relay.set('calm');
  const next = await clientOf(proxy, 'prod');
  expect((await next.query('SELECT 3 AS three')).rows).toEqual([{ three: 3 }]);
});

test('a server that vanishes under a shared read is given up behind query_timeout, and its client reads on elsewhere', async () => {
  const relay = await relayTo(clusters.main.port);
  const config = await configWith({ queryTimeoutMs: 200, pipelining: 'auto' });
  const databases = config.databases.map((entry) => ({ ...entry, port: relay.port }));
  const proxy = await proxyFor({ config: { ...config, databases } });
  const client = await clientOf(proxy, 'prod');
  await client.query('CREATE TABLE item AS SELECT 1 AS id');
  const sharedReads = (): number => proxy.stats()[0]?.sharedReads ?? 0;
  await until('the read is shared', async () => {
    const before = sharedReads();
    await client.query('SELECT id FROM item');
    return sharedReads() > before;
  });
  relay.set('blackhole');
  await expect(client.query('SELECT id FROM item')).rejects.toMatchObject({ code: '57014' });
  relay.set('calm');
  expect((await client.query('SELECT id FROM item')).rows).toEqual([{ id: 1 }]);
});

test('a shard that vanishes in a transaction is given up behind query_timeout, and nothing of the transaction stays', async () => {
  let relay: ChaosProxy | null = null;
  const { proxy, on } = await shards(async (config) => {
    const [first, second] = config.databases;
    if (first === undefined || second === undefined) throw new Error('there are two shards');
    relay = await relayTo(second.port);
    const general = { ...config.general, queryTimeoutMs: 200, defaultPoolSize: 2 };
    return { ...config, general, databases: [first, { ...second, port: relay.port }] };
  });
  for (const [shard, tenant] of [HERE, THERE].entries()) {
    await on(shard, TWO_PHASE_DDL);
    await on(shard, `INSERT INTO notes VALUES (${tenant.toString()}, 1, 'old')`);
  }
  const copied = Buffer.from(`${HERE.toString()}\t2\tnew\n${THERE.toString()}\t2\tnew\n`);
  for (const statement of ["UPDATE notes SET text = 'newer'", 'COPY notes FROM STDIN']) {
    const client = await RawClient.loggedIn(proxy, 'prod');
    for (const text of ['BEGIN', "UPDATE notes SET text = 'new'"]) {
      client.send(query(text));
      expect(client.types(await client.until('Z'))).toBe('CZ');
    }
    if (statement.startsWith('COPY')) {
      client.send(query(statement));
      await client.until('G');
    }
    (relay as ChaosProxy | null)?.set('blackhole');
    client.send(...(statement.startsWith('COPY') ? [frame('d', copied), frame('c')] : [query(statement)]));
    const told = await client.until('Z');
    expect(told.map(({ bytes }) => bytes.toString('latin1')).join(' ')).toContain('connection to the server was lost');
    (relay as ChaosProxy | null)?.set('calm');
    client.send(query('ROLLBACK'), query("UPDATE notes SET text = 'old'"));
    expect(client.types(await client.until('Z', 2))).toBe('CZCZ');
    for (const shard of [0, 1]) expect(await on(shard, 'SELECT text FROM notes')).toEqual([{ text: 'old' }]);
  }
});

test.each([
  ['is killed', (socket: Socket): unknown => socket.resetAndDestroy()],
  ['closes its connection', (socket: Socket): unknown => socket.destroy()],
])(
  'a client that %s behind more than is read of it is seen to be gone, and what it runs is stopped',
  async (_how, go) => {
    const databaseName = await freshDatabase(clusters.main);
    const general = { connectionRecovery: 'drop' } as const;
    const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general });
    const proxy = await proxyFor({ config });
    const client = await RawClient.loggedIn(proxy, 'prod');
    client.send(query('SELECT pg_sleep(600)'));
    await statementsSleep(clusters.main, databaseName);
    proxy.gate('prod').close('cutover');
    client.send(...Array.from({ length: 200 }, () => query(`SELECT '${'x'.repeat(1_000)}'`)));
    await until('no more is read of it', () => client.socket.writableLength === 0);
    go(client.socket);
    await until('the proxy has no client', () => proxy.clients().length === 0);
    await statementsSleep(clusters.main, databaseName, 0);
  },
);

test('a client that is there and much of which is unread goes on when its statement has ended', async () => {
  const databaseName = await freshDatabase(clusters.main);
  const proxy = await proxyFor({ config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }]) });
  const client = await RawClient.loggedIn(proxy, 'prod');
  client.send(query('SELECT pg_sleep(600)'));
  await statementsSleep(clusters.main, databaseName);
  proxy.gate('prod').close('cutover');
  client.send(...Array.from({ length: 200 }, () => query(`SELECT '${'x'.repeat(1_000)}'`)));
  // What it is told meanwhile is true, and said between two messages.
  const [told] = await client.until('S');
  expect(told?.bytes.toString('latin1')).toContain('integer_datetimes\0on\0');
  await clusters.main.query(
    'postgres',
    `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = '${databaseName}' AND wait_event = 'PgSleep'`,
  );
  await client.until('Z');
  proxy.gate('prod').open('cutover');
  const answers = client.types(await client.until('Z', 200));
  expect(answers.replaceAll('S', '')).toBe('TDCZ'.repeat(200));
});
