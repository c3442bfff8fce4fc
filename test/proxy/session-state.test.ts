/** One task: what a client has in its server's session stays its own between transactions, and goes along or ends at a swap. */
import type pg from 'pg';
import { expect, test } from 'vitest';
import { swapNames } from '../../src/config/swap.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { cstring, frame } from '../../src/wire/backend.js';
import { parse, SYNC } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient, type Overrides } from './support.js';

const clusters = useClusters({ server: { major: 18 } });

interface Places {
  readonly proxy: Proxy;
  readonly here: string;
  readonly there: string;
}

async function start(overrides: Overrides = {}): Promise<Places> {
  const cluster = clusters.server;
  const [here, there] = [await freshDatabase(cluster), await freshDatabase(cluster)];
  const targets = [
    { name: 'prod', cluster, databaseName: here },
    { name: 'prod_new', cluster, databaseName: there },
  ];
  return { proxy: await proxyFor({ config: configFor(targets, overrides) }), here, there };
}

/** What is notified to a client, as it comes. */
function heardBy(client: pg.Client): string[] {
  const heard: string[] = [];
  client.on('notification', ({ channel, payload }) => heard.push(`${channel} ${payload ?? ''}`));
  return heard;
}

async function pidOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  return rows[0]?.pid ?? 0;
}

const leavings: readonly (readonly [string, string, string, string])[] = [
  ['a temporary table', 'CREATE TEMP TABLE mine (n int)', 'SELECT count(*) FROM mine', 'DROP TABLE mine'],
  ['a session-level advisory lock', 'SELECT pg_advisory_lock(7)', 'SELECT 1', 'SELECT pg_advisory_unlock(7)'],
  ['a statement of PREPARE', 'PREPARE mine AS SELECT 1', 'EXECUTE mine', 'DEALLOCATE mine'],
  [
    'a cursor WITH HOLD',
    'DECLARE mine CURSOR WITH HOLD FOR SELECT generate_series(1, 9)',
    'FETCH 1 FROM mine',
    'CLOSE mine',
  ],
  ['LISTEN', 'LISTEN mine', 'SELECT 1', 'UNLISTEN mine'],
];

/** The pool has one server: whoever does not have it waits. */
const ONE_SERVER: Overrides = { general: { defaultPoolSize: 1 } };

function untilWaiting(proxy: Proxy): Promise<unknown> {
  return until('the other one waits', () => proxy.pools().some(({ clientsWaiting }) => clientsWaiting === 1));
}

test.each(leavings)('%s keeps the server until it is gone', async (_, make, use, drop) => {
  const { proxy } = await start(ONE_SERVER);
  const [client, other] = [await clientOf(proxy, 'prod'), await clientOf(proxy, 'prod')];
  await client.query(make);
  const pid = await pidOf(client);
  const waiting = pidOf(other);
  await untilWaiting(proxy);
  await client.query(use);
  expect(await pidOf(client)).toBe(pid);
  await client.query(drop);
  expect(await waiting).toBe(pid);
});

test('what was rolled back keeps nothing, and what a client leaves behind is gone before the next one has the server', async () => {
  const { proxy } = await start(ONE_SERVER);
  const [client, other] = [await clientOf(proxy, 'prod'), await clientOf(proxy, 'prod')];
  await client.query('BEGIN');
  await client.query('CREATE TEMP TABLE mine (n int)');
  await client.query('LISTEN mine');
  await client.query('ROLLBACK');
  expect((await other.query('SELECT 1')).rowCount).toBe(1);
  for (const [, make] of leavings.filter(([name]) => name !== 'LISTEN')) await client.query(make);
  await client.end();
  const { rows } = await other.query(`SELECT
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')::int AS locks, to_regclass('pg_temp.mine') AS mine,
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)::int AS prepared,
    (SELECT count(*) FROM pg_listening_channels())::int AS channels`);
  expect(rows).toEqual([{ locks: 0, mine: null, prepared: 0, channels: 0 }]);
});

test.each(['', 'locks'])(
  'a statement prepared as "%s" that takes a lock keeps the server whenever it is run',
  async (name) => {
    const { proxy } = await start(ONE_SERVER);
    const client = await RawClient.loggedIn(proxy, 'prod');
    const locking = parse(name, Buffer.from('SELECT pg_advisory_lock(8)\0\0\0'));
    client.send(locking, SYNC);
    await client.until('Z');
    const other = await clientOf(proxy, 'prod');
    const pid = await pidOf(other);
    client.send(
      frame('B', cstring(''), cstring(name), Buffer.alloc(6)),
      frame('E', cstring(''), Buffer.alloc(4)),
      SYNC,
    );
    await client.until('Z');
    const waiting = pidOf(other);
    await untilWaiting(proxy);
    client.socket.destroy();
    expect(await waiting).toBe(pid);
    const locks = `SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory'`;
    expect((await other.query(locks)).rows).toEqual([{ n: 0 }]);
  },
);

test('a listener hears what others notify while it is idle, each once and in order', async () => {
  const { proxy } = await start();
  const [client, other] = [await clientOf(proxy, 'prod'), await clientOf(proxy, 'prod')];
  const heard = heardBy(client);
  await client.query('LISTEN news; LISTEN "Größe \\ \\"2\\""'.replaceAll('\\"', '""'));
  for (let number = 0; number < 50; number += 1) await other.query(`SELECT pg_notify('news', '${number.toString()}')`);
  await other.query(`SELECT pg_notify('Größe \\ "2"', 'last')`);
  await until('the last one has come', () => heard.length >= 51);
  expect(heard).toEqual([
    ...Array.from({ length: 50 }, (_, number) => `news ${number.toString()}`),
    'Größe \\ "2" last',
  ]);
});

test('where the server of such a session is lost its client is told', async () => {
  const { proxy, here } = await start();
  const client = await clientOf(proxy, 'prod');
  const told: unknown[] = [];
  client.on('error', (error) => told.push((error as { code?: string }).code));
  await client.query('CREATE TEMP TABLE mine (n int)');
  await clusters.server.query(here, 'SELECT pg_terminate_backend($1)', [await pidOf(client)]);
  await until('it is told', () => told.length > 0);
  expect(told[0]).toBe('57P01');
});

async function swapped(proxy: Proxy, work: () => Promise<unknown>): Promise<void> {
  const gate = proxy.gate('prod');
  gate.close('cutover');
  expect((await gate.drained(5_000)).drained).toBe(true);
  proxy.apply(swapNames(proxy.config, 'prod', 'prod_new'));
  await until('listeners have moved', () => proxy.listenersMoved());
  // What resumes must not be needed for hearing.
  await work();
  gate.open('cutover');
}

test.each(['transaction', 'session'] as const)(
  'in %s mode a listener hears the new side after a swap and the old one after the next, and misses nothing',
  async (poolerMode) => {
    const { proxy, here, there } = await start({ general: { poolerMode } });
    const client = await clientOf(proxy, 'prod');
    const heard = heardBy(client);
    await client.query('LISTEN "Größe"');
    await client.query('LISTEN b');
    const notify = (database: string, payload: string): Promise<unknown> =>
      clusters.server.query(database, `SELECT pg_notify('Größe', $1), pg_notify('b', $1)`, [payload]);
    await notify(here, 'before');
    await swapped(proxy, () => notify(there, 'in the pause'));
    await notify(here, 'nobody');
    await notify(there, 'after');
    await swapped(proxy, () => notify(here, 'back'));
    await notify(there, 'nobody');
    const all = ['before', 'in the pause', 'after', 'back'].flatMap((payload) => [`Größe ${payload}`, `b ${payload}`]);
    await until('all have come', () => heard.length >= all.length);
    await client.query('SELECT 1');
    expect(heard).toEqual(all);
    // It has the server where it listens, and no other one listens any more.
    const listening = `SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'LISTEN%' AND state = 'idle'`;
    expect((await clusters.server.query(there, listening, [there])).length).toBe(0);
  },
);

test('a listener with a statement at the closed gate runs it on the new side, and still listens', async () => {
  const { proxy, there } = await start();
  const client = await clientOf(proxy, 'prod');
  const heard = heardBy(client);
  await client.query('LISTEN news');
  const gate = proxy.gate('prod');
  gate.close('cutover');
  const asked = client.query<{ name: string }>('SELECT current_database() AS name');
  await until('it waits', () => gate.waitingCount === 1);
  proxy.apply(swapNames(proxy.config, 'prod', 'prod_new'));
  gate.open('cutover');
  expect((await asked).rows[0]?.name).toBe(there);
  await clusters.server.query(there, `SELECT pg_notify('news', 'new')`);
  await until('it hears', () => heard.length > 0);
});

test('with "wait" a drain waits for what cannot go along, and with "close" the swap ends it', async () => {
  for (const sessionState of ['wait', 'close'] as const) {
    const { proxy } = await start();
    proxy.apply({ ...proxy.config, cutover: { ...proxy.config.cutover, sessionState } });
    const client = await clientOf(proxy, 'prod', { application_name: 'report' });
    const told: unknown[] = [];
    client.on('error', (error) => told.push((error as { code?: string }).code));
    await client.query('CREATE TEMP TABLE mine (n int)');
    const gate = proxy.gate('prod');
    gate.close('cutover');
    const drain = await gate.drained(50);
    expect(drain.holders.map(({ application }) => application)).toEqual(sessionState === 'wait' ? ['report'] : []);
    if (sessionState === 'wait') {
      // As one in a transaction it may go on until it has none.
      await client.query('INSERT INTO mine VALUES (1)');
      const drained = gate.drained(5_000);
      await client.query('DROP TABLE mine');
      expect((await drained).drained).toBe(true);
      const held = client.query('SELECT 1');
      await until('it waits like all others', () => gate.waitingCount === 1);
      gate.open('cutover');
      await held;
    } else {
      proxy.apply(swapNames(proxy.config, 'prod', 'prod_new'));
      await until('it is told', () => told.length > 0);
      expect(told[0]).toBe('57P01');
    }
    gate.open('cutover');
  }
});
