/**
 * One task: generated writes of every class have the same answer and the same effect on two shards as on one PostgreSQL. WRITES says how many of
 * each class, WRITES_SEED which ones; docs/evidence/router.md has a long run.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startProxy } from '../../src/proxy/proxy.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { THOROUGH } from '../support/thorough.js';
import { Exchange } from '../writes/exchange.js';
import { Comparison } from '../writes/held.js';
import { KEY_COLUMNS, writesSchema } from '../writes/schema.js';
import { CLASSES, FAILING, nothingTold, refusedShare, summaryOf, WriteStream } from '../writes/stream.js';
import { configFor, RawClient } from './support.js';

const OF_EACH = Number(process.env.WRITES ?? (THOROUGH ? '600' : '12'));
const SEED = Number(process.env.WRITES_SEED ?? '1');
const SHARDS = 2;
/** A few of each class are refused, or fail on both. */
const ANSWERED_MIN = OF_EACH >= 600 ? 500 : OF_EACH / 2;
const COMPARED_EVERY = 10;
const REFUSED_SHARE_MAX = 0.05;
const HASH = { kind: 'hash', hasher: 'postgres' } as const;

const clusters = useClusters({ all: { major: 18 } });
let proxy: Proxy;
let comparison: Comparison;

beforeAll(async () => {
  const { all } = clusters;
  const wholeName = await freshDatabase(all);
  const shardNames = await Promise.all(Array.from({ length: SHARDS }, () => freshDatabase(all)));
  for (const name of [wholeName, ...shardNames]) await all.query(name, writesSchema('w') + TWO_PHASE_DDL);
  const base = configFor([
    { name: 'prod', cluster: all, databaseName: wholeName },
    { name: 'whole', cluster: all, databaseName: wholeName },
  ]);
  const [entry, whole] = base.databases;
  if (entry === undefined || whole === undefined) throw new Error('no entry');
  const tables = Object.entries(KEY_COLUMNS).map(([column, type]) => ({
    ...{ database: 'prod', schema: null, table: null, column, type, mapping: HASH },
  }));
  const databases = [...shardNames.map((databaseName, shard) => ({ ...entry, databaseName, shard })), whole];
  proxy = await startProxy({ config: { ...base, databases, sharding: { ...base.sharding, tables } } });
  comparison = await Comparison.open(
    { cluster: all, database: wholeName },
    shardNames.map((database) => ({ cluster: all, database })),
  );
});

afterAll(async () => {
  await comparison.close();
  await proxy.close(0);
});

test(
  `${OF_EACH.toString()} generated writes of each class have the answer and the effect of one database`,
  { timeout: 3_600_000 },
  async () => {
    const [here, whole] = await Promise.all([connected('prod'), connected('whole')]);
    const told = nothingTold();
    const stream = new WriteStream(here, whole, told, SEED);
    let since = 0;
    const sameContents = async (plain: boolean): Promise<boolean> => {
      since += 1;
      // What failed or was refused may have left something anywhere.
      if (plain && since < COMPARED_EVERY) return true;
      since = 0;
      const differences = await comparison.differences('w');
      told.different.push(...differences);
      return differences.length === 0;
    };
    for (let round = 0; round < OF_EACH && told.different.length === 0; round += 1) await stream.round(sameContents);
    expect(told.different).toEqual([]);
    if (process.env.WRITES !== undefined || THOROUGH) console.log(summaryOf(told));
    expect(refusedShare(told)).toBeLessThanOrEqual(REFUSED_SHARE_MAX);
    for (const name of Object.keys(CLASSES)) {
      const { done = 0, failed = 0 } = told.counts.get(name) ?? {};
      expect(FAILING.has(name) ? failed : done, name).toBeGreaterThanOrEqual(ANSWERED_MIN);
      if (FAILING.has(name)) expect(done, name).toBe(0);
    }
  },
);

async function connected(database: string): Promise<Exchange> {
  const client = await RawClient.loggedIn(proxy, database);
  const exchange = new Exchange(client);
  const { error } = await exchange.run('SET search_path = w');
  expect(error).toBeNull();
  return exchange;
}
