/** One task: rows whose key changes go from shard to shard whole, rows without one have their place, and what that needs is taken away again. */
import { afterAll, expect, test } from 'vitest';
import { shardNames, useSystem, type TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';
import { expectIdentities, OutsideKey, OUTSIDE_KEY } from './outside-key.js';

const DEADLINE_MS = 60_000;
/** 32 KB that no compression makes short: stored apart from its row. */
const LONG = `(SELECT string_agg(md5(n::text || random()::text), '') FROM generate_series(1, 1024) n)`;

const system = useSystem({
  source: 18,
  destination: 18,
  shards: { destination: 2 },
  settings: { max_prepared_transactions: '10', max_logical_replication_workers: '16', max_worker_processes: '32' },
  general: 'cutover_prepare = "auto"',
  schema: `${OUTSIDE_KEY}
    CREATE TABLE public.documents (tenant_id bigint NOT NULL, id bigint NOT NULL, body text NOT NULL, blob bytea, tags text[],
      length bigint GENERATED ALWAYS AS (length(body)) STORED, PRIMARY KEY (tenant_id, id));
    CREATE TABLE public.loose (tenant_id bigint, body text);
    ALTER TABLE public.loose REPLICA IDENTITY FULL;
    CREATE TABLE public.country (code text PRIMARY KEY);
    INSERT INTO public.documents SELECT n, n, ${LONG}, decode(md5(n::text), 'hex'), ARRAY['ä', NULL, '"'] FROM generate_series(1, 20) n;
    INSERT INTO public.loose SELECT nullif(n % 5, 0), repeat('l', 10) FROM generate_series(1, 50) n;
    CREATE PUBLICATION everything FOR ALL TABLES;`,
  sharding: `
[[sharded_tables]]
database = "prod_new"
column = "tenant_id"
data_type = "bigint"
`,
});

const ROW = (id: number): string =>
  `SELECT tenant_id, md5(body) AS body, blob, tags FROM public.documents WHERE id = ${id.toString()}`;

let outside: OutsideKey | null = null;
afterAll(() => outside?.stop());

test('streams run to two shards', async () => {
  outside = new OutsideKey(system().endpoint());
  await system().admin('COPY_DATA prod prod_new everything');
  await system().task(
    'the copy streams',
    (t) => t.inner_status === 'replicating' && t.type.startsWith('copy_data'),
    DEADLINE_MS,
  );
  await outside.more();
  await expectIdentities(system().source, ['app'], true);
  await expectIdentities(system().destination, shardNames(2), true);
});

test('a row whose key lacks the column that changes goes to its other shard, as one does that tells its rows apart by all of it', async () => {
  const { source } = system();
  // Keys of nobody else: the load counts the rows of its own.
  const [one, other] = await keysOf(100);
  const id = 1_000;
  for (const table of ['late', 'maybe']) {
    const row = `SELECT id, tenant_id, n FROM public.${table} WHERE id = ${id.toString()}`;
    await source.query('app', `INSERT INTO public.${table} VALUES (${id.toString()}, ${one.toString()}, 0)`);
    await until('it is there', async () => (await at(0, row)).length === 1);
    await source.query('app', `UPDATE public.${table} SET tenant_id = ${other.toString()} WHERE id = ${id.toString()}`);
    await until('it is on its other shard', async () => (await at(1, row)).length === 1);
    await until('and not on the first', async () => (await at(0, row)).length === 0);
    await source.query('app', `DELETE FROM public.${table} WHERE id = ${id.toString()}`);
    await until('it is gone', async () => (await at(1, row)).length === 0);
  }
});

test('a row whose key changes goes to its other shard with the long values that did not change', async () => {
  const { source } = system();
  const [one, other] = await keysOf();
  await source.query(
    'app',
    `UPDATE public.documents SET tenant_id = ${other.toString()} WHERE tenant_id = ${one.toString()}`,
  );
  const [moved] = await source.query('app', ROW(one));
  await until('the row is on its other shard', async () => (await at(1, ROW(one))).length === 1);
  expect(await at(1, ROW(one))).toEqual([moved]);
  expect(await at(0, ROW(one))).toEqual([]);
  await source.query('app', `UPDATE public.documents SET tenant_id = ${one.toString()} WHERE id = ${one.toString()}`);
  await until('and back', async () => (await at(0, ROW(one))).length === 1);
  expect(await at(0, ROW(one))).toEqual(await source.query('app', ROW(one)));
  expect(await at(1, ROW(one))).toEqual([]);
});

test('without the trigger NULL arrives in their place, which is why it is there', async () => {
  const { source, destination } = system();
  const [one, other] = await keysOf();
  await source.query('app', `CREATE TABLE cutover.control (tenant_id bigint, id bigint PRIMARY KEY, body text)`);
  await source.query('app', `ALTER TABLE cutover.control ALTER body SET STORAGE external`);
  for (const shard of shardNames(2))
    await destination.query(shard, 'CREATE TABLE cutover.control (tenant_id bigint, id bigint, body text)');
  // A stream of its own, so that the move's is not stopped by what cannot be applied.
  await source.query(
    'app',
    `ALTER TABLE cutover.control DROP CONSTRAINT control_pkey, ADD PRIMARY KEY (tenant_id, id)`,
  );
  await source.query(
    'app',
    `CREATE PUBLICATION control FOR TABLE cutover.control WHERE (satisfies_hash_partition('cutover.hash_bigint'::regclass, 2, 1, tenant_id))`,
  );
  await source.query('app', `SELECT pg_create_logical_replication_slot('control', 'pgoutput')`);
  const { host, port, password } = source;
  const conninfo = `host=${host} port=${port.toString()} dbname=app user=postgres password=${password}`;
  await destination.query(
    'app_1',
    `CREATE SUBSCRIPTION control CONNECTION '${conninfo}' PUBLICATION control WITH (create_slot = false, copy_data = false)`,
  );
  await source.query('app', `INSERT INTO cutover.control SELECT ${one.toString()}, 1, ${LONG}`);
  await source.query('app', `UPDATE cutover.control SET tenant_id = ${other.toString()}`);
  await until('the row has come', async () => (await at(1, 'SELECT FROM cutover.control')).length === 1);
  expect(await at(1, 'SELECT body FROM cutover.control')).toEqual([{ body: null }]);
  await destination.query('app_1', 'DROP SUBSCRIPTION control');
  for (const shard of shardNames(2)) await destination.query(shard, 'DROP TABLE cutover.control');
  await source.query('app', 'DROP PUBLICATION control; DROP TABLE cutover.control');
});

test('rows without a key are on one shard, and move when they get one', async () => {
  const { source } = system();
  const count = `SELECT count(*)::int AS n FROM public.loose WHERE tenant_id IS NULL`;
  expect(await at(0, count)).toEqual([{ n: 10 }]);
  expect(await at(1, count)).toEqual([{ n: 0 }]);
  const [, other] = await keysOf();
  await source.query('app', `UPDATE public.loose SET tenant_id = ${other.toString()} WHERE tenant_id IS NULL`);
  await until(
    'they have gone',
    async () => (await at(0, 'SELECT FROM public.loose WHERE tenant_id IS NULL')).length === 0,
  );
  const of = `SELECT count(*)::int AS n FROM public.loose WHERE tenant_id = ${other.toString()}`;
  expect(await at(1, of)).toEqual(await source.query('app', of));
});

test('TRUNCATE empties every shard as long as one database serves, and is refused while several do', async () => {
  const { source } = system();
  await source.query('app', 'TRUNCATE public.loose');
  for (const shard of [0, 1])
    await until('the shard is empty', async () => (await at(shard, 'SELECT FROM public.loose')).length === 0);
  await switchTo(' (reverse)');
  const client = await system().client();
  await expect(client.query('TRUNCATE public.documents')).rejects.toMatchObject({
    code: '55000',
    message: expect.stringContaining('cannot be truncated') as string,
  });
  await client.query('DELETE FROM public.documents WHERE tenant_id > 10');
  await client.end();
  await until(
    'the source has fewer',
    async () => (await source.query('app', 'SELECT FROM public.documents')).length === 10,
  );
});

test('stopped after a rollback, a move to shards leaves nothing behind', async () => {
  const { source, destination } = system();
  await outside?.more();
  await switchTo('');
  await outside?.more();
  await outside?.expectNothingLost([
    [source, ['app']],
    [destination, shardNames(2)],
  ]);
  const task = await system().task(
    'it can be stopped',
    (t) => t.type === 'copy_data prod -> prod_new' && t.status === 'running',
  );
  await system().admin(`STOP_TASK ${task.id ?? ''}`);
  await system().task(
    'it has ended',
    (t) => t.type === 'copy_data prod -> prod_new' && t.status !== 'running',
    DEADLINE_MS,
  );
  for (const [cluster, database] of [
    [source, 'app'],
    ...shardNames(2).map((name) => [destination, name] as const),
  ] as const)
    expect(await cluster.query(database, LEFT), database).toEqual([]);
  expect(await destination.query('app', `SELECT datname FROM pg_database WHERE datname ~ 'coordinator'`)).toEqual([]);
  expect(await source.query('app', 'SELECT FROM public.documents')).toHaveLength(10);
  await expectIdentities(source, ['app'], false);
  for (const name of shardNames(2))
    expect(await destination.query(name, 'SELECT FROM cutover.replica_identity'), name).toEqual([]);
});

/** Whatever a move has made in a database, but for its record. */
const LEFT = `
  SELECT 'trigger ' || tgname AS what FROM pg_trigger WHERE tgname ~ 'cutover'
  UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname ~ '^whole_row'
  UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'cutover_shards'
  UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
  UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname ~ '^cutover'
  UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
  UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ '^cutover'`;

function at(shard: number, statement: string): Promise<readonly Record<string, unknown>[]> {
  return system().destination.query(shardNames(2)[shard] ?? '', statement);
}

/** A key whose rows are on shard 0, and one of shard 1. */
async function keysOf(above = 0): Promise<readonly [number, number]> {
  const rows = await system().source.query<{ key: number; first: boolean }>(
    'app',
    `SELECT n AS key, satisfies_hash_partition('cutover.hash_bigint'::regclass, 2, 0, n::bigint) AS first FROM generate_series(${above.toString()} + 1, ${above.toString()} + 9) n`,
  );
  return [rows.find(({ first }) => first)?.key ?? 0, rows.find(({ first }) => !first)?.key ?? 0];
}

async function switchTo(heading: string): Promise<void> {
  const isStream = (t: TaskLine): boolean => t.type.startsWith('replication ') && t.status === 'running';
  const { id } = await system().task('streams run', isStream);
  await system().admin(`CUTOVER ${id ?? ''}`);
  await system().task(
    `streams run${heading}`,
    (t) => t.type === `replication prod -> prod_new${heading}` && t.status === 'running',
    DEADLINE_MS,
  );
}
