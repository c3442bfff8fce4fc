/** One task: queries pass the proxy as if it were not there. */
import { expect, test } from 'vitest';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { clientOf, configFor, proxyFor } from './support.js';

const clusters = useClusters({ main: { major: 18 } });

async function start(): Promise<Awaited<ReturnType<typeof proxyFor>>> {
  const databaseName = await freshDatabase(clusters.main);
  return proxyFor({ config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }]) });
}

test('simple and extended queries, errors and transactions are answered like by the server itself', async () => {
  const proxy = await start();
  const client = await clientOf(proxy, 'prod');
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  expect((await client.query('SELECT $1::int + $2::int AS sum', [2, 3])).rows).toEqual([{ sum: 5 }]);
  await expect(client.query('SELECT 1/0')).rejects.toMatchObject({ code: '22012' });
  await expect(client.query('SELECT 1/$1::int', [0])).rejects.toMatchObject({ code: '22012' });
  await client.query('CREATE TABLE item (id int PRIMARY KEY, body text)');
  await client.query('BEGIN');
  await client.query('INSERT INTO item VALUES ($1, $2)', [1, 'x'.repeat(300_000)]);
  await client.query('ROLLBACK');
  expect((await client.query('SELECT count(*)::int AS n FROM item')).rows).toEqual([{ n: 0 }]);
  const several = await client.query('SELECT 1 AS a; SELECT 2 AS b');
  expect(several).toHaveLength(2);
});

test('more clients than servers all get their answers, in transactions that do not mix', async () => {
  const proxy = await start();
  const clients = await Promise.all(Array.from({ length: 12 }, () => clientOf(proxy, 'prod')));
  await clients[0]?.query('CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)');
  await Promise.all(
    clients.map(async (client) => {
      for (let turn = 0; turn < 20; turn += 1) {
        await client.query('BEGIN');
        await client.query('UPDATE counter SET n = n + $1', [1]);
        await client.query('COMMIT');
      }
    }),
  );
  expect((await clients[0]?.query('SELECT n FROM counter'))?.rows).toEqual([{ n: 240 }]);
  expect(proxy.servers().length).toBeLessThanOrEqual(4);
});

test('a result larger than every buffer arrives whole', async () => {
  const proxy = await start();
  const client = await clientOf(proxy, 'prod');
  const { rows } = await client.query<{ body: string }>(
    "SELECT repeat('x', 1000) AS body FROM generate_series(1, 50000)",
  );
  expect(rows).toHaveLength(50_000);
  expect(rows.every((row) => row.body.length === 1000)).toBe(true);
});
