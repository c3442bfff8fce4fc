/** One task: a change of the schema is made on every shard or on none, and what answers over shards follows it. */
import { expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { freePort } from '../../src/dev/ports.js';
import { keepCoordinator } from '../../src/sharding/coordinator-keeping.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import { failure, HERE, THERE, useShards, type Sharded } from './shards.js';
import { clientOf } from './support.js';

const shards = useShards();
const SHARDS = [0, 1];
const COLUMNS = `SELECT column_name AS name FROM information_schema.columns
  WHERE table_schema = 'public' AND table_name = 'notes' ORDER BY ordinal_position`;

async function start(adjust: (config: Config) => Config = (config) => config): Promise<Sharded> {
  const sharded = await shards((config) =>
    adjust({ ...config, users: config.users.map((user) => ({ ...user, schemaAdmin: true })) }),
  );
  for (const shard of SHARDS) await sharded.on(shard, TWO_PHASE_DDL);
  await sharded.on(0, `INSERT INTO notes VALUES (${HERE.toString()}, 1, 'here')`);
  await sharded.on(1, `INSERT INTO notes VALUES (${THERE.toString()}, 1, 'there')`);
  return sharded;
}

async function columnsOf({ on }: Sharded, shard: number): Promise<readonly unknown[]> {
  return (await on(shard, COLUMNS)).map(({ name }) => name);
}

test('a new column is on every shard, and read over all of them at once', async () => {
  const sharded = await start();
  await keepCoordinator(sharded.config, 'prod');
  const client = await clientOf(sharded.proxy, 'prod');
  expect((await client.query('SELECT * FROM notes ORDER BY tenant_id')).rows[0]).not.toHaveProperty('mark');
  expect((await client.query('ALTER TABLE notes ADD COLUMN mark int NOT NULL DEFAULT 7')).command).toBe('ALTER');
  for (const shard of SHARDS) expect(await columnsOf(sharded, shard)).toEqual(['tenant_id', 'id', 'text', 'mark']);
  // By the coordinator, which has followed.
  const { rows } = await client.query('SELECT sum(mark)::int AS marks, count(*)::int AS n FROM notes');
  expect(rows).toEqual([{ marks: 14, n: 2 }]);
  await client
    .query('CREATE TABLE more (tenant_id bigint PRIMARY KEY, v int); CREATE INDEX ON more (v)')
    .catch(() => undefined);
  await client.query('CREATE TABLE more (tenant_id bigint PRIMARY KEY, v int)');
  await client.query('INSERT INTO more VALUES ($1, 1), ($2, 2)', [HERE, THERE]);
  expect((await client.query('SELECT sum(v)::int AS v FROM more')).rows).toEqual([{ v: 3 }]);
});

test('what one shard refuses is made on none', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  await sharded.on(1, 'ALTER TABLE notes ADD COLUMN taken int');
  expect(await failure(client.query('ALTER TABLE notes ADD COLUMN taken int'))).toMatchObject({ code: '42701' });
  expect(await columnsOf(sharded, 0)).toEqual(['tenant_id', 'id', 'text']);
  for (const shard of SHARDS)
    expect(await sharded.on(shard, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')).toEqual(
      [],
    );
  expect((await client.query('SELECT text FROM notes WHERE tenant_id = $1', [HERE])).rows).toEqual([{ text: 'here' }]);
});

test('what cannot be made inside a transaction is refused', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  const refused = await failure(client.query('CREATE INDEX CONCURRENTLY ON notes (text)'));
  expect(refused.message).toContain('cannot run inside a transaction');
  for (const shard of SHARDS) expect(await columnsOf(sharded, shard)).toEqual(['tenant_id', 'id', 'text']);
});

test('a change inside a transaction is on every shard once that is committed, and the coordinator follows', async () => {
  const sharded = await start();
  await keepCoordinator(sharded.config, 'prod');
  const client = await clientOf(sharded.proxy, 'prod');
  const add = 'ALTER TABLE notes ADD COLUMN mark int DEFAULT 3';
  for (const end of ['ROLLBACK', 'COMMIT']) {
    await client.query('BEGIN');
    await client.query('UPDATE notes SET text = $2 WHERE tenant_id = $1', [THERE, end]);
    await client.query(add);
    await client.query('DELETE FROM notes WHERE text = $1', ['nothing']);
    for (const shard of SHARDS) expect(await columnsOf(sharded, shard)).toEqual(['tenant_id', 'id', 'text']);
    await client.query(end);
  }
  for (const shard of SHARDS) expect(await columnsOf(sharded, shard)).toEqual(['tenant_id', 'id', 'text', 'mark']);
  expect((await client.query('SELECT sum(mark)::int AS marks FROM notes')).rows).toEqual([{ marks: 6 }]);
});

test('without a coordinator the shards change all the same, and nobody is warned', async () => {
  const sharded = await start();
  const client = await clientOf(sharded.proxy, 'prod');
  const notices: unknown[] = [];
  client.on('notice', (notice) => notices.push(notice.message));
  await client.query('DROP TABLE other.notes');
  expect(notices).toEqual([]);
  for (const shard of SHARDS)
    expect(await sharded.on(shard, `SELECT to_regclass('other.notes') AS there`)).toEqual([{ there: null }]);
});

test('where the coordinator could not follow nothing is changed', async () => {
  const port = await freePort();
  const sharded = await start((config) => {
    const [database] = config.databases;
    if (database === undefined) throw new Error('no entry');
    const far = { ...database, name: 'far', port };
    return { ...config, databases: [...config.databases, far], sharding: { ...config.sharding, coordinator: 'far' } };
  });
  const client = await clientOf(sharded.proxy, 'prod');
  const add = 'ALTER TABLE notes ADD COLUMN mark int';
  const unfollowed = { code: '40000', message: expect.stringMatching(/the coordinator could not follow/) as unknown };
  expect(await failure(client.query(add))).toMatchObject(unfollowed);
  await client.query('BEGIN');
  await client.query('UPDATE notes SET text = $1', ['changed']);
  expect(await failure(client.query(add))).toMatchObject(unfollowed);
  expect((await client.query('COMMIT')).command).toBe('ROLLBACK');
  for (const shard of SHARDS) expect(await columnsOf(sharded, shard)).toEqual(['tenant_id', 'id', 'text']);
  expect((await client.query('UPDATE notes SET text = $1 WHERE text <> $1', ['changed'])).rowCount).toBe(2);
});
