/** One task: a live database is moved to shards, from shards, and back while clients write, and nothing is lost. */
import { describe, expect, test } from 'vitest';
import { coordinator } from '../../src/cli/coordinator.js';
import { compareShop } from '../../src/dev/tenants/compare.js';
import { startTenants, type TenantLoad } from '../../src/dev/tenants/load.js';
import { invariant } from '../../src/errors/invariant.js';
import { shardNames, useSystem, type System } from '../support/served.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { expectIdentities, OutsideKey, OUTSIDE_KEY } from './outside-key.js';
import { contentsOf, keepOwnRows, TENANTS_ROWS, TENANTS_SCHEMA, TENANTS_SHARDING } from './tenants.js';

const SWITCH_DEADLINE_MS = 90_000;
const WRITES_BETWEEN = 60;

/** Shards of the source and of the destination. */
const MOVES: readonly (readonly [number, number])[] = THOROUGH
  ? [
      [1, 2],
      [1, 4],
      [2, 2],
      [2, 3],
      [3, 2],
    ]
  : [
      [1, 2],
      [2, 3],
    ];

describe.each(MOVES)('from %i to %i shards', (from, to) => {
  const system = useSystem({
    source: 18,
    destination: 18,
    schema: TENANTS_SCHEMA + TENANTS_ROWS + OUTSIDE_KEY,
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
    sharding: (from > 1 ? TENANTS_SHARDING('prod') : '') + (to > 1 ? TENANTS_SHARDING('prod_new') : ''),
  });

  test('there, back, and there again: nothing is lost, doubled or refused', { timeout: 240_000 }, async () => {
    if (from > 1) await begunOnShards(system(), from);
    const outside = new OutsideKey(system().endpoint());
    const load = await startTenants({ endpoint: system().endpoint() });
    await more(load);
    await system().admin('RESHARD prod prod_new shop');
    await streaming(system(), ' (reverse)');
    await more(load);
    await outside.more();
    await move(system());
    await streaming(system(), '');
    await more(load);
    await outside.more();
    await move(system());
    await streaming(system(), ' (reverse)');
    await more(load);
    await outside.more();
    await load.stop();
    const sides = [
      [system().source, shardNames(from)],
      [system().destination, shardNames(to)],
    ] as const;
    await outside.expectNothingLost(sides);
    await expectNothingLost(system(), load, from, to);
    await expectSpread(system(), from, to);
    for (const [cluster, databases] of sides) await expectIdentities(cluster, databases, true);
    await finalized(system());
    for (const [cluster, databases] of sides) await expectIdentities(cluster, databases, false);
  });
});

/** The rows of the source are spread, and what answers over its shards is there, as an operator would have made it. */
async function begunOnShards(served: System, shards: number): Promise<void> {
  for (const [shard, database] of shardNames(shards).entries())
    await served.source.query(database, keepOwnRows(shard, shards, ['late', 'maybe']));
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

interface TaskLine {
  readonly [column: string]: string;
  readonly id: string;
  readonly type: string;
  readonly status: string;
}

async function streaming(served: System, heading: string): Promise<void> {
  await until(
    `streams run${heading}`,
    async () => {
      const tasks = await served.admin<TaskLine>('SHOW TASKS');
      const failed = tasks.find(({ status }) => status === 'failed');
      invariant(failed === undefined, JSON.stringify(failed));
      return tasks.some(
        ({ type, status }) => type === `replication prod -> prod_new${heading}` && status === 'running',
      );
    },
    SWITCH_DEADLINE_MS,
  );
}

/** `STOP_TASK` of the move while the destination serves. */
async function finalized(served: System): Promise<void> {
  const { id } = await served.task('the move runs', ({ type }) => type.startsWith('reshard '));
  await served.admin(`STOP_TASK ${id ?? ''} SAVE`);
  await served.task('the move is over', (t) => t.id === id && t.status === 'finished');
}

/** `CUTOVER` of the streams that run: wherever the traffic is not. */
async function move(served: System): Promise<void> {
  const tasks = await served.admin<TaskLine>('SHOW TASKS');
  const streams = tasks.find(({ type, status }) => type.startsWith('replication ') && status === 'running');
  await served.admin(`CUTOVER ${streams?.id ?? ''}`);
}

/** The streams carry everything to the side that does not serve; and what clients were told is true. */
async function expectNothingLost(served: System, load: TenantLoad, from: number, to: number): Promise<void> {
  const { source, destination } = served;
  const both = async (): Promise<readonly [unknown, unknown]> =>
    Promise.all([contentsOf(source, shardNames(from)), contentsOf(destination, shardNames(to))]);
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

/** Each row is where its key leads to by PostgreSQL's own hash, and on no other shard. */
async function expectSpread({ source, destination }: System, from: number, to: number): Promise<void> {
  for (const [cluster, shards] of [
    [source, from],
    [destination, to],
  ] as const)
    for (const [shard, database] of shardNames(shards).entries())
      if (shards > 1)
        expect(
          await cluster.query(
            database,
            `SELECT FROM public.orders WHERE NOT satisfies_hash_partition('cutover.hash_bigint'::regclass, $1, $2, tenant_id)`
              .replace('$1', shards.toString())
              .replace('$2', shard.toString()),
          ),
        ).toEqual([]);
}
