/** One task: a live database is moved to shards, from shards, and back while clients write, and nothing is lost. */
import { describe, expect, test } from 'vitest';
import { coordinator } from '../../src/cli/coordinator.js';
import { compareShop } from '../../src/dev/tenants/compare.js';
import type { Place } from '../../src/dev/embedded-postgres.js';
import { startTenants, type TenantLoad } from '../../src/dev/tenants/load.js';
import { shardNames, useSystem, type System, type TaskLine } from '../support/served.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { expectIdentities, OutsideKey, OUTSIDE_KEY, OUTSIDE_TABLES } from './outside-key.js';
import { streaming, SWITCH_DEADLINE_MS, turned } from './running-streams.js';
import { BY_SCHEMA, byHash, byPlaces, type Spread } from './spread.js';
import { contentsOf, keepOwnRows, rowsOf, schemaOf, spreadTables } from './tenants.js';

const WRITES_BETWEEN = THOROUGH ? 60 : 30;

interface Move {
  readonly from: number;
  readonly to: number;
  readonly spread: Spread;
}

const BY_BIGINT = byHash('bigint');
const SIZES = [
  [1, 2],
  [1, 4],
  [2, 2],
  [2, 3],
  [3, 2],
] as const;
const SPREADS = [
  byHash('varchar'),
  byHash('uuid'),
  byPlaces('bigint', 'mapping'),
  byPlaces('varchar', 'sharded_mappings'),
  byPlaces('uuid', 'mapping'),
  BY_SCHEMA,
];

/** Every size by the hash of a bigint, and every other way to spread rows at two sizes. */
const MOVES: readonly Move[] = THOROUGH
  ? [
      ...SIZES.map(([from, to]) => ({ from, to, spread: BY_BIGINT })),
      ...SPREADS.flatMap((spread) => [
        { from: 1, to: 2, spread },
        { from: 2, to: 3, spread },
      ]),
    ]
  : // From 1 to 2 by a bigint: `sharded-verify`, `sharded-queries` and `keys` of this folder.
    [{ from: 2, to: 3, spread: byPlaces('varchar', 'sharded_mappings') }];

const named = MOVES.map(
  (move) => [`from ${move.from.toString()} to ${move.to.toString()} shards, ${move.spread.name}`, move] as const,
);

describe.each(named)('%s', (_, { from, to, spread }) => {
  // Keys of those tables are numbers.
  const lent = spread === BY_BIGINT;
  const system = useSystem({
    source: 18,
    destination: 18,
    schema: schemaOf(spread) + rowsOf(spread) + (lent ? OUTSIDE_KEY : ''),
    shards: { source: from, destination: to },
    general: 'default_pool_size = 12\ncutover_prepare = "auto"',
    settings: {
      max_connections: '300',
      max_prepared_transactions: '20',
      max_replication_slots: '40',
      max_wal_senders: '40',
      max_logical_replication_workers: '40',
      max_worker_processes: '60',
    },
    sharding: (from > 1 ? spread.rules('prod', from) : '') + spread.rules('prod_new', to),
  });

  test('there, back, and there again: nothing is lost, doubled or refused', { timeout: 240_000 }, async () => {
    if (from > 1) await begunOnShards(system(), from, spread, lent ? OUTSIDE_TABLES : []);
    const outside = lent ? new OutsideKey(system().endpoint()) : null;
    const load = await startTenants({ endpoint: system().endpoint(), key: spread.key, thinkMs: 30 });
    await more(load);
    await system().admin('RESHARD prod prod_new shop');
    await streaming(system(), ' (reverse)');
    if (THOROUGH || from > 1) await compared(system());
    await more(load);
    await outside?.more();
    await turned(system(), '');
    if (THOROUGH) await compared(system());
    await more(load);
    await outside?.more();
    await turned(system(), ' (reverse)');
    if (THOROUGH) await compared(system());
    await more(load);
    await outside?.more();
    await load.stop();
    const sides = placesOf(system(), from, to);
    await expectNothingLost(system(), load, sides, spread);
    for (const side of sides) await expectSpread(side, spread);
    if (outside !== null) await expectGivenBack(system(), outside, from, to);
  });
});

/** The rows of the source are spread, and what answers over its shards is there, as an operator would have made it. */
async function begunOnShards(served: System, shards: number, spread: Spread, more: readonly string[]): Promise<void> {
  for (const [shard, database] of shardNames(shards).entries())
    await served.source.query(database, keepOwnRows(shard, shards, spread, more));
  await coordinator({ files: served.files, database: 'prod', write: () => undefined });
  await served.admin('RELOAD');
}

async function more(load: TenantLoad): Promise<void> {
  const before = { orders: load.orders.size, notes: load.notes.size, raised: load.raised, reports: load.reports };
  await until(
    'every kind of client goes on',
    () =>
      load.refused.length > 0 ||
      (load.orders.size >= before.orders + WRITES_BETWEEN &&
        load.notes.size > before.notes &&
        load.raised > before.raised &&
        load.reports > before.reports),
    60_000,
  );
  expect(load.refused).toEqual([]);
}

/** `VERIFY` while clients write: it fails where the sides differ. */
async function compared(served: System): Promise<void> {
  const [started] = await served.admin<{ task_id: string }>('VERIFY prod prod_new');
  const ended = ({ id, status }: TaskLine): boolean =>
    id === started?.task_id && status !== 'started' && status !== 'running';
  const task = await served.task('the comparison has ended', ended, SWITCH_DEADLINE_MS);
  expect(task.status).toBe('finished');
}

/** `STOP_TASK` of the move while the destination serves. */
async function finalized(served: System): Promise<void> {
  const { id } = await served.task('the move runs', ({ type }) => type.startsWith('reshard '));
  await served.admin(`STOP_TASK ${id ?? ''} SAVE`);
  await served.task('the move is over', (t) => t.id === id && t.status === 'finished');
}

/** What the move lends is there as long as its streams run, and with nobody when it is over. */
async function expectGivenBack(served: System, outside: OutsideKey, from: number, to: number): Promise<void> {
  const sides = [
    [served.source, shardNames(from)],
    [served.destination, shardNames(to)],
  ] as const;
  await outside.expectNothingLost(sides);
  for (const [cluster, databases] of sides) await expectIdentities(cluster, databases, true);
  await finalized(served);
  for (const [cluster, databases] of sides) await expectIdentities(cluster, databases, false);
}

function placesOf({ source, destination }: System, from: number, to: number): readonly (readonly Place[])[] {
  const places = (cluster: Place['cluster'], shards: number): readonly Place[] =>
    shardNames(shards).map((database) => ({ cluster, database }));
  return [places(source, from), places(destination, to)];
}

/** The streams carry everything to the side that does not serve; and what clients were told is true. */
async function expectNothingLost(
  served: System,
  load: TenantLoad,
  sides: readonly (readonly Place[])[],
  spread: Spread,
): Promise<void> {
  const both = (): Promise<unknown[]> => Promise.all(sides.map((side) => contentsOf(side, spread)));
  await until('both sides hold the same rows', async () => {
    const [here, there] = await both();
    return JSON.stringify(here) === JSON.stringify(there);
  }).catch(async () => {
    const [here, there] = await both();
    expect(there).toEqual(here);
  });
  expect(load).toMatchObject({ refused: [], repeated: [], wentBack: 0 });
  expect(await compareShop(served.endpoint(), load)).toEqual({
    lost: [],
    doubled: [],
    unexpected: [],
    inPart: [],
    miscounted: [],
    notes: [],
    pricesOk: true,
  });
}

/** Each row is where the rules say, and on no other shard. */
async function expectSpread(side: readonly Place[], spread: Spread): Promise<void> {
  if (side.length === 1) return;
  for (const [shard, { cluster, database }] of side.entries())
    for (const table of spreadTables(spread)) {
      const own = spread.own({ table, shard, shards: side.length });
      expect(await cluster.query(database, `SELECT t::text FROM ${table} t WHERE NOT ${own}`)).toEqual([]);
    }
}
