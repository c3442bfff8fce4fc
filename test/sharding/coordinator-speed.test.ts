/**
 * One task: see that a coordinator leaves to the shards what they can do, and measure it against one database.
 *
 * COORDINATOR_ROWS=200000 prints milliseconds (docs/evidence/coordinator.md); without it there are a few rows, and no time is judged.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connect, withConnection, type Connection } from '../../src/postgres/connection.js';
import { analyzeCoordinator } from '../../src/postgres/coordinator/analyze.js';
import { makeCoordinator } from '../../src/postgres/coordinator/make.js';
import type { CoordinatorSpec } from '../../src/postgres/coordinator/spec.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { createDatabase } from './coordinator-setup.js';

/** enough that the planner has the shards group */
const ROWS = Number(process.env.COORDINATOR_ROWS ?? '20000');
const ROUNDS = 7;
const clusters = useClusters({ one: { major: 18 } });
let whole: Connection;
let coordinator: Connection;

const TABLES = `
  CREATE TABLE account (tenant_id bigint NOT NULL, id bigint NOT NULL, name text, PRIMARY KEY (tenant_id, id));
  CREATE TABLE invoice (tenant_id bigint NOT NULL, id bigint NOT NULL, account_id bigint NOT NULL, status text NOT NULL, total numeric, PRIMARY KEY (tenant_id, id))`;
const FILL = (where: string): string => `
  INSERT INTO account SELECT i % 1000, i, 'account ' || i FROM generate_series(1, ${ROWS.toString()} / 10) i WHERE ${where};
  INSERT INTO invoice SELECT i % 1000, i, i % (${ROWS.toString()} / 10) + 1, 'status ' || i % 7, i / 7.0 FROM generate_series(1, ${ROWS.toString()}) i WHERE ${where};
  ANALYZE`;

beforeAll(async () => {
  const names = await Promise.all(['whole', 'shard', 'shard'].map((prefix) => freshDatabase(clusters.one, prefix)));
  const [wholeName = '', ...shards] = names;
  for (const [at, name] of names.entries()) {
    const remainder = (at - 1).toString();
    await clusters.one.query(name, TABLES);
    const where = at === 0 ? 'true' : `satisfies_hash_partition('h'::regclass, 2, ${remainder}, (i % 1000)::bigint)`;
    await clusters.one.query(name, `CREATE TEMPORARY TABLE h (k bigint) PARTITION BY HASH (k); ${FILL(where)}`);
  }
  const spec: CoordinatorSpec = {
    shards: shards.map((name) => clusters.one.endpoint(name)),
    placementOf: () => ({
      partitionBy: 'PARTITION BY HASH (tenant_id)',
      partitions: [0, 1].map((shard) => ({
        shard,
        bound: `FOR VALUES WITH (MODULUS 2, REMAINDER ${shard.toString()})`,
      })),
    }),
    users: [],
  };
  const name = `${wholeName}_coordinator`;
  await createDatabase(clusters.one, name, shards[0] ?? '');
  await withConnection(clusters.one.endpoint(name), async (connection) => {
    await makeCoordinator(connection, spec);
    await analyzeCoordinator(connection, { deadlineMs: 30_000, tableMs: 30_000 });
  });
  [whole, coordinator] = await Promise.all([
    connect(clusters.one.endpoint(wholeName)),
    connect(clusters.one.endpoint(name)),
  ]);
  for (const connection of [whole, coordinator]) await connection.query('SET search_path TO public');
});

afterAll(async () => {
  await Promise.all([whole.end(), coordinator.end()]);
});

async function plan(text: string): Promise<string> {
  const { rows } = await coordinator.query<{ 'QUERY PLAN': string }>(`EXPLAIN (VERBOSE, COSTS OFF) ${text}`);
  return rows.map((row) => row['QUERY PLAN']).join('\n');
}

test('a key is asked of its shard alone', async () => {
  const text = await plan('SELECT * FROM invoice WHERE tenant_id = 5 AND id = 1005');
  expect(text.match(/Foreign Scan/g)).toHaveLength(1);
  expect(text).toMatch(/Remote SQL: .*WHERE .*tenant_id/);
});

test('a group by the key is computed by the shards, and shards are read at once', async () => {
  const text = await plan('SELECT tenant_id, count(*), sum(total) FROM invoice GROUP BY tenant_id');
  expect(text.match(/Foreign Scan/g)).toHaveLength(2);
  expect(text).toMatch(/Remote SQL: .*count\(\*\).*GROUP BY/);
  expect(await plan('SELECT * FROM invoice')).toContain('Async Foreign Scan');
});

const MEASURED: readonly (readonly [string, string])[] = [
  ['point by the key', 'SELECT * FROM invoice WHERE tenant_id = 5 AND id = 1005'],
  ['count', 'SELECT count(*) FROM invoice'],
  ['sum, avg', 'SELECT sum(total), avg(total) FROM invoice'],
  ['group by the key', 'SELECT tenant_id, count(*), sum(total) FROM invoice GROUP BY tenant_id ORDER BY tenant_id'],
  ['group by another column', 'SELECT status, count(*), sum(total) FROM invoice GROUP BY status ORDER BY status'],
  [
    'join on the key, grouped by it',
    'SELECT i.tenant_id, count(*) FROM invoice i JOIN account a USING (tenant_id) WHERE a.id <= 500 GROUP BY 1 ORDER BY 1',
  ],
  ['order by, limit 10', 'SELECT * FROM invoice ORDER BY total DESC, id LIMIT 10'],
];

test.each(MEASURED)('%s: the same answer, and its time', async (name, text) => {
  const [expected, actual] = [await whole.query(text), await coordinator.query(text)];
  expect(actual.rows).toEqual(expected.rows);
  if (process.env.COORDINATOR_ROWS === undefined) return;
  const times = [await median(whole, text), await median(coordinator, text)].map((ms) => ms.toFixed(1));
  console.log(`| ${name} | ${times.join(' | ')} |`);
});

async function median(connection: Connection, text: string): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await connection.query(text);
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[(ROUNDS - 1) / 2] ?? 0;
}
