/** One task: reads go to a real streaming replica, nothing else does, and no read is stale by a cutover or refused because a replica died. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type pg from 'pg';
import type { Config, DatabaseEntry } from '../../src/config/config.js';
import type { ReplicaConfig } from '../../src/config/replica-config.js';
import { swapNames } from '../../src/config/swap.js';
import { messageOf } from '../../src/errors/errors.js';
import { startStandby, type Cluster } from '../../src/dev/embedded-postgres.js';
import type { PoolStatus } from '../../src/proxy/contract.js';
import { loadStatementParser } from '../../src/sharding/statement-parser.js';
import { query } from '../../src/wire/frontend.js';
import { useClusters } from '../support/clusters.js';
import { freePort } from '../../src/dev/ports.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient, statementsSleep, type Target } from './support.js';

const clusters = useClusters({ primary: { major: 17 } });
const PORT = `SELECT current_setting('port')::int AS port`;
const CANCEL = `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'`;
let replica: Cluster;

beforeAll(async () => {
  const { primary } = clusters;
  for (const database of ['shop', 'shop_new']) {
    await primary.createDatabase(database);
    await primary.query(
      database,
      `CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1); CREATE SEQUENCE number;
       CREATE FUNCTION mine() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'`,
    );
  }
  replica = await startStandby(primary, 'replica');
  await loadStatementParser();
});

afterAll(() => replica.remove());

function replicaRow(target: Target, port = target.cluster.port): DatabaseEntry {
  const { name, cluster, databaseName } = target;
  return { name, host: cluster.host, port, role: 'replica', shard: 0, databaseName, password: cluster.password };
}

/** Each name with its primary and its replica; more rows as told. */
function configOf(how: Partial<ReplicaConfig> = {}, rows: readonly DatabaseEntry[] = []): Config {
  const names = { prod: 'shop', prod_new: 'shop_new' };
  const at = (cluster: Cluster): readonly Target[] =>
    Object.entries(names).map(([name, databaseName]) => ({ name, databaseName, cluster }));
  const config = configFor(at(clusters.primary));
  return {
    ...config,
    databases: [...config.databases, ...rows, ...at(replica).map((target) => replicaRow(target))],
    replicas: { ...config.replicas, split: 'exclude_primary', ...how },
  };
}

async function portOf(client: pg.Client, text = PORT): Promise<number | undefined> {
  const answer = await client.query<{ port: number }>(text);
  return [answer]
    .flat()
    .flatMap(({ rows }) => rows)
    .at(-1)?.port;
}

test('what provably reads is answered by the replica, everything else by the primary', async () => {
  const proxy = await proxyFor({ config: configOf() });
  const client = await clientOf(proxy, 'prod');
  const reads = [
    PORT,
    `${PORT} FROM item WHERE id = 1`,
    `WITH a AS (${PORT}) SELECT * FROM a; ${PORT}`,
    `${PORT}, mine() /* pgdog_role: replica */`,
  ];
  for (const text of reads) expect(await portOf(client, text), text).toBe(replica.port);
  const others = [
    `${PORT} FROM item FOR UPDATE`,
    `${PORT}, nextval('number')`,
    `${PORT}, mine()`,
    `${PORT}, count(*) FROM pg_class`,
    `WITH a AS (INSERT INTO item VALUES (2) ON CONFLICT DO NOTHING) ${PORT}`,
    `SELECT 1; INSERT INTO item VALUES (2) ON CONFLICT DO NOTHING; ${PORT}`,
    `/* pgdog_role: primary */ ${PORT}`,
  ];
  for (const text of others) expect(await portOf(client, text), text).toBe(clusters.primary.port);
  const named = { name: 'port', text: `${PORT} FROM item WHERE id = $1`, values: [1] };
  for (let turn = 0; turn < 2; turn += 1)
    expect((await client.query<{ port: number }>(named)).rows[0]?.port).toBe(replica.port);
  const rows = proxy.pools().map(({ database, role, shard }) => `${database} ${role} ${shard.toString()}`);
  expect(rows).toStrictEqual(['prod primary 0', 'prod replica 0', 'prod_new primary 0', 'prod_new replica 0']);
});

test('a transaction runs where it begins: one that is READ ONLY on the replica, any other on the primary', async () => {
  const proxy = await proxyFor({ config: configOf() });
  const client = await clientOf(proxy, 'prod');
  const transactions: readonly (readonly [string, number])[] = [
    ['BEGIN', clusters.primary.port],
    ['BEGIN READ ONLY', replica.port],
    ['START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY', replica.port],
    ['BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY', clusters.primary.port],
    ['BEGIN READ ONLY, READ WRITE', clusters.primary.port],
  ];
  for (const [begin, port] of transactions) {
    await client.query(begin);
    expect(await portOf(client), begin).toBe(port);
    expect(await portOf(client, `${PORT}, mine()`), begin).toBe(port);
    await client.query('COMMIT');
  }
  // What a transaction has left in the session is found again.
  await client.query(`BEGIN READ ONLY; DECLARE kept CURSOR WITH HOLD FOR ${PORT}; COMMIT /* pgdog_role: replica */`);
  expect(await portOf(client, 'FETCH kept')).toBe(replica.port);
});

test('with "aggressive" the first statement of a transaction decides, and a replica that is gone is no hindrance', async () => {
  const target = { name: 'prod', databaseName: 'shop', cluster: replica };
  const dead = replicaRow(target, await freePort());
  const config = configOf({ transactions: 'aggressive', strategy: 'round_robin' }, [dead]);
  const client = await clientOf(await proxyFor({ config }), 'prod');
  for (let turn = 0; turn < 3; turn += 1) {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    const port = await portOf(client);
    // Where the dead one's turn was, the transaction goes on at the primary.
    expect(turn === 2 ? [replica.port] : [replica.port, clusters.primary.port]).toContain(port);
    expect(await portOf(client, `${PORT}, mine()`)).toBe(port);
    const { rows } = await client.query('SHOW transaction_isolation');
    expect(rows).toStrictEqual([{ transaction_isolation: 'repeatable read' }]);
    await client.query('COMMIT');
  }
  for (const first of ['INSERT INTO item VALUES (5) ON CONFLICT DO NOTHING', 'SET LOCAL work_mem TO 100000']) {
    await client.query('BEGIN');
    await client.query(first);
    expect(await portOf(client), first).toBe(clusters.primary.port);
    await client.query('ROLLBACK');
  }
});

test('settings go along to the replica; what binds a session to its server, or asks for the primary, does not', async () => {
  const proxy = await proxyFor({ config: configOf() });
  const client = await clientOf(proxy, 'prod', { options: '-c pgdog.role=primary' });
  expect(await portOf(client)).toBe(clusters.primary.port);
  await client.query(`SET pgdog.role TO "replica"; SET timezone TO 'Asia/Tokyo'`);
  const { rows } = await client.query(`${PORT}, current_setting('timezone') AS zone`);
  expect(rows).toStrictEqual([{ port: replica.port, zone: 'Asia/Tokyo' }]);
  await expect(client.query('INSERT INTO item VALUES (3)')).rejects.toMatchObject({ code: '25006' });
  await client.query('RESET ALL; SET pgdog.role = DEFAULT; SET default_transaction_isolation TO serializable');
  expect(await portOf(client)).toBe(clusters.primary.port);
  const listener = await clientOf(proxy, 'prod');
  await listener.query('LISTEN news');
  expect(await portOf(listener)).toBe(clusters.primary.port);
  await listener.query('UNLISTEN news');
  expect(await portOf(listener)).toBe(replica.port);
});

test('of statements sent without waiting those behind a write stay with it, and all are answered in order', async () => {
  const proxy = await proxyFor({ config: configOf() });
  const client = await RawClient.loggedIn(proxy, 'prod');
  const insert = 'INSERT INTO item VALUES (4) ON CONFLICT (id) DO NOTHING';
  client.send(...[PORT, insert, PORT, 'BEGIN READ ONLY', PORT, 'COMMIT', insert, `${PORT}, mine()`].map(query));
  const answers = await client.until('Z', 8);
  const ports = answers.filter(({ type }) => type === 'D').map(({ bytes }) => Number(/\d{4,5}/.exec(bytes.toString())));
  const { primary } = clusters;
  expect(ports).toStrictEqual([replica.port, primary.port, primary.port, primary.port]);
  expect(client.types(answers)).not.toContain('E');
});

test.each(['round_robin', 'weighted_round_robin', 'least_active_connections', 'random'] as const)(
  '%s gives each server its share, and one that cannot be reached none',
  async (strategy) => {
    const target = { name: 'prod', databaseName: 'shop', cluster: replica };
    const dead = replicaRow(target, await freePort());
    const proxy = await proxyFor({ config: configOf({ strategy, split: 'include_primary' }, [dead]) });
    const client = await clientOf(proxy, 'prod');
    const seen = new Set<number | undefined>();
    for (let turn = 0; turn < 40; turn += 1) seen.add(await portOf(client));
    expect([...seen].sort()).toStrictEqual([clusters.primary.port, replica.port].sort());
    const banned = proxy.pools().filter(({ ban }) => ban !== null);
    expect(banned).toMatchObject([{ database: 'prod', role: 'replica', port: dead.port }]);
    const problem = `127.0.0.1:${dead.port.toString()}`;
    expect(banned[0]?.ban).toMatchObject({ reason: expect.stringContaining(problem) as string });
  },
);

test('a cutover takes the replicas along: it waits for their reads, and no later one sees the old side', async () => {
  const config = configOf();
  const proxy = await proxyFor({ config });
  const gate = proxy.gate('prod');
  let serving = 'shop';
  let reading = true;
  const wrong: string[] = [];
  const counts = { shop: 0, shop_new: 0 };
  const reader = async (turn: number): Promise<void> => {
    const client = await clientOf(proxy, 'prod');
    for (; reading; turn += 1) {
      const sentTo = serving;
      const text = `${PORT}, current_database() AS side`;
      if (turn % 3 === 0) await client.query('BEGIN READ ONLY');
      const how = turn % 3 === 1 ? { name: 'side', text } : { text };
      const [row] = (await client.query<{ port: number; side: 'shop' | 'shop_new' }>(how)).rows;
      if (turn % 3 === 0) await client.query('COMMIT');
      if (row?.port !== replica.port || (row.side !== sentTo && row.side !== serving)) wrong.push(JSON.stringify(row));
      if (row !== undefined) counts[row.side] += 1;
    }
  };
  const failed = (error: unknown): void => void wrong.push(messageOf(error));
  const readers = Array.from({ length: 6 }, (_, turn) => reader(turn).catch(failed));
  try {
    for (const next of [swapNames(config, 'prod', 'prod_new'), config]) {
      const before = counts.shop + counts.shop_new;
      await until('the readers read', () => counts.shop + counts.shop_new > before + 60);
      const slow = await clientOf(proxy, 'prod');
      const sleeping = expect(slow.query('SELECT pg_sleep(60)')).rejects.toMatchObject({ code: '57014' });
      await statementsSleep(replica, serving);
      gate.close('cutover');
      expect(await gate.drained(20)).toMatchObject({ drained: false });
      await replica.query('postgres', CANCEL);
      expect(await gate.drained(10_000)).toMatchObject({ drained: true, holders: [] });
      await sleeping;
      serving = serving === 'shop' ? 'shop_new' : 'shop';
      await sleep(50);
      proxy.apply(next);
      gate.open('cutover');
    }
    await until('the readers are back', () => counts.shop > 100);
  } finally {
    reading = false;
    gate.open('cutover');
    await Promise.all(readers);
  }
  expect(wrong).toStrictEqual([]);
  expect(counts.shop_new).toBeGreaterThan(0);
  const places = proxy.pools().map(({ database, role, port }) => [database, role, port]);
  expect(places).toContainEqual(['prod_new', 'replica', replica.port]);
});

test('reads of a replica that has died are answered by the primary, and by the replica when it is back', async () => {
  const proxy = await proxyFor({ config: configOf({ banTimeoutMs: 200 }) });
  const client = await clientOf(proxy, 'prod');
  expect(await portOf(client)).toBe(replica.port);
  await replica.kill();
  expect(await portOf(client)).toBe(clusters.primary.port);
  const find = (): PoolStatus | undefined =>
    proxy.pools().find(({ role, database }) => role === 'replica' && database === 'prod');
  expect(find()?.ban).not.toBeNull();
  await replica.start();
  await until('the replica answers', async () => (await portOf(client)) === replica.port);
  expect(proxy.setBan(find()?.id ?? 0, true)).toBe(1);
  expect(await portOf(client)).toBe(clusters.primary.port);
  expect(find()?.ban).toStrictEqual({ reason: 'banned by hand', leftMs: null });
  expect(proxy.setBan(null, false)).toBe(2);
  expect(await portOf(client)).toBe(replica.port);
});
