/** One task: a connection in whose middle something happened is never handed on; the next client has a whole one and its own answers. */
import { connect, createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { GeneralConfig } from '../../src/config/config.js';
import type { Proxy, ProxyHooks } from '../../src/proxy/contract.js';
import { errorResponse, frame, READY_IDLE } from '../../src/wire/backend.js';
import { bindUnnamed, closeStatement, DESCRIBE_PORTAL, EXECUTE, parse, query, SYNC } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, endLater, proxyFor, RawClient, statementsSleep } from './support.js';

const clusters = useClusters({ main: { major: 18 } });

/** What a relay between the proxy and its server does to what passes; null: the connection ends there. */
interface Tampering {
  toServer: (bytes: Buffer) => Buffer | null;
  toProxy: (bytes: Buffer) => Buffer | null;
}

const AS_IT_IS = (bytes: Buffer): Buffer => bytes;

interface Started {
  readonly proxy: Proxy;
  readonly databaseName: string;
  readonly tampering: Tampering;
  /** sends bytes to the proxy as if its server had */
  readonly inject: (bytes: Buffer) => void;
}

/** One server connection for all clients, unless it is thrown away. */
async function start(general: Partial<GeneralConfig> = {}, hooks?: ProxyHooks): Promise<Started> {
  const tampering: Tampering = { toServer: AS_IT_IS, toProxy: AS_IT_IS };
  let inject: (bytes: Buffer) => void = () => undefined;
  const relay = createServer((proxySide) => {
    const serverSide = connect({ host: clusters.main.host, port: clusters.main.port });
    inject = (bytes) => void proxySide.write(bytes);
    for (const [from, to, way] of [
      [proxySide, serverSide, 'toServer'],
      [serverSide, proxySide, 'toProxy'],
    ] as const) {
      from.on('error', () => undefined);
      from.on('close', () => to.destroy());
      from.on('data', (chunk) => {
        const bytes = tampering[way](chunk);
        if (bytes === null) to.destroySoon();
        else to.write(bytes);
      });
    }
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  endLater(async () => Promise.resolve(relay.close()));
  const databaseName = await freshDatabase(clusters.main);
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], {
    general: { defaultPoolSize: 1, checkoutTimeoutMs: 4_000, ...general },
  });
  const { port } = relay.address() as AddressInfo;
  const databases = config.databases.map((entry) => ({ ...entry, port }));
  const proxy = await proxyFor({ config: { ...config, databases }, ...(hooks && { hooks }) });
  return {
    proxy,
    databaseName,
    tampering,
    inject: (bytes) => {
      inject(bytes);
    },
  };
}

/** A client of its own reads its own answer. @returns its server's process id */
async function served(proxy: Proxy): Promise<number> {
  const client = await clientOf(proxy, 'prod');
  const mark = Math.random().toString();
  const { rows } = await client.query<{ pid: number; mark: string }>('SELECT pg_backend_pid() AS pid, $1 AS mark', [
    mark,
  ]);
  expect(rows).toHaveLength(1);
  expect(rows[0]?.mark).toBe(mark);
  await client.end();
  return rows[0]?.pid ?? 0;
}

test('a server that sends what is no message, while idle or within an answer, is thrown away', async () => {
  const { proxy, tampering, inject } = await start();
  const first = await served(proxy);
  inject(Buffer.from('\xff\xff no message at all', 'latin1'));
  await until('it is gone', () => proxy.servers().length === 0);
  const second = await served(proxy);
  const client = await clientOf(proxy, 'prod');
  tampering.toProxy = () => Buffer.alloc(8, 0xff);
  await expect(client.query('SELECT 1')).rejects.toThrow();
  tampering.toProxy = AS_IT_IS;
  const third = await served(proxy);
  expect(new Set([first, second, third]).size).toBe(3);
});

test('a server that says more than it was asked is thrown away', async () => {
  const { proxy, inject } = await start();
  const pid = await served(proxy);
  inject(Buffer.concat([frame('C', Buffer.from('SELECT 1\0')), frame('Z', Buffer.from('I'))]));
  await until('it is gone', () => proxy.servers().every(({ remotePid }) => remotePid !== pid));
  expect(await served(proxy)).not.toBe(pid);
});

test.each([
  ['a part of a message', Buffer.from('C\0\0', 'latin1')],
  ['an error that does not end it', errorResponse({ severity: 'ERROR', sqlstate: '57014', message: 'unasked' })],
] as const)('a server that says %s while it is idle is not lent again', async (_what, bytes) => {
  const { proxy, inject } = await start();
  const pid = await served(proxy);
  const received = proxy.stats()[0]?.bytesReceived ?? 0;
  inject(bytes);
  await until('it has come', () => (proxy.stats()[0]?.bytesReceived ?? 0) > received);
  expect(await served(proxy)).not.toBe(pid);
});

const SLEEP = 'SELECT pg_sleep(2)';
const PORTAL = [parse('', Buffer.from(`${SLEEP}\0\0\0`)), bindUnnamed(''), EXECUTE, SYNC];
test.each([
  ['ReadyForQuery', 'a query', READY_IDLE, [query(SLEEP)]],
  ['ParseComplete', 'a query', frame('1'), [query(SLEEP)]],
  ['PortalSuspended', 'a query', frame('s'), [query(SLEEP)]],
  ['ReadyForQuery', 'a portal', READY_IDLE, PORTAL],
  ['BindComplete', 'a portal', frame('2'), PORTAL],
] as const)('a %s that a server sends while it runs %s for the next client is no answer', async (...given) => {
  const [, , bytes, messages] = given;
  const { proxy, databaseName, inject } = await start();
  const pid = await served(proxy);
  const client = await RawClient.loggedIn(proxy, 'prod');
  client.send(...messages);
  await statementsSleep(clusters.main, databaseName);
  inject(bytes);
  const told = await client.until('E');
  expect(client.types(told)).toBe('E');
  expect(told[0]?.bytes.toString()).toContain('C08006');
  expect(await served(proxy)).not.toBe(pid);
});

test('a server that says too much behind its login counts as one that cannot be reached, and is not opened again and again', async () => {
  const { proxy, tampering } = await start();
  await served(proxy);
  const client = await clientOf(proxy, 'prod');
  proxy.reconnect();
  tampering.toProxy = (bytes) => (bytes.includes(READY_IDLE) ? Buffer.concat([bytes, frame('3')]) : bytes);
  await expect(client.query('SELECT 1')).rejects.toThrow('behind its login');
  tampering.toProxy = AS_IT_IS;
  await served(proxy);
});

test('what a server says behind its answer reaches nobody, also when somebody waits for the connection', async () => {
  const { proxy, tampering } = await start();
  const [liesTo, waits] = [await RawClient.loggedIn(proxy, 'prod'), await clientOf(proxy, 'prod')];
  const extra = Buffer.concat([frame('3'), frame('D', Buffer.from('\0\x01\0\0\0\x01x', 'latin1'))]);
  tampering.toProxy = (bytes) => {
    if (!bytes.includes('SELECT 1')) return bytes;
    tampering.toProxy = AS_IT_IS;
    return Buffer.concat([bytes, extra]);
  };
  liesTo.send(query('SELECT pg_sleep(0.2)'));
  await until('it runs', () => proxy.servers()[0]?.state === 'active');
  const waited = waits.query('SELECT 2 AS two');
  expect((await waited).rows).toEqual([{ two: 2 }]);
  expect(liesTo.types(liesTo.messages)).toBe('TDCZE');
});

test('a server that leaves out the end of a shared read does not give its client the answer of the next one', async () => {
  const { proxy, tampering } = await start({ pipelining: 'auto' });
  const clients = [await RawClient.loggedIn(proxy, 'prod'), await RawClient.loggedIn(proxy, 'prod')];
  const [first, second] = clients as [RawClient, RawClient];
  const shared = (): number => proxy.stats()[0]?.sharedReads ?? 0;
  const ask = (mark: string): Buffer => query(`SELECT '${mark}' AS mark`);
  await until('the read is shared', async () => {
    const before = shared();
    first.send(ask('known'));
    await first.until('Z');
    return shared() > before;
  });
  // Both are on the connection before either is answered, and the first answer comes without its ReadyForQuery.
  let held = Buffer.alloc(0);
  tampering.toServer = (bytes) => {
    held = Buffer.concat([held, bytes]);
    if (!held.includes('one') || !held.includes('two')) return Buffer.alloc(0);
    tampering.toServer = AS_IT_IS;
    return held;
  };
  tampering.toProxy = (bytes) => {
    const at = bytes.indexOf(READY_IDLE);
    if (at < 0) return bytes;
    tampering.toProxy = AS_IT_IS;
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + READY_IDLE.length)]);
  };
  first.send(ask('one'));
  second.send(ask('two'));
  for (const [client, mark] of [[first, 'one'] as const, [second, 'two'] as const]) {
    const messages = await client.until('Z');
    expect(client.types(messages)).toBe('TDCZ');
    expect(messages[1]?.bytes.toString('latin1')).toContain(mark);
  }
});

test('what the proxy answers itself never stands inside of a message that comes in two parts', async () => {
  const { proxy, tampering, inject } = await start();
  const client = await RawClient.loggedIn(proxy, 'prod');
  client.send(parse('one', Buffer.from('SELECT 1 AS a_column_with_a_long_name\0\0\0')), SYNC);
  await client.until('Z');
  tampering.toProxy = (bytes) => {
    const at = bytes.indexOf('a_column');
    if (at < 0) return bytes;
    tampering.toProxy = AS_IT_IS;
    const rest = Buffer.from(bytes.subarray(at));
    setTimeout(() => {
      inject(rest);
    }, 50);
    return bytes.subarray(0, at);
  };
  const bind = frame('B', Buffer.from('\0one\0'), Buffer.alloc(6));
  client.send(bind, DESCRIBE_PORTAL, closeStatement('one'), EXECUTE, SYNC);
  expect(client.types(await client.until('Z'))).toBe('2T3DCZ');
});

test('a client that closes its unnamed statement does not take away that of another client', async () => {
  const { proxy } = await start();
  const [first, second] = [await RawClient.loggedIn(proxy, 'prod'), await RawClient.loggedIn(proxy, 'prod')];
  first.send(parse('', Buffer.from('SELECT 1\0\0\0')), SYNC);
  await first.until('Z');
  second.send(closeStatement(''), SYNC);
  expect(second.types(await second.until('Z'))).toBe('3Z');
  first.send(bindUnnamed(''), EXECUTE, SYNC);
  expect(first.types(await first.until('Z'))).toBe('2DCZ');
});

test('an answer that was held back for a client that is gone is not given to the next one', async () => {
  const { proxy } = await start({}, { onFenceRefusal: () => Promise.resolve() });
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(parse('kept', Buffer.from('SELECT 1\0\0\0')), SYNC);
  await raw.until('Z');
  // The proxy itself answers a Close of what servers keep.
  raw.send(closeStatement('kept'));
  await until('it has a server', () => proxy.pools()[0]?.serversActive === 1);
  raw.socket.destroy();
  const next = await RawClient.loggedIn(proxy, 'prod');
  next.send(query('SELECT 1'));
  expect(next.types(await next.until('Z'))).toBe('TDCZ');
});

test.each(['transaction', 'session'] as const)(
  'in %s mode a server that has a part of a message behind its last answer is not used again: what came next would be taken for the rest',
  async (poolerMode) => {
    const { proxy } = await start({ poolerMode });
    const raw = await RawClient.loggedIn(proxy, 'prod');
    const data = frame('d', Buffer.alloc(200_000));
    raw.send(query('SELECT 1'), data.subarray(0, 100_000));
    await raw.until('Z');
    raw.send(data.subarray(100_000), query('SELECT 2'));
    expect(raw.types(await raw.until('Z'))).toBe('TDCZ');
    raw.socket.destroy();
    await served(proxy);
  },
);

test('a server that ends in the middle of a row ends the session of its client, who is not told that the row is over', async () => {
  const { proxy, tampering } = await start();
  const pid = await served(proxy);
  const client = await clientOf(proxy, 'prod');
  tampering.toProxy = () => null;
  await expect(client.query("SELECT repeat('x', 1000000)")).rejects.toThrow();
  tampering.toProxy = AS_IT_IS;
  expect(await served(proxy)).not.toBe(pid);
});

test('of a client that vanishes in the middle of an answer, of a COPY or of a pipeline nothing is left', async () => {
  const { proxy } = await start();
  const good = await clientOf(proxy, 'prod');
  await good.query('CREATE TABLE kept (n int)');
  const left: readonly (readonly [awaited: string, ...messages: Buffer[]])[] = [
    ['D', query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)")],
    ['G', query('COPY kept FROM STDIN'), frame('d', Buffer.from('1\n2\n'))],
    ['H', query('COPY (SELECT generate_series(1, 200000)) TO STDOUT')],
    ['C', parse('', Buffer.from('INSERT INTO kept VALUES (3)\0\0\0')), bindUnnamed(''), EXECUTE, frame('H')],
    ['E', parse('', Buffer.from('no SQL\0\0\0')), frame('H')],
    ['1', parse('', Buffer.from('SELECT 1\0\0\0')), frame('H')],
  ];
  for (const [awaited, ...messages] of left) {
    const raw = await RawClient.loggedIn(proxy, 'prod');
    raw.send(...messages);
    await raw.until(awaited);
    raw.socket.destroy();
    await served(proxy);
  }
  expect((await good.query('SELECT n FROM kept')).rows).toEqual([]);
});

test.each([
  ['fails', (bytes: Buffer) => Buffer.from(bytes.toString('latin1').replace('DISCARD ALL', 'DISCARD ALX'), 'latin1')],
  ['takes too long', (bytes: Buffer) => (bytes.includes('DISCARD ALL') ? Buffer.alloc(0) : bytes)],
] as const)('a connection whose cleaning %s is not lent', async (_how, toServer) => {
  const { proxy, tampering } = await start({ poolerMode: 'session', rollbackTimeoutMs: 300 });
  const pid = await served(proxy);
  expect(await served(proxy)).toBe(pid);
  tampering.toServer = toServer;
  const other = await clientOf(proxy, 'prod');
  await other.query('SET application_name TO poisoned');
  await other.end();
  await until('it is gone', () => proxy.servers().length === 0);
  tampering.toServer = AS_IT_IS;
  expect(await served(proxy)).not.toBe(pid);
});

test('a ROLLBACK that takes longer than rollback_timeout costs the connection', async () => {
  const { proxy, tampering } = await start({ rollbackTimeoutMs: 300 });
  const pid = await served(proxy);
  const raw = await RawClient.loggedIn(proxy, 'prod');
  raw.send(query('BEGIN'));
  await raw.until('Z');
  tampering.toServer = (bytes) => (bytes.includes('ROLLBACK') ? Buffer.alloc(0) : bytes);
  raw.socket.destroy();
  expect(await served(proxy)).not.toBe(pid);
});

test('settings that a server does not take in time are made on another one', async () => {
  const { proxy, tampering } = await start({ rollbackTimeoutMs: 300 });
  const pid = await served(proxy);
  const client = await clientOf(proxy, 'prod', { options: '-c search_path=elsewhere' });
  tampering.toServer = (bytes) => {
    if (!bytes.includes('elsewhere')) return bytes;
    tampering.toServer = AS_IT_IS;
    return Buffer.alloc(0);
  };
  expect((await client.query('SHOW search_path')).rows).toEqual([{ search_path: 'elsewhere' }]);
  expect(await served(proxy)).not.toBe(pid);
});

test('a server that is asked what a client has left there, and does not say, is thrown away; the client is told and ended', async () => {
  const { proxy, tampering } = await start({ rollbackTimeoutMs: 300 });
  const pid = await served(proxy);
  const raw = await RawClient.loggedIn(proxy, 'prod');
  tampering.toServer = (bytes) => (bytes.includes('pg_listening_channels') ? Buffer.alloc(0) : bytes);
  // More than is kept: the end of the connection is not seen behind it.
  const unread = Array.from({ length: 100 }, () => query(`SELECT '${'x'.repeat(1_000)}'`));
  raw.send(query("SELECT 'temp'"));
  await raw.until('Z');
  raw.send(...unread);
  const [error] = await raw.until('E');
  expect(error?.bytes.toString()).toContain('what its server did not tell');
  tampering.toServer = AS_IT_IS;
  expect(await served(proxy)).not.toBe(pid);
  await until('nothing is left of it', () => proxy.clients().length === 0);
});

test('a client that does not read does not cost the connection its answers to the proxy', async () => {
  const { proxy, tampering } = await start({ rollbackTimeoutMs: 300 });
  const raw = await RawClient.loggedIn(proxy, 'prod');
  const parts: Buffer[] = [];
  // Each answer comes at once, so that the client has enough when it has come to its end.
  tampering.toProxy = (bytes) => {
    parts.push(bytes);
    if (!bytes.subarray(-6).equals(READY_IDLE)) return Buffer.alloc(0);
    return Buffer.concat(parts.splice(0));
  };
  raw.socket.pause();
  let asked = 0;
  const answered = (): number => proxy.stats()[0]?.transactions ?? 0;
  for (let sent = 1; sent <= 400; sent += 1) {
    raw.send(query("SELECT 'temp', repeat('x', 60000)"));
    asked = sent;
    const before = performance.now();
    while (answered() < sent && performance.now() - before < 200) await nextTurn();
    if (answered() < sent) break;
  }
  await new Promise((resolve) => setTimeout(resolve, 700));
  raw.socket.resume();
  const messages = await raw.until('Z', asked);
  expect(messages.filter(({ type }) => type === 'E')).toEqual([]);
});

test.each([
  ['recover', { inTransaction: 'kept', inStatement: 'kept' }],
  ['rollback_only', { inTransaction: 'kept', inStatement: 'lost' }],
  ['drop', { inTransaction: 'lost', inStatement: 'lost' }],
] as const)('connection_recovery = "%s": the server of a client that is gone', async (connectionRecovery, expected) => {
  const { proxy, databaseName } = await start({ connectionRecovery });
  const left = { inTransaction: 'BEGIN', inStatement: 'SELECT pg_sleep(0.5)' };
  const seen: Record<string, string> = {};
  for (const [when, text] of Object.entries(left)) {
    const pid = await served(proxy);
    const raw = await RawClient.loggedIn(proxy, 'prod');
    raw.send(query(text));
    if (when === 'inStatement') await statementsSleep(clusters.main, databaseName);
    else await raw.until('Z');
    raw.socket.destroy();
    seen[when] = (await served(proxy)) === pid ? 'kept' : 'lost';
    await statementsSleep(clusters.main, databaseName, 0);
  }
  expect(seen).toEqual(expected);
});
