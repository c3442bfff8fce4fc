/** One task: a comparison of sides with several shards finds every row that differs, wherever it is, and nothing else, while clients write. */
import { Client, Connection as TemporalConnection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EngineContext } from '../../activities/context.js';
import { assessSituation } from '../../activities/situation.js';
import { verifyTables } from '../../activities/verification.js';
import { coordinator } from '../../src/cli/coordinator.js';
import { verify as verifyByCommand } from '../../src/cli/verify.js';
import { loadConfig } from '../../src/config/load.js';
import type { MoveResult } from '../../src/cutover/contract.js';
import type { RowDifference, VerifyProgress, VerifyResult } from '../../src/cutover/verification.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { startTenants, type TenantLoad } from '../../src/dev/tenants/load.js';
import { invariant } from '../../src/errors/invariant.js';
import { Directory } from '../../src/fleet/directory.js';
import { withConnection } from '../../src/postgres/connection.js';
import { Connections } from '../../src/postgres/connections.js';
import { shardOf } from '../../src/sharding/hash.js';
import { shardNames, useSystem, type System, type SystemOptions } from '../support/served.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { keepOwnRows, TENANTS_ROWS, TENANTS_SCHEMA, TENANTS_SHARDING } from './tenants.js';

const DEADLINE_MS = 60_000;
const LOST = '00000000-0000-0000-0000-000000000001';

/** Beside the shop: a table of every shard that nobody writes, and one whose key sorts differently on each server, by a column named as no other. */
const SCHEMA = `${TENANTS_SCHEMA}
  CREATE TABLE public.countries (code text COLLATE "C" PRIMARY KEY, name text);
  CREATE TABLE public.odd (k0 bigint, name text COLLATE "und-x-icu", body text, PRIMARY KEY (name, k0));`;
const ROWS = `${TENANTS_ROWS}
  INSERT INTO public.countries VALUES ('AT', 'Österreich'), ('CH', 'Schweiz');
  INSERT INTO public.odd SELECT n, 'row ' || n, 'odd' FROM generate_series(1, 40) n;
  INSERT INTO public.notes VALUES (NULL, '${LOST}', 'of nobody');`;
const SHARDING = (database: string): string => `
[[sharded_tables]]
database = "${database}"
name = "odd"
column = "k0"
data_type = "bigint"
${TENANTS_SHARDING(database)}`;

function options(source: number, destination: number): SystemOptions {
  return {
    ...{ source: 18, destination: 18, schema: SCHEMA + ROWS, shards: { source, destination } },
    general: 'default_pool_size = 12\ncutover_verify = "require"\ncutover_verify_window = 600000',
    settings: { max_connections: '300', max_prepared_transactions: '20', max_worker_processes: '80' },
    sharding: (source > 1 ? SHARDING('prod') : '') + (destination > 1 ? SHARDING('prod_new') : ''),
  };
}

/** The shard of a key by the hash that PostgreSQL itself takes for partitions. */
function placeOf(key: number, shards: number): number {
  return shardOf({ type: 'bigint', mapping: { kind: 'hash', hasher: 'postgres' } }, BigInt(key), shards) ?? 0;
}

/** The first key from `start` on whose rows are on this shard. */
function keyOn(shard: number, shards: number, start: number): number {
  for (let key = start; ; key++) if (placeOf(key, shards) === shard) return key;
}

/** A row that is made to differ: where, how, how that is taken back, and how it is told. */
interface Planted {
  readonly what: string;
  readonly database: string;
  readonly change: string;
  readonly back: string;
  readonly found: readonly Partial<RowDifference>[];
}

const history = (tenant: number, day: number): string => `${tenant.toString()}, ${day.toString()}`;

/** Rows of one side that a stream did not write; of a side that several databases come to. */
function plantedAt(names: readonly string[], senders: number): readonly Planted[] {
  const receivers = names.length;
  const last = receivers - 1;
  const own = (key: number): Partial<RowDifference> => ({
    between: { from: placeOf(key, senders), to: placeOf(key, receivers) },
  });
  const on = (shard: number): string => names[shard] ?? '';
  const [changed, missing] = [keyOn(last, receivers, 2), keyOn(0, receivers, 2)];
  const [extra, far, near] = [keyOn(last, receivers, 30), keyOn(last, receivers, 10), keyOn(0, receivers, 10)];
  return [
    {
      what: 'one byte of a row on the last shard',
      database: on(last),
      change: `UPDATE public.history_1 SET body = body || ' ' WHERE (tenant_id, day) = (${history(changed, changed - 1)})`,
      back: `UPDATE public.history_1 SET body = rtrim(body) WHERE (tenant_id, day) = (${history(changed, changed - 1)})`,
      found: [{ table: 'public.history_1', key: key(changed, changed - 1), problem: 'changed', ...own(changed) }],
    },
    {
      what: 'a row missing on the first shard',
      database: on(0),
      change: `DELETE FROM public.history_2 WHERE (tenant_id, day) = (${history(missing, missing + 119)})`,
      back: `INSERT INTO public.history_2 SELECT ${history(missing, missing + 119)}, repeat('h', ${((missing + 119) % 50).toString()})`,
      found: [{ table: 'public.history_2', key: key(missing, missing + 119), problem: 'missing', ...own(missing) }],
    },
    {
      what: 'a row that is nowhere else, on the shard of its key',
      database: on(last),
      change: `INSERT INTO public.oddities (tenant_id) VALUES (${extra.toString()})`,
      back: `DELETE FROM public.oddities WHERE tenant_id = ${extra.toString()}`,
      found: [{ table: 'public.oddities', key: key(extra), problem: 'extra', ...own(extra) }],
    },
    {
      what: 'a row of a table without a key',
      database: on(0),
      change: `DELETE FROM public.notes WHERE token = '${LOST}'`,
      back: `INSERT INTO public.notes SELECT NULL, '${LOST}', 'of nobody'`,
      found: [{ table: 'public.notes', problem: 'missing', between: { from: 0, to: 0 } }],
    },
    {
      what: 'a table of every shard that differs on one',
      database: on(last),
      change: `UPDATE public.countries SET name = 'Austria' WHERE code = 'AT'`,
      back: `UPDATE public.countries SET name = 'Österreich' WHERE code = 'AT'`,
      found: [{ table: 'public.countries', key: key('AT'), problem: 'changed', between: { from: 0, to: last } }],
    },
    {
      what: 'a row missing where the servers may sort differently',
      database: on(0),
      change: `DELETE FROM public.odd WHERE k0 = ${near.toString()}`,
      back: `INSERT INTO public.odd SELECT ${near.toString()}, 'row ${near.toString()}', 'odd'`,
      found: [{ table: 'public.odd', key: key(`row ${near.toString()}`, near), problem: 'missing', ...own(near) }],
    },
    {
      what: 'a row too many there',
      database: on(last),
      change: `INSERT INTO public.odd (k0, name) VALUES (${far.toString()}, 'stray')`,
      back: `DELETE FROM public.odd WHERE name = 'stray'`,
      found: [{ table: 'public.odd', key: key('stray', far), problem: 'extra', ...own(far) }],
    },
  ];
}

/** Rows of the first shard's keys on the last one. No stream brings them there: the first one answers for them. */
function straysAt(names: readonly string[]): readonly Planted[] {
  const last = names.length - 1;
  const [known, unknown] = [keyOn(0, names.length, 5), keyOn(0, names.length, 25)];
  return (
    [
      ['a row of another shard, beside the one that is there', 'tenants', known],
      ['a row of another shard, that is nowhere else', 'oddities', unknown],
    ] as const
  ).map(([what, table, tenant]) => ({
    what,
    database: names[last] ?? '',
    change: `INSERT INTO public.${table} (tenant_id) VALUES (${tenant.toString()})`,
    back: `DELETE FROM public.${table} WHERE tenant_id = ${tenant.toString()}`,
    found: [{ table: `public.${table}`, key: key(tenant), problem: 'extra', between: { from: 0, to: last } }],
  }));
}

/** On the last shard of the side that serves, from where no stream carries a table of every shard. */
function copyOn(last: number): Planted {
  return {
    what: 'a table of every shard with another row on one that serves',
    database: shardNames(last + 1)[last] ?? '',
    change: `INSERT INTO public.countries VALUES ('XX', 'nowhere')`,
    back: `DELETE FROM public.countries WHERE code = 'XX'`,
    found: [
      {
        ...{ table: 'public.countries', key: key('XX'), problem: 'extra' },
        between: { from: 0, to: last, within: true },
      },
    ],
  };
}

/** On shard 1 of the two that serve, from where its stream carries it to where the rows of shard 0 belong. */
function misplaced(receivers: number): Planted {
  const tenant = keyOn(0, 2, 35);
  const [row, to] = [{ table: 'public.oddities', key: key(tenant) }, placeOf(tenant, receivers)];
  return {
    what: 'a row on the wrong shard of the side that serves',
    database: 'app_1',
    change: `INSERT INTO public.oddities (tenant_id) VALUES (${tenant.toString()})`,
    back: `DELETE FROM public.oddities WHERE tenant_id = ${tenant.toString()}`,
    found: [
      { ...row, problem: 'extra', between: { from: 0, to } },
      { ...row, problem: 'missing', between: { from: 1, to } },
    ],
  };
}

const key = (...values: readonly (string | number)[]): string => JSON.stringify(values.map(String));

/** What only a stray writer would do: on the side that does not serve, past its fence, unseen by the way back. */
async function plant(cluster: Cluster, database: string, statement: string): Promise<void> {
  const [, table = ''] = /(public\.\w+)/.exec(statement) ?? [];
  await withConnection(cluster.endpoint(database), async (connection) => {
    const origin = await connection.query(`SELECT FROM pg_replication_origin WHERE roname = 'planted'`);
    if (origin.rows.length === 0) await connection.query(`SELECT pg_replication_origin_create('planted')`);
    await connection.query(`SELECT pg_replication_origin_session_setup('planted')`);
    await connection.query(`ALTER TABLE ${table} DISABLE TRIGGER cutover_fence_write`);
    await connection.query(statement);
    await connection.query(`ALTER TABLE ${table} ENABLE ALWAYS TRIGGER cutover_fence_write`);
  });
}

/** The engine beside the program: what its worker does, without a task for each comparison. */
class Comparing {
  readonly #system: System;
  readonly #connections = new Connections();
  readonly #context: EngineContext;
  #runs = 0;

  constructor(system: System) {
    this.#system = system;
    const config = loadConfig(system.files);
    this.#context = {
      config: () => config,
      directory: new Directory(() => config),
      connections: this.#connections,
      fleet: { look: () => Promise.resolve([]), addresses: () => Promise.resolve([]), nodes: () => [] },
      isRunning: () => Promise.resolve(true),
      onStep: () => undefined,
    };
  }

  async verify(
    report: (progress: VerifyProgress) => void = () => undefined,
    earlier: VerifyProgress | null = null,
  ): Promise<VerifyResult> {
    const { migration } = await assessSituation(this.#context, { source: 'prod', destination: 'prod_new' });
    invariant(migration, 'streams run');
    const run = { run: `test ${(++this.#runs).toString()}`, earlier, stopped: new AbortController().signal };
    return verifyTables(this.#context, migration, run, report);
  }

  /** What a comparison finds when all of these differ. */
  async found(idle: Cluster, planted: readonly Planted[], serving: Cluster, there: readonly Planted[]): Promise<Found> {
    for (const { database, change } of planted) await plant(idle, database, change);
    for (const { database, change } of there) await serving.query(database, change);
    const { samples, differences } = await this.verify();
    for (const { database, back } of planted) await plant(idle, database, back);
    for (const { database, back } of there) await serving.query(database, back);
    return { samples, differences };
  }

  byCommand(): Promise<{ exitCode: number; output: string }> {
    let output = '';
    const write = (text: string): void => void (output += text);
    const { files, temporal } = this.#system;
    return verifyByCommand({
      ...{ files, source: 'prod', destination: 'prod_new', temporalAddress: temporal.address, write },
    }).then((exitCode) => ({ exitCode, output }));
  }

  close(): Promise<void> {
    return this.#connections.close();
  }
}

type Found = Pick<VerifyResult, 'samples' | 'differences'>;

function expectFound({ samples, differences }: Found, planted: readonly Planted[]): void {
  const expected = planted.flatMap(({ what, found }) => found.map((one) => ({ what, one })));
  for (const { what, one } of expected)
    expect(samples, what).toContainEqual(expect.objectContaining(one) as RowDifference);
  expect(samples).toHaveLength(expected.length);
  expect(differences).toBe(expected.length);
}

async function copied(system: System): Promise<void> {
  await system.admin('COPY_DATA prod prod_new shop');
  await system.task(
    'the copy streams',
    (t) => t.type === 'copy_data prod -> prod_new' && t.inner_status === 'replicating',
    DEADLINE_MS,
  );
}

async function writes(load: TenantLoad): Promise<void> {
  const before = { orders: load.orders.size, notes: load.notes.size, raised: load.raised };
  await until(
    'every kind of client goes on',
    () => load.orders.size > before.orders + 20 && load.notes.size > before.notes && load.raised > before.raised,
    DEADLINE_MS,
  );
}

function useComparing(system: () => System): { comparing: () => Comparing; load: () => TenantLoad } {
  let [comparing, load]: [Comparing | null, TenantLoad | null] = [null, null];
  beforeAll(async () => {
    comparing = new Comparing(system());
    load = await startTenants({ endpoint: system().endpoint(), writers: 2 });
    await copied(system());
    await writes(load);
  });
  afterAll(async () => {
    await load?.stop();
    await comparing?.close();
  });
  return {
    comparing: () => {
      invariant(comparing, 'beforeAll has run');
      return comparing;
    },
    load: () => {
      invariant(load, 'beforeAll has run');
      return load;
    },
  };
}

describe('from 1 to 2 shards', () => {
  const system = useSystem(options(1, 2));
  const { comparing, load } = useComparing(system);

  test('each row that differs is told by its key and its shards', async () => {
    const planted = [...plantedAt(shardNames(2), 1), ...straysAt(shardNames(2))];
    expectFound(await comparing().found(system().destination, planted, system().source, []), planted);
  });

  test('a cutover that requires a comparison passes after a clean one', { timeout: 120_000 }, async () => {
    const connection = await TemporalConnection.connect({ address: system().temporal.address });
    const { workflow } = new Client({ connection });
    const cutover = (workflowId: string): Promise<MoveResult> =>
      workflow.execute('cutover', {
        ...{ workflowId, taskQueue: 'cutover', args: [{ source: 'prod', destination: 'prod_new' }] },
      });
    await expect(cutover('not-compared')).rejects.toMatchObject({
      cause: {
        message: expect.stringMatching(/the last comparison found 9 differences.*Run VERIFY prod prod_new/s) as string,
      },
    });
    const { exitCode, output } = await comparing().byCommand();
    expect(output).toMatch(/the sides are equal: 10 tables, \d+ rows, 0 differences\n$/);
    expect(exitCode).toBe(0);
    expect(await cutover('compared')).toMatchObject({ outcome: 'moved' });
    await connection.close();
    await writes(load());
  });

  test('and back: from shards to the one database that served', async () => {
    const planted = plantedAt(['app'], 2);
    const there = [copyOn(1)];
    const found = await comparing().found(system().source, planted, system().destination, there);
    expectFound(found, [...planted, ...there]);
    expect(await comparing().verify()).toMatchObject({ heading: 'reverse', differences: 0, undecided: 0 });
    expect(load().refused).toEqual([]);
  });
});

// At every length `sharded.test.ts` compares 2 and 3 shards under load.
describe.each(THOROUGH ? [[2, 3]] : [])('from %i to %i shards', () => {
  const system = useSystem(options(2, 3));
  beforeAll(async () => {
    for (const [shard, database] of shardNames(2).entries())
      await system().source.query(
        database,
        `${keepOwnRows(shard, 2)} DELETE FROM public.odd
         WHERE NOT satisfies_hash_partition('pg_temp.hash_bigint'::regclass, 2, ${shard.toString()}, k0)`,
      );
    await coordinator({ files: system().files, database: 'prod', write: () => undefined });
    await system().admin('RELOAD');
  });
  const { comparing, load } = useComparing(system);

  test('each row that differs is told by its key and its shards', async () => {
    const planted = [...plantedAt(shardNames(3), 2), ...straysAt(shardNames(3))];
    const there = [copyOn(1), misplaced(3)];
    const found = await comparing().found(system().destination, planted, system().source, there);
    expectFound(found, [...planted, ...there]);
  });

  test('nothing differs while clients write, also when a comparison is interrupted and goes on where it was', async () => {
    await writes(load());
    const told: VerifyProgress[] = [];
    const dying = comparing().verify((progress) => {
      told.push(progress);
      const { position } = progress;
      if (position?.table === 'public.history_2' && position.between?.to === 2) throw new Error('the worker dies');
    });
    await expect(dying).rejects.toThrow('the worker dies');
    const last = told.at(-1) ?? null;
    expect(last?.sentence).toMatch(/^2 of 10 tables, \d+ rows, 0 differences, now public\.history_2, shard 0 to 2$/);
    const again: VerifyProgress[] = [];
    const result = await comparing().verify((progress) => again.push(progress), last);
    expect(again[0]).toEqual(last);
    expect(again.some(({ position }) => position?.table === 'public.history_1')).toBe(false);
    const { position } = again[1] ?? {};
    expect([position?.table, position?.between]).toEqual(['public.history_2', { from: 1, to: 0 }]);
    expect(result).toMatchObject({ tables: 10, differences: 0, undecided: 0, startedAt: last?.startedAt });
    expect(load().refused).toEqual([]);
  });
});
