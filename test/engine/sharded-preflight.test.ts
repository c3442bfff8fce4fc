/** One task: what would break a move to shards is named before anything is made, with what to do. */
import { beforeAll, describe, expect, test } from 'vitest';
import type { EngineContext } from '../../activities/context.js';
import { checkMove } from '../../activities/preparation.js';
import { shardingChecks } from '../../activities/sharded-preflight.js';
import { parseConfig } from '../../src/config/load.js';
import type { Check } from '../../src/cutover/contract.js';
import { Directory } from '../../src/fleet/directory.js';
import { Connections } from '../../src/postgres/connections.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({
  source: { major: 18, settings: { max_prepared_transactions: '0' } },
  destination: { major: 18, settings: { max_prepared_transactions: '5' } },
  old: { major: 15 },
});

const GOOD = `
  CREATE TABLE public.tenants (tenant_id bigint PRIMARY KEY, name text);
  CREATE TABLE public.orders (tenant_id bigint REFERENCES public.tenants, id bigint, body text, PRIMARY KEY (tenant_id, id));
  CREATE TABLE public.country (code text PRIMARY KEY);`;
const BY_TENANT = `[[sharded_tables]]\ndatabase = "prod_new"\ncolumn = "tenant_id"\ndata_type = "bigint"\n`;

interface Case {
  readonly schema?: string;
  readonly sharding?: string;
  readonly general?: string;
  readonly source?: 'source' | 'old';
  readonly shards?: 'destination' | 'source';
  readonly prepare?: 'auto' | 'off';
  /** with every other check of a move */
  readonly whole?: boolean;
}

async function checksOf({
  schema = '',
  sharding = BY_TENANT,
  general = '',
  source = 'source',
  shards = 'destination',
  prepare,
  whole = false,
}: Case): Promise<readonly Check[]> {
  const from = clusters[source];
  const to = clusters[shards];
  const [first, second] = [await freshDatabase(to), await freshDatabase(to)];
  const database = await freshDatabase(from);
  await from.query(database, GOOD + schema);
  const row = (
    name: string,
    { host, port }: { host: string; port: number },
    databaseName: string,
    shard: number,
  ): string =>
    `[[databases]]\nname = "${name}"\nhost = "${host}"\nport = ${port.toString()}\nshard = ${shard.toString()}\ndatabase_name = "${databaseName}"\n`;
  const users = (['prod', 'prod_new'] as const)
    .map(
      (name) =>
        `[[users]]\nname = "postgres"\ndatabase = "${name}"\npassword = "x"\nserver_password = "${name === 'prod' ? from.password : to.password}"\nschema_admin = true\n`,
    )
    .join('');
  const text = `[general]\n${general}\n${row('prod', from, database, 0)}${row('prod_new', to, first, 0)}${row('prod_new', to, second, 1)}${sharding}`;
  const config = parseConfig({ file: 'pgdog.toml', text }, { file: 'users.toml', text: users }, { environment: {} });
  const connections = new Connections();
  const context: EngineContext = {
    config: () => config,
    directory: new Directory(() => config),
    connections,
    fleet: { look: () => Promise.resolve([]), addresses: () => Promise.resolve([]), nodes: () => [] },
    isRunning: () => Promise.resolve(false),
    onStep: () => undefined,
  };
  try {
    const request = { source: 'prod', destination: 'prod_new', ...(prepare && { prepare }) };
    return await (whole ? checkMove(context, request, 'copy') : shardingChecks(context, request));
  } finally {
    await connections.close();
  }
}

let healthy: readonly Check[];
beforeAll(async () => {
  healthy = await checksOf({});
});

test('finds nothing wrong with tables that all find their shard', () => {
  expect(healthy.map(({ id }) => id)).toEqual([
    'sharding-settings',
    'sharding-keys',
    'sharding-identity',
    'sharding-references',
    'sharding-coordinator',
  ]);
  expect(healthy.filter(({ verdict }) => verdict !== 'ok')).toEqual([]);
  expect(healthy.find(({ id }) => id === 'sharding-keys')?.detail).toContain('2 of 3 tables are spread by a key');
});

describe('says failed, and what to do', () => {
  const cases: readonly (readonly [string, string, Case, RegExp, RegExp])[] = [
    ['hasher sha1', 'sharding-keys', { sharding: `${BY_TENANT}hasher = "sha1"\n` }, /sha1.*public\.orders/, /postgres/],
    [
      'a list without a default',
      'sharding-keys',
      {
        sharding: `${BY_TENANT}[[sharded_mappings]]\ndatabase = "prod_new"\ncolumn = "tenant_id"\nkind = "list"\nvalues = [1, 2]\nshard = 0\n`,
      },
      /leaves values without a shard.*public\.tenants/,
      /default/,
    ],
    [
      'a row that no table follows',
      'sharding-keys',
      {
        sharding: `${BY_TENANT}[[sharded_tables]]\ndatabase = "prod_new"\nname = "order"\ncolumn = "tenant_id"\ndata_type = "bigint"\n`,
      },
      /No table follows.*order\.tenant_id/,
      /remove/,
    ],
    [
      'a key of another type',
      'sharding-keys',
      { schema: 'CREATE TABLE public.late (tenant_id numeric PRIMARY KEY)' },
      /public\.late\.tenant_id is numeric, not bigint/,
      /data_type/,
    ],
    [
      'a collation in which equal texts differ',
      'sharding-keys',
      {
        schema: `CREATE COLLATION public.any (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
          CREATE TABLE public.named (name text COLLATE public.any PRIMARY KEY)`,
        sharding: `${BY_TENANT}[[sharded_tables]]\ndatabase = "prod_new"\nname = "named"\ncolumn = "name"\ndata_type = "varchar"\n`,
      },
      /public\.named\.name has a collation/,
      /data_type/,
    ],
    [
      'a key outside the replica identity',
      'sharding-identity',
      { schema: 'CREATE TABLE public.late (id bigint PRIMARY KEY, tenant_id bigint)' },
      /not part of the replica identity.*public\.late\.tenant_id/,
      /ALTER TABLE public\.late REPLICA IDENTITY FULL;.*cutover_prepare = "auto"/,
    ],
    [
      'a key outside the replica identity, where this move shall prepare nothing',
      'sharding-identity',
      {
        schema: 'CREATE TABLE public.late (id bigint PRIMARY KEY, tenant_id bigint)',
        ...{ general: 'cutover_prepare = "auto"', prepare: 'off' },
      },
      /not part of the replica identity.*public\.late\.tenant_id/,
      /REPLICA IDENTITY FULL/,
    ],
    [
      'a table that cannot be prepared',
      'sharding-identity',
      { schema: 'CREATE TABLE public.late (tenant_id bigint, doc json)', prepare: 'auto' },
      /public\.late \(nothing tells its rows apart; with REPLICA IDENTITY FULL doc cannot be compared\)/,
      /primary key/,
    ],
    [
      'a foreign key to another shard',
      'sharding-references',
      {
        schema:
          'ALTER TABLE public.orders ADD parent bigint UNIQUE; CREATE TABLE public.late (tenant_id bigint, order_id bigint REFERENCES public.orders (parent), PRIMARY KEY (tenant_id, order_id))',
      },
      /may refer to a row of another shard: late_order_id_fkey/,
      /part of the foreign key/,
    ],
    [
      'a fence that is off',
      'sharding-settings',
      { general: 'cutover_fence = "off"' },
      /cutover_fence is off/,
      /cutover_fence = "on"/,
    ],
    ['a source older than 16', 'sharding-settings', { source: 'old' }, /older than PostgreSQL 16/, /16 or newer first/],
  ];
  test.each(cases)('%s', async (_, id, situation, detail, remedy) => {
    const found = (await checksOf(situation)).find((check) => check.id === id);
    expect(found?.verdict).toBe('failed');
    expect(found?.detail).toMatch(detail);
    expect(found?.remedy).toMatch(remedy);
  });
});

test.each([
  [{ general: 'cutover_prepare = "auto"' }, 'NOT NULL', 'ok', /a unique index.*public\.late \(id, tenant_id\)/],
  [{ prepare: 'auto' as const }, 'NULL', 'warning', /REPLICA IDENTITY FULL.*public\.late \(tenant_id may be NULL\)/],
])('says what the move will do by itself: %j', async (how, nulls, verdict, detail) => {
  const schema = `CREATE TABLE public.late (id bigint PRIMARY KEY, tenant_id bigint ${nulls})`;
  const found = (await checksOf({ ...how, schema })).find(({ id }) => id === 'sharding-identity');
  expect(found).toMatchObject({ verdict, detail: expect.stringMatching(detail) as string });
});

test('adds up what the shards of one server need, and misses no replica identity that the move will make', async () => {
  const schema = 'CREATE TABLE public.bare (tenant_id bigint, note text)';
  const checks = await checksOf({ schema, prepare: 'auto', whole: true });
  const found = (id: string): Check | undefined => checks.find((check) => check.id === id);
  // Two streams from the source with a copy each, and two back.
  const server = '127.0.0.1:\\d+, with 2 shards of the move, has \\d+ of \\d+';
  expect(found('replication-slots')?.detail).toMatch(
    /source at 127\.0\.0\.1:\d+ has \d+ of \d+ \D+ free; 4 are wanted/,
  );
  expect(found('replication-slots')?.detail).toMatch(new RegExp(`${server} replication slots free; 2 are wanted`));
  expect(found('replication-workers')?.detail).toMatch(new RegExp(`${server} logical replication workers free; 4 are`));
  // Each shard eight of the engine and twice ten of a pool, and ten to the coordinator.
  expect(found('connections')?.detail).toMatch(new RegExp(`${server} connections free; 66 are wanted`));
  expect(found('replica-identity')?.verdict).toBe('ok');
});

test('warns of shards that cannot commit together', async () => {
  const found = (await checksOf({ shards: 'source' })).find(({ id }) => id === 'sharding-coordinator');
  expect(found).toMatchObject({
    verdict: 'warning',
    detail: expect.stringContaining('max_prepared_transactions = 0') as string,
  });
});
