/** One task: plant in a ledger on two shards each thing that must never be, and see that the comparison after a fault finds it. */
import { beforeAll, expect, test } from 'vitest';
import { startLedger, type Ledger } from '../../src/dev/ledger/ledger.js';
import { prepareLedger, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import type { Place } from '../../src/dev/embedded-postgres.js';
import { useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { openTimes } from './checks.js';
import { contentsOf } from './contents.js';
import { DIRECT_TABLE, EXTRA_TABLES } from './direct-writers.js';
import { KEYS, NOTICES, placeOf, POSTINGS, SPREAD_SCHEMA, spreadWrites } from './spread.js';
import { spreadContents } from './spread-contents.js';

const SHARDS = 2;
const DATABASES = ['app_0', 'app_1'];

const clusters = useClusters({ server: { major: 18 } });
const shards = (): readonly Place[] => DATABASES.map((database) => ({ cluster: clusters.server, database }));
let ledger: Ledger;
let history: LoadedHistory;

/** The ledger is written on one database, as before a move; then each shard has a copy of it, and keeps what is its own. */
beforeAll(async () => {
  const { server } = clusters;
  await server.createDatabase('app');
  await server.query('app', DIRECT_TABLE);
  history = await prepareLedger(server.endpoint('app'), { rows: 200, extraTables: EXTRA_TABLES });
  await server.query('app', SPREAD_SCHEMA);
  ledger = await startLedger({ endpoint: server.endpoint('app'), writers: 4, writeOfTurn: spreadWrites(SHARDS) });
  const tables = (): number => new Set(ledger.acknowledged.map(({ table }) => table)).size;
  await until('every table is written', () => tables() >= 4 && ledger.acknowledged.length > 200);
  await ledger.stop();
  for (const [shard, database] of DATABASES.entries()) {
    await server.query('postgres', `CREATE DATABASE ${database} TEMPLATE app`);
    const others = KEYS.map(([table, column, type]) => {
      const own = `satisfies_hash_partition('pg_temp.key_${type}'::regclass, ${SHARDS.toString()}, ${shard.toString()}, ${column}::${type})`;
      return `DELETE FROM public.${table} WHERE NOT ${own};`;
    });
    const parents = ['bigint', 'uuid'].map(
      (type) => `CREATE TEMPORARY TABLE key_${type} (key ${type}) PARTITION BY HASH (key);`,
    );
    await server.query(database, [...parents, ...others].join('\n'));
  }
});

const violations = (): Promise<readonly string[]> => spreadContents(shards(), ledger, history);
const on = (shard: number, sql: string): Promise<unknown> => clusters.server.query(DATABASES[shard] ?? '', sql);

/** A write of this table that was acknowledged, and the shard of its rows where they have one. */
function acknowledged(table: string): { readonly token: string; readonly shard: number } {
  const token = ledger.acknowledged.find((write) => write.table === table)?.token ?? '';
  return { token, shard: placeOf('uuid', token, SHARDS) };
}

test('nothing is found where nothing was planted, and both shards together are what one database was', async () => {
  expect(await violations()).toEqual([]);
  expect(await contentsOf(shards(), [NOTICES])).toEqual(
    await contentsOf([{ cluster: clusters.server, database: 'app' }], [NOTICES]),
  );
});

test('a write that is gone, and one that is there twice', async () => {
  const { token, shard } = acknowledged('documents');
  await on(shard, `INSERT INTO public.documents SELECT * FROM public.documents WHERE token = '${token}'`);
  expect(await violations()).toEqual([`1 doubled: ${token}`]);
  await on(shard, `DELETE FROM public.documents WHERE token = '${token}'`);
  expect(await violations()).toEqual([`1 lost: ${token}`]);
  await on(shard, `INSERT INTO public.documents VALUES ('${token}', 'again')`);
});

test('a transfer between two shards of which one has its part', async () => {
  const { token } = acknowledged(POSTINGS);
  for (const shard of [0, 1]) {
    await on(shard, `DELETE FROM public.${POSTINGS} WHERE token = '${token}'`);
    if (shard === 0) expect(await violations()).toEqual([`1 in part: ${token}`, '1 balances are wrong']);
  }
  expect(await violations()).toEqual([`1 lost: ${token}`, '2 balances are wrong']);
});

test('a notice that one shard lacks, and one that nobody wrote', async () => {
  const { token } = acknowledged(NOTICES);
  const before = await violations();
  await on(1, `DELETE FROM public.${NOTICES} WHERE token = '${token}'`);
  expect(await violations()).toContain(`1 in part: ${token}`);
  await on(1, `INSERT INTO public.${NOTICES} VALUES ('${token}')`);
  expect(await violations()).toEqual(before);
  const nobody = '00000000-0000-4000-8000-000000000001';
  for (const shard of [0, 1]) await on(shard, `INSERT INTO public.${NOTICES} VALUES ('${nobody}')`);
  expect(await violations()).toContain(`1 unexpected: ${nobody}`);
});

test('a shard may be written from the commit that gives it the traffic until its own seal, and on when that was aborted without it', () => {
  const line = { epoch: '1', state: 'committed', from_source: true, sealed: '100', decided: '110' };
  const back = { ...line, epoch: '2', state: 'aborted', from_source: false, sealed: '200', decided: '220' };
  const again = { ...back, epoch: '3', state: 'committed', sealed: '300', decided: '310' };
  const open = (seals: readonly (readonly [number, number])[]): unknown =>
    openTimes('destination 1', 'destination', [line, back, again], new Map(seals)).map((o) => [o.fromMs, o.toMs]);
  expect(
    open([
      [2, 190],
      [3, 305],
    ]),
  ).toEqual([
    [110, 200],
    [220, 305],
  ]);
  expect(open([[3, 305]])).toEqual([[110, 305]]);
  expect(openTimes('source', 'source', [line, back, again], null)).toEqual([
    { name: 'source', fromMs: 0, toMs: 100 },
    { name: 'source', fromMs: 310, toMs: Infinity },
  ]);
});
