/** One task: a shard of the destination is lost in the middle of the copy and comes back: the move goes on by itself, and no row is there twice. */
import { describe, expect, test } from 'vitest';
import { compareShop } from '../../src/dev/tenants/compare.js';
import { startTenants } from '../../src/dev/tenants/load.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { invariant } from '../../src/errors/invariant.js';
import { withConnection } from '../../src/postgres/connection.js';
import { useSystem, type TaskLine } from '../support/served.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { contentsOf, TENANTS_ROWS, TENANTS_SCHEMA, TENANTS_SHARDING } from './tenants.js';

const ROWS = THOROUGH ? 2_000_000 : 600_000;
const DEADLINE_MS = 120_000;

/** No key at all: a row that was copied twice would be there twice. */
const ARCHIVE = `
  CREATE TABLE public.archive (tenant_id bigint NOT NULL, n bigint NOT NULL, body text);
  ALTER TABLE public.archive REPLICA IDENTITY FULL;
  INSERT INTO public.archive SELECT 1 + n % 40, n, repeat('a', 100) FROM generate_series(1, ${ROWS.toString()}) n;`;

const WAYS = [
  { way: 'by PostgreSQL, each table whole', general: '' },
  { way: 'by the engine, in ranges', general: '\nresharding_parallel_copies = 2\ncutover_copy_range_bytes = 4000000' },
];

describe.each(THOROUGH ? WAYS : WAYS.slice(0, 1))('copied $way', ({ general }) => {
  const system = useSystem({
    source: 18,
    destination: 18,
    schema: TENANTS_SCHEMA + TENANTS_ROWS + ARCHIVE,
    shards: { destination: 2, apart: true },
    general: `default_pool_size = 12${general}`,
    settings: { max_prepared_transactions: '20' },
    sharding: TENANTS_SHARDING('prod_new'),
  });

  test('the move goes on by itself, nothing is lost or doubled', { timeout: 300_000 }, async () => {
    const { source, destination, further } = system();
    const [lost] = further;
    invariant(lost, 'the second shard is on a cluster of its own');
    const load = await startTenants({ endpoint: system().endpoint(), thinkMs: 30 });
    const [started] = await system().admin<{ task_id: string }>('RESHARD prod prod_new shop');
    await copying(lost);
    if (general !== '') {
      await loseSnapshots(source, lost);
      await copying(lost);
    }
    await lost.kill();
    // The other shard is not kept waiting, and the rows of this one are still wanted.
    await until('the other shard has its rows', async () => (await stateOf(destination)) === 'r', DEADLINE_MS);
    const orders = load.orders.size;
    await until('clients notice nothing', () => load.orders.size > orders + 20, DEADLINE_MS);
    await lost.start();
    // A subscription's worker does not wait for its commits to be flushed: that the copy had begun may be lost with the server.
    expect(['i', 'd']).toContain(await stateOf(lost));
    const serving = ({ type, status }: TaskLine): boolean =>
      type === 'replication prod -> prod_new (reverse)' && status === 'running';
    await system().task('the destination serves', serving, DEADLINE_MS);
    const moved = load.orders.size;
    await until('clients go on', () => load.orders.size > moved + 20, DEADLINE_MS);
    await load.stop();
    expect(load).toMatchObject({ refused: [], repeated: [], wentBack: 0 });
    expect(await compareShop(system().endpoint(), load)).toEqual({
      ...{ lost: [], doubled: [], unexpected: [], inPart: [], miscounted: [], notes: [] },
      pricesOk: true,
    });
    await expectArchive([destination, lost]);
    const here = await contentsOf([{ cluster: source, database: 'app' }]);
    const there = [destination, lost].map((cluster) => ({ cluster, database: 'app' }));
    await until('both sides hold the same rows', async () => {
      return JSON.stringify(here) === JSON.stringify(await contentsOf(there));
    });
    const tasks = await system().admin<TaskLine>('SHOW TASKS');
    expect(tasks.find(({ id }) => id === started?.task_id)?.inner_status).toBe('soaking');
  });
});

/** Resolves in the middle of the copy: some rows of the archive have been written, and more are to come. That is soon over. */
async function copying(shard: Cluster): Promise<void> {
  const progress = `SELECT tuples_processed::int AS rows FROM pg_stat_progress_copy
    WHERE relid = to_regclass('public.archive') AND command = 'COPY FROM'`;
  await withConnection(shard.endpoint('app'), async (connection) => {
    const begun = async (): Promise<boolean> => {
      const { rows } = await connection.query<{ rows: number }>(progress);
      return (rows[0]?.rows ?? 0) > 0;
    };
    await until('rows of the archive come to the shard', begun, DEADLINE_MS);
  });
}

/** Whoever copies ranges loses what they are read by. Resolves when another attempt has begun. */
async function loseSnapshots(source: Cluster, shard: Cluster): Promise<void> {
  const attempt = async (): Promise<string | undefined> =>
    (await shard.query<{ run: string }>('app', 'SELECT run FROM cutover.range_copy'))[0]?.run;
  const before = await attempt();
  await source.query(
    'app',
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name ~ '_copy$'`,
  );
  await until('another attempt has begun', async () => ![undefined, before].includes(await attempt()), DEADLINE_MS);
}

/** Of the archive's copy, as PostgreSQL calls it: `d` while rows are copied, `r` when the stream has it. A stream that waits for ranges has no slot. */
async function stateOf(shard: Cluster): Promise<string | undefined> {
  const [archive] = await shard.query<{ state: string }>(
    'app',
    `SELECT CASE WHEN s.subslotname IS NULL THEN 'd' ELSE srsubstate::text END AS state FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
     WHERE srrelid = 'public.archive'::regclass AND s.subname LIKE '%forward%'`,
  );
  return archive?.state;
}

/** Each row once, of both shards together, and both have some. */
async function expectArchive(shards: readonly Cluster[]): Promise<void> {
  const counts = await Promise.all(
    shards.map(async (shard) => {
      const [row] = await shard.query<{ rows: number; different: number }>(
        'app',
        'SELECT count(*)::int AS rows, count(DISTINCT n)::int AS different FROM public.archive',
      );
      invariant(row, 'a count is one row');
      return row;
    }),
  );
  for (const { rows, different } of counts) expect(rows).toBe(different);
  expect(counts.every(({ rows }) => rows > 0)).toBe(true);
  expect(counts.reduce((sum, { rows }) => sum + rows, 0)).toBe(ROWS);
}
