/** One task: large tables come in ranges, once, under writes, whoever is lost in the middle; and a move that is removed in the middle leaves nothing. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { EngineContext } from '../../activities/context.js';
import { copyTables } from '../../activities/copy.js';
import { removeMigration } from '../../activities/ending.js';
import { claimMigration } from '../../activities/situation.js';
import { streamsOf } from '../../activities/stream-ends.js';
import { createForward } from '../../activities/streams.js';
import { parseConfig } from '../../src/config/load.js';
import type { Migration } from '../../src/cutover/contract.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { Directory } from '../../src/fleet/directory.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { Connections } from '../../src/postgres/connections.js';
import { armFence } from '../../src/postgres/fence.js';
import { madeHere } from '../../src/postgres/leftovers.js';
import { beginRun, claimRange, clearRun, releaseRun, type Run } from '../../src/postgres/ranges/ledger.js';
import { rangedProgress } from '../../src/postgres/ranges/progress.js';
import { SnapshotSlot } from '../../src/postgres/ranges/snapshot-slot.js';
import { subscriptionState } from '../../src/postgres/streams.js';
import { useClusters } from '../support/clusters.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';

const ROWS = THOROUGH ? 100_000 : 6_000;
const RANGE_BYTES = 150_000;
/** Rounds of the copy after which ranges would have come, had they been allowed to. */
const ROUNDS = 4;
/** Advisory lock that a statement which writes the archive has to get at the destination. */
const BARRIER = 42;

/** One has a key, long values, a generated column and one that is gone; the other has no key: a row that came twice would be there twice. */
const TABLES = `
  CREATE TYPE public.mood AS ENUM ('fine', 'bad');
  CREATE TABLE public.big (tenant_id bigint NOT NULL, gone text, id bigint NOT NULL, mood public.mood, body text, bytes bytea, moment timestamptz,
    doubled bigint GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (tenant_id, id));
  ALTER TABLE public.big DROP COLUMN gone;
  CREATE TABLE public.archive (tenant_id bigint NOT NULL, n bigint NOT NULL, body text);
  ALTER TABLE public.archive REPLICA IDENTITY FULL;
  CREATE TABLE public.common (code bigint PRIMARY KEY, name text);`;
/** Waits at the destination for whoever holds the lock, also as a subscription writes. */
const WAITS = `
  CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(${BARRIER.toString()}); RETURN NULL; END';
  CREATE TRIGGER wait BEFORE INSERT ON public.archive FOR EACH STATEMENT EXECUTE FUNCTION public.wait();
  ALTER TABLE public.archive ENABLE ALWAYS TRIGGER wait;`;

const clusters = useClusters({
  source: { major: 18, settings: { max_prepared_transactions: '5' } },
  destination: { major: 18, settings: { max_prepared_transactions: '5' } },
});

/** Of one shard of a source: the tenants that are its own. */
function rows(shard: number, shards: number): string {
  const tenant = `${shards.toString()} * (n % 20) + ${shard.toString()}`;
  return `
    INSERT INTO public.big (tenant_id, id, mood, body, bytes, moment)
      SELECT ${tenant}, n, CASE n % 3 WHEN 0 THEN 'fine' WHEN 1 THEN 'bad' END::public.mood, repeat(md5(n::text), 6), decode(md5(n::text), 'hex'),
        'infinity' FROM generate_series(1, ${ROWS.toString()}) n;
    UPDATE public.big SET body = (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 1024) g), bytes = decode(repeat('00ff', 9000), 'hex')
      WHERE id <= 20;
    INSERT INTO public.archive SELECT ${tenant}, n, repeat(md5(n::text), 3) || E'\\t\\\\\\n' FROM generate_series(1, ${ROWS.toString()}) n;
    INSERT INTO public.common SELECT n, 'the same ' || n FROM generate_series(1, 4000) n;`;
}

interface Way {
  readonly source: readonly string[];
  readonly destination: readonly string[];
  readonly format: 'binary' | 'text';
}

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function contextOf({ source, destination, format }: Way): EngineContext {
  const side = (name: string, cluster: Cluster, databases: readonly string[]): string =>
    databases
      .map(
        (database, shard) =>
          `[[databases]]\nname = "${name}"\nhost = "${cluster.host}"\nport = ${cluster.port.toString()}\nshard = ${shard.toString()}\ndatabase_name = "${database}"\n`,
      )
      .join('') +
    (databases.length === 1
      ? ''
      : `[[sharded_tables]]\ndatabase = "${name}"\ncolumn = "tenant_id"\ndata_type = "bigint"\n`);
  const user = (name: string, { password }: Cluster): string =>
    `[[users]]\nname = "postgres"\ndatabase = "${name}"\npassword = "x"\nserver_password = "${password}"\nschema_admin = true\n`;
  const general = `[general]\nresharding_parallel_copies = 3\nresharding_copy_format = "${format}"\ncutover_copy_range_bytes = ${RANGE_BYTES.toString()}\n`;
  const config = parseConfig(
    {
      file: 'pgdog.toml',
      text: general + side('prod', clusters.source, source) + side('prod_new', clusters.destination, destination),
    },
    { file: 'users.toml', text: user('prod', clusters.source) + user('prod_new', clusters.destination) },
    { environment: {} },
  );
  const connections = new Connections();
  cleanups.push(() => connections.close());
  return {
    config: () => config,
    directory: new Directory(() => config),
    connections,
    fleet: { look: () => Promise.resolve([]), addresses: () => Promise.resolve([]), nodes: () => [] },
    isRunning: () => Promise.resolve(false),
    onStep: () => undefined,
  };
}

function withSpeed(context: EngineContext, copyBytesPerSecond: number): EngineContext {
  const config = context.config();
  return { ...context, config: () => ({ ...config, cutover: { ...config.cutover, copyBytesPerSecond } }) };
}

/** Both sides with their tables, a fence on the destination, and streams that wait. */
async function prepared(way: Way): Promise<{ context: EngineContext; migration: Migration }> {
  const context = contextOf(way);
  const migration = await claimMigration(context, { source: 'prod', destination: 'prod_new' }, 'test');
  for (const database of way.destination) {
    const destination = await session(clusters.destination, database);
    const tables = ['big', 'archive', 'common'].map((table) => ({ schema: 'public', table }));
    await armFence(destination, tables, 'origin');
  }
  await createForward(context, migration, { copyData: true });
  return { context, migration };
}

async function session(cluster: Cluster, database: string): Promise<Connection> {
  const connection = await connect(cluster.endpoint(database));
  cleanups.push(() => connection.end().catch(() => undefined));
  return connection;
}

/** Nobody gets any further with the archive in these databases until the answer is called, or the server is lost. */
async function barrier(databases: readonly string[]): Promise<() => Promise<void>> {
  const holders = await Promise.all(databases.map((database) => session(clusters.destination, database)));
  for (const holder of holders) await holder.query('SELECT pg_advisory_lock($1)', [BARRIER]);
  return async () => {
    await Promise.all(holders.map((holder) => holder.end()));
  };
}

/** The archive is waited for everywhere, and something of the other table has come. */
async function inTheMiddle(databases: readonly string[]): Promise<void> {
  for (const database of databases)
    await until('ranges have come, and one waits', async () => {
      const [answer] = await clusters.destination.query<{ waiting: boolean }>(
        database,
        `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = ${BARRIER.toString()} AND NOT granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS waiting`,
      );
      return (
        answer?.waiting === true && (await cameOf(database)).some(({ table, rows }) => table === 'big' && rows > 0)
      );
    });
}

async function cameOf(database: string): ReturnType<typeof rangedProgress> {
  const connection = await connect(clusters.destination.endpoint(database));
  try {
    return await rangedProgress(connection);
  } finally {
    await connection.end();
  }
}

/** An application, until it is told to stop. @returns how often it wrote */
function writes(databases: readonly string[], move: boolean): () => Promise<number> {
  const stop = new AbortController();
  let rounds = 0;
  const work = Promise.all(
    databases.map(async (database, shard) => {
      const client = await session(clusters.source, database);
      for (let n = 1; !stop.signal.aborted; n++) {
        await client.query(`
          INSERT INTO public.big (tenant_id, id, body) VALUES (${(databases.length * 3 + shard).toString()}, ${(1_000_000 + n).toString()}, repeat('w', 300));
          UPDATE public.big SET body = body || 'x' WHERE id = ${n.toString()};
          ${move ? `UPDATE public.big SET tenant_id = tenant_id + 1000 WHERE id = ${(ROWS - n).toString()};` : ''}
          DELETE FROM public.big WHERE id = ${(2_000 + n).toString()};
          INSERT INTO public.archive VALUES (${shard.toString()}, ${(1_000_000 + n).toString()}, 'new');
          UPDATE public.archive SET body = 'changed' WHERE n = ${n.toString()};
          DELETE FROM public.archive WHERE n = ${(2_000 + n).toString()}`);
        rounds++;
        await delay(10);
      }
    }),
  );
  return async () => {
    stop.abort();
    await work;
    return rounds;
  };
}

/** Number and sum of all rows of a side: equal where the same rows are there, each as often. */
async function sums(cluster: Cluster, databases: readonly string[]): Promise<unknown> {
  const read = (table: string): Promise<readonly { n: number; sum: string }[]> =>
    Promise.all(
      databases.map(async (database) => {
        const [row] = await cluster.query<{ n: number; sum: string }>(
          database,
          `SELECT count(*)::int AS n, coalesce(sum(hashtextextended(t::text, 0)), 0)::text AS sum FROM public.${table} t`,
        );
        return row ?? { n: 0, sum: '0' };
      }),
    );
  const added: Record<string, unknown> = {};
  for (const table of ['big', 'archive']) {
    const parts = await read(table);
    added[table] = [
      parts.reduce((sum, { n }) => sum + n, 0),
      parts.reduce((sum, part) => sum + BigInt(part.sum), 0n).toString(),
    ];
  }
  // Every shard of either side has the same.
  return { ...added, common: [...new Set((await read('common')).map(({ sum }) => sum))] };
}

async function expectEqual(way: Way): Promise<void> {
  const there = await sums(clusters.source, way.source);
  await until('both sides have the same rows', async () => {
    const here = await sums(clusters.destination, way.destination);
    return JSON.stringify(here) === JSON.stringify(there);
  });
}

/** No row of the ledger, and no session that copies. */
async function expectNothingUnderWay(way: Way): Promise<void> {
  for (const database of way.destination)
    expect(
      await clusters.destination.query(
        database,
        'SELECT migration FROM cutover.range_copy UNION ALL SELECT stream FROM cutover.copied_range',
      ),
    ).toEqual([]);
  for (const cluster of [clusters.source, clusters.destination])
    await until('nobody copies', async () => {
      const left = await cluster.query(
        'postgres',
        `SELECT FROM pg_stat_activity WHERE application_name ~ '^cutover_.*_copy$'`,
      );
      return left.length === 0;
    });
}

async function made(way: Way): Promise<void> {
  for (const [shard, database] of way.source.entries()) {
    await clusters.source.createDatabase(database);
    await clusters.source.query(database, TABLES + rows(shard, way.source.length));
  }
  for (const database of way.destination) {
    await clusters.destination.createDatabase(database);
    await clusters.destination.query(database, TABLES + WAITS);
  }
}

describe('to two shards', () => {
  const way: Way = { source: ['one'], destination: ['two_0', 'two_1'], format: 'binary' };
  beforeAll(() => made(way));

  test('an attempt takes over from one that still runs, and goes on when the destination is lost in the middle', async () => {
    const { context, migration } = await prepared(way);
    const [stream] = streamsOf(migration, 'forward');
    const enable = `ALTER SUBSCRIPTION ${stream?.name ?? ''} ENABLE`;
    await expect(clusters.destination.query('two_0', enable)).rejects.toThrow('does not have a slot name');
    // What a second try of the activity does.
    await createForward(context, migration, { copyData: true });
    const stopWrites = writes(way.source, true);
    const letGo = await barrier(way.destination);
    const first = copyTables(context, migration, () => undefined).catch((error: unknown) => error);
    await inTheMiddle(way.destination);
    const second = copyTables(context, migration, () => undefined);
    expect(await first).toMatchObject({ code: 'copy_interrupted' });
    await inTheMiddle(way.destination);
    await clusters.destination.kill();
    await clusters.destination.start();
    expect(await second).toMatchObject({ tablesReady: 6, tablesTotal: 6 });
    expect(await stopWrites()).toBeGreaterThan(10);
    await letGo().catch(() => undefined);
    await expectEqual(way);
    await expectNothingUnderWay(way);
    await removeMigration(context, migration);
  });
});

describe('from two shards to two', () => {
  const way: Way = { source: ['from_0', 'from_1'], destination: ['to_0', 'to_1'], format: 'text' };
  beforeAll(() => made(way));

  test('a range comes once, of one attempt, and a stream runs when all have come and its slot is its own', async () => {
    const { migration } = await prepared(way);
    const streams = streamsOf(migration, 'forward').flatMap(({ name, to }) => (to === 0 ? [name] : []));
    const [name = ''] = streams;
    const destination = await session(clusters.destination, 'to_0');
    const first: Run = { migration: migration.id, run: 'first', streams };
    const second: Run = { ...first, run: 'second' };
    const range = { stream: name, schema: 'public', table: 'big', firstPage: 7 };
    expect(await beginRun(destination, first)).toBe('first');
    expect(await claimRange(destination, first, range)).toBe(true);
    expect(await claimRange(destination, first, range)).toBe(false);
    // As on a server that failed over and had lost one.
    await expect(releaseRun(destination, first, 2)).rejects.toMatchObject({ code: 'copy_interrupted' });
    expect(await beginRun(destination, second)).toBe('again');
    await expect(claimRange(destination, first, { ...range, firstPage: 8 })).rejects.toThrow('has taken over');
    await expect(releaseRun(destination, first, 1)).rejects.toThrow('has taken over');
    await destination.query('SELECT setval($1, 1, false)', ['cutover.fence_flag']);
    await expect(clearRun(destination, second, [range])).rejects.toThrow('accepts application writes');
    await destination.query('SELECT setval($1, 1, true)', ['cutover.fence_flag']);
    await clearRun(destination, second, [range]);
    expect(await claimRange(destination, second, range)).toBe(true);

    const publisher = clusters.source.endpoint('from_0');
    const early = await SnapshotSlot.open(publisher, name);
    const late = await SnapshotSlot.open(publisher, name);
    cleanups.push(() => early.close());
    cleanups.push(() => late.close());
    await until('the early one has lost it', () => early.lost.aborted);
    await late.create();
    await late.expectOwn();
    await clusters.source.query('from_0', `SELECT pg_drop_replication_slot('${name}')`);
    await clusters.source.query('from_0', `SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`);
    await expect(late.expectOwn()).rejects.toMatchObject({ code: 'copy_interrupted' });
  });

  test('the speed holds within ranges, a rewrite or a lost snapshot begins all of it again, a removal in the middle leaves nothing, and a new move has every row once', async () => {
    const { context, migration } = await prepared(way);
    let rounds = 0;
    const slow = copyTables(withSpeed(context, 1), migration, () => {
      if (++rounds > ROUNDS) throw new Error('seen enough');
    });
    await expect(slow).rejects.toThrow('seen enough');
    // Not even a first range: of each there was one piece more than a second's worth.
    expect(await Promise.all(way.destination.map(cameOf))).toEqual([[], []]);

    const waits = await barrier(way.destination);
    const rewritten = copyTables(context, migration, () => undefined).catch((error: unknown) => error);
    await inTheMiddle(way.destination);
    await clusters.source.query('from_0', 'VACUUM FULL public.common');
    await waits();
    expect(await rewritten).toMatchObject({
      code: 'copy_interrupted',
      message: expect.stringContaining('"public"."common" was rewritten') as string,
    });

    const letGo = await barrier(way.destination);
    const lost = copyTables(context, migration, () => undefined).catch((error: unknown) => error);
    await inTheMiddle(way.destination);
    await clusters.source.query(
      'from_1',
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name ~ '_copy$' AND datname = 'from_1'`,
    );
    expect(await lost).toMatchObject({ code: 'copy_interrupted' });
    await letGo();

    await barrier(way.destination);
    const stop = new AbortController();
    const stopped = copyTables(context, migration, () => {
      stop.signal.throwIfAborted();
    }).catch((error: unknown) => error);
    await inTheMiddle(way.destination);
    stop.abort(new Error('stopped'));
    expect(await stopped).toMatchObject({ message: 'stopped' });
    await removeMigration(context, migration);
    await expectNothingUnderWay(way);
    for (const [cluster, databases] of [
      [clusters.source, way.source],
      [clusters.destination, way.destination],
    ] as const)
      for (const database of databases) {
        const { objects, claims } = await madeHere(await session(cluster, database));
        expect(objects).toEqual([]);
        expect(claims.filter(({ active }) => active)).toEqual([]);
        if (cluster === clusters.destination)
          await cluster.query(database, 'TRUNCATE public.big, public.archive, public.common');
      }
  });

  test('with nobody in the way every row is there once', async () => {
    const { context, migration } = await prepared(way);
    const [stream] = streamsOf(migration, 'forward');
    const state = await subscriptionState(await session(clusters.destination, 'to_0'), stream?.name ?? '');
    expect(state).toMatchObject({ held: true, tables: [{ table: 'archive' }, { table: 'big' }, { table: 'common' }] });
    const stopWrites = writes(way.source, false);
    const progress = await copyTables(context, migration, () => undefined);
    expect(progress).toMatchObject({ tablesReady: 12, tablesTotal: 12 });
    await stopWrites();
    await expectEqual(way);
    await expectNothingUnderWay(way);
    await removeMigration(context, migration);
  });
});
