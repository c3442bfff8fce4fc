/**
 * One task: the same statements, written and read through the proxy, have the same effect and the same answer on two shards as on one
 * database. SHARDED_QUERIES says how many reads; docs/evidence/router.md has a long run.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type pg from 'pg';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { keepCoordinator } from '../../src/sharding/coordinator-keeping.js';
import { startProxy } from '../../src/proxy/proxy.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { generatedSelect, TENANTS, withConstants, withParameters } from '../sharding/generated-statements.js';
import { SCHEMA_SQL, SCHEME, SHARDS } from '../sharding/routing-context.js';
import { clientOf, configFor } from './support.js';

const clusters = useClusters({ all: { major: 18 } });
const QUERIES = Number(process.env.SHARDED_QUERIES ?? '1000');
const REFUSED_SHARE_MAX = 0.05;

let whole: Connection;
let proxy: Proxy;

/** What an application writes: with a key, except for what every shard has. */
const ROWS = TENANTS.flatMap((tenant) => {
  const id = tenant.toString();
  return [
    `INSERT INTO tenants VALUES (${id}, 'tenant ${id}')`,
    ...[1, 2, 3]
      .slice(0, 2 + (tenant % 3))
      .map((n) => `INSERT INTO orders (tenant_id, id) VALUES (${id}, ${n.toString()})`),
    ...[2, 3].map((n) => `INSERT INTO items (tenant_id, order_id) VALUES (${id}, ${n.toString()})`),
  ];
}).concat('INSERT INTO items (tenant_id, order_id) VALUES (NULL, 1), (NULL, NULL)');
const ON_EVERY_SHARD = "INSERT INTO products SELECT g, 'p' FROM generate_series(1, 5) g";

beforeAll(async () => {
  const wholeName = await freshDatabase(clusters.all);
  const shardNames = await Promise.all(Array.from({ length: SHARDS }, () => freshDatabase(clusters.all)));
  for (const name of [wholeName, ...shardNames]) {
    await clusters.all.query(name, SCHEMA_SQL);
    await clusters.all.query(name, ON_EVERY_SHARD);
  }
  whole = await connect(clusters.all.endpoint(wholeName));
  await whole.query('SET search_path = public; SET jit = off');
  const base = configFor([{ name: 'prod', cluster: clusters.all, databaseName: wholeName }]);
  const [entry] = base.databases;
  if (entry === undefined) throw new Error('no entry');
  const config = {
    ...base,
    databases: shardNames.map((databaseName, shard) => ({ ...entry, databaseName, shard })),
    sharding: { ...base.sharding, tables: SCHEME.tables, schemas: SCHEME.schemas },
  };
  await keepCoordinator(config, 'prod');
  proxy = await startProxy({ config });
}, 120_000);

afterAll(async () => {
  await proxy.close(0);
  await whole.end();
});

/** The rows without their order, or the error. */
async function answerOf(client: pg.Client, sql: string, values?: readonly string[]): Promise<string> {
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql, values === undefined ? undefined : [...values]);
    return rows
      .map((row) => JSON.stringify(row))
      .sort()
      .join('\n');
  } catch (error) {
    return `error ${(error as { code?: string }).code ?? String(error)}`;
  }
}

test(`${QUERIES.toString()} generated reads, as text and with parameters, have the answer of one database`, async () => {
  const client = await clientOf(proxy, 'prod');
  await client.query('SET jit = off');
  for (const sql of ROWS) for (const target of [client, whole]) await target.query(sql);
  let refused = 0;
  let rows = 0;
  for (let seed = 1; seed <= QUERIES; seed += 1) {
    const statement = generatedSelect(seed);
    const { sql, values } = withParameters(statement);
    const text = withConstants(statement);
    const expected = await answerOf(whole, text);
    if (expected.startsWith('error')) continue;
    for (const actual of [await answerOf(client, text), await answerOf(client, sql, values)]) {
      if (actual === 'error 0A000') refused += 1;
      else expect(actual, `seed ${seed.toString()}: ${text}`).toBe(expected);
    }
    rows += expected === '' ? 0 : 1;
  }
  expect(rows).toBeGreaterThan(QUERIES / 4);
  expect(refused / (2 * QUERIES)).toBeLessThanOrEqual(REFUSED_SHARE_MAX);
  if (process.env.SHARDED_QUERIES !== undefined) console.log({ queries: 2 * QUERIES, refused, withRows: rows });
}, 1_200_000);
