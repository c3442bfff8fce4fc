/** One task: what happened to schemas and streams since they were made is found before a switch, and inside it, and told. */
import { describe, expect, it } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { awaitMoment } from '../../activities/moment.js';
import type { EpochPlan } from '../../src/cutover/contract.js';
import { SILENT } from '../../src/proxy/logger.js';
import { SchemaGuardWatch } from '../../src/fleet/schema-guard-watch.js';
import { connect } from '../../src/postgres/connection.js';
import { streamName } from '../../src/postgres/streams.js';
import { STAMP_OF_S } from '../../src/postgres/subscription-stamp.js';
import { move, planFor } from '../support/faults.js';
import { usePair, type Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

const MOMENT_DEADLINE_MS = 30_000;
let attempts = 0;

/** Looks for the moment, sees it wait for `reason`, mends that, and gives the traffic back at once. */
async function waitsUntilMended(pair: Pair, reason: RegExp, mend: () => Promise<unknown>): Promise<void> {
  const told: string[] = [];
  const request = {
    ...({ migration: pair.migration, heading: 'forward', acceptLoss: false } as const),
    attempt: `guard/${(++attempts).toString()}`,
  };
  const moment: Promise<EpochPlan> = awaitMoment(pair.context, request, (waitingFor) => {
    told.push(waitingFor);
    return Promise.resolve();
  });
  moment.catch(() => undefined);
  await until(`the moment waits for ${reason.source}`, () => told.some((t) => reason.test(t)));
  await mend();
  const plan = await moment;
  await new CriticalSection(pair.context).returnToSource(plan, 'the test');
}

const both = (pair: Pair, sql: string): Promise<unknown> =>
  Promise.all([pair.source.query('app', sql), pair.destination.query('app', sql)]);

describe('before a switch', { timeout: MOMENT_DEADLINE_MS }, () => {
  const pair = usePair({ source: 17, destination: 18 });

  it('the copy, which refreshes the subscription batch by batch, does not look like an alteration by hand', async () => {
    const notes = `SELECT s.xmin::text = ${STAMP_OF_S} AS same FROM pg_subscription s`;
    expect(await pair().destination.query('app', notes)).toEqual([{ same: true }]);
    expect(await pair().source.query('app', notes)).toEqual([{ same: true }]);
  });

  it('a column that only the source has holds the cutover back, and is named', async () => {
    await pair().source.query('app', 'ALTER TABLE public.item ADD COLUMN extra int NOT NULL DEFAULT 1');
    await waitsUntilMended(
      pair(),
      /^schemas differ: table public\.item: column extra is integer not null at the source, missing at the destination$/,
      () => pair().destination.query('app', 'ALTER TABLE public.item ADD COLUMN extra int NOT NULL DEFAULT 1'),
    );
  });

  it('another type, another replica identity: each is named', async () => {
    await pair().source.query('app', 'ALTER TABLE public.item ALTER COLUMN name TYPE varchar(200)');
    await waitsUntilMended(
      pair(),
      /column name is character varying\(200\) at the source, text at the destination/,
      () => pair().source.query('app', 'ALTER TABLE public.item ALTER COLUMN name TYPE text'),
    );
    await pair().source.query('app', 'ALTER TABLE public.item REPLICA IDENTITY FULL');
    await waitsUntilMended(pair(), /replica identity is full at the source, default at the destination/, () =>
      pair().source.query('app', 'ALTER TABLE public.item REPLICA IDENTITY DEFAULT'),
    );
  });

  it('a column dropped and made again on one side, in another place, is the same column', async () => {
    await pair().source.query(
      'app',
      'ALTER TABLE public.item ADD COLUMN again int; ALTER TABLE public.item ADD COLUMN last int; ALTER TABLE public.item DROP COLUMN again; ALTER TABLE public.item ADD COLUMN again int',
    );
    await pair().destination.query('app', 'ALTER TABLE public.item ADD COLUMN again int, ADD COLUMN last int');
    const plan = await planFor(pair(), 'forward');
    await new CriticalSection(pair().context).returnToSource(plan, 'the test');
  });

  it('maintenance that holds a lock the seal needs is waited for, not met inside the pause', async () => {
    const maintenance = await connect(pair().source.endpoint('app'));
    await maintenance.query('BEGIN; LOCK TABLE public.item IN ACCESS EXCLUSIVE MODE');
    await waitsUntilMended(
      pair(),
      /^maintenance is running: a session that holds AccessExclusiveLock on public\.item/,
      () => maintenance.query('ROLLBACK'),
    );
    // So many pages that it runs until it is cancelled, however long the moment takes to look at it.
    await pair().source.query(
      'app',
      `INSERT INTO public.item (name) SELECT md5(i::text) FROM generate_series(1, 50000) i`,
    );
    await maintenance.query('SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1');
    const vacuum = maintenance.query('VACUUM (DISABLE_PAGE_SKIPPING) public.item');
    await waitsUntilMended(pair(), /^maintenance is running: VACUUM on public\.item$/, async () => {
      await pair().source.query(
        'app',
        `SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum WHERE relid = 'public.item'::regclass`,
      );
      await expect(vacuum).rejects.toMatchObject({ code: '57014' });
    });
    await maintenance.end();
  });

  it('a stream that lags by more than cutover_traffic_stop_threshold holds the cutover back, with both numbers', async () => {
    const holder = await connect(pair().destination.endpoint('app'));
    await holder.query('BEGIN; SELECT FROM public.item WHERE id = 1 FOR UPDATE');
    // The apply worker waits for that row, and everything written after it waits behind it.
    await pair().source.query('app', `UPDATE public.item SET name = name WHERE id = 1`);
    await pair().source.query(
      'app',
      `INSERT INTO public.item (name) SELECT md5(i::text) FROM generate_series(1, 20000) i`,
    );
    await waitsUntilMended(pair(), /^lag [1-9]\d{6,} bytes, threshold 1000000$/, () => holder.query('ROLLBACK'));
    await holder.end();
  });

  it('a change inside the pause aborts the attempt before anything is committed', async () => {
    pair().onStep = async (_, step) => {
      if (step === 'sealSource') await pair().source.query('app', 'ALTER TABLE public.item ADD COLUMN late int');
    };
    const plan = await planFor(pair(), 'forward');
    const section = new CriticalSection(pair().context);
    const result = await section.moveTraffic(plan);
    expect(result).toMatchObject({ ok: false, step: 'awaitParity' });
    expect(result).toMatchObject({ reason: expect.stringMatching(/column late is integer at the source/) as string });
    await section.returnToSource(plan, 'the test');
    pair().onStep = () => undefined;
    await pair().source.query('app', 'ALTER TABLE public.item DROP COLUMN late');
  });

  it('a subscription that is disabled is named, whichever way it leads', async () => {
    const reverse = streamName(pair().migration.id, 'reverse');
    await pair().source.query('app', `ALTER SUBSCRIPTION ${reverse} DISABLE`);
    await waitsUntilMended(pair(), /^subscription .*_reverse is disabled$/, () =>
      pair().source.query('app', `ALTER SUBSCRIPTION ${reverse} ENABLE`),
    );
  });

  it('a subscription that meets errors holds the cutover back until it is past them', async () => {
    const marker = `INSERT INTO cutover.marker (cluster, shard, epoch, nonce, kind) VALUES ('x', 0, 0, 'x', 'canary')`;
    // With an origin of its own it is not sent forward: what the destination then writes is in its way.
    await pair().source.query(
      'app',
      `SELECT pg_replication_origin_create('elsewhere'), pg_replication_origin_session_setup('elsewhere'); ${marker}`,
    );
    await pair().destination.query('app', marker);
    await waitsUntilMended(pair(), /^subscription .*_reverse meets errors \(\d+ so far\)/, () =>
      pair().source.query('app', `DELETE FROM cutover.marker WHERE cluster = 'x'`),
    );
  });

  it('a transaction that somebody let the apply worker skip holds the cutover back', async () => {
    const { source, destination, migration } = pair();
    const [forward, reverse] = [streamName(migration.id, 'forward'), streamName(migration.id, 'reverse')];
    const logged = source.log.length;
    const marker = `INSERT INTO cutover.marker (cluster, shard, epoch, nonce, kind) VALUES ('y', 0, 0, 'y', 'canary')`;
    await source.query('app', `SELECT pg_replication_origin_session_setup('elsewhere'); ${marker}`);
    await destination.query('app', marker);
    const failed = /INSERT" for replication target relation "cutover\.marker" in transaction \d+, finished at (\S+)/;
    await until('the apply worker has failed', () => failed.test(source.log.slice(logged)));
    const end = failed.exec(source.log.slice(logged))?.[1] ?? '';
    await source.query('app', `ALTER SUBSCRIPTION ${reverse} SKIP (lsn = '${end}')`);
    await until('it has skipped', async () => {
      const skipped = `SELECT FROM pg_subscription WHERE subname = '${reverse}' AND subskiplsn = '0/0'`;
      return (await source.query('app', skipped)).length > 0;
    });
    await waitsUntilMended(
      pair(),
      /^subscription .*_reverse was altered by hand while it met errors \(\d+ so far\): a transaction may have been skipped$/,
      () => source.query('app', 'SELECT pg_stat_reset_subscription_stats(oid) FROM pg_subscription'),
    );
    // Nothing is written that could end it, and no error was counted: only what is told beforehand holds the cutover back.
    await destination.query('app', `ALTER SUBSCRIPTION ${forward} SKIP (lsn = 'FFFFFFFF/FFFFFFFF')`);
    await waitsUntilMended(pair(), /^subscription .*_forward is told to skip the transaction that ends at FFFF/, () =>
      destination.query('app', `ALTER SUBSCRIPTION ${forward} SKIP (lsn = NONE)`),
    );
  });

  it('a publication that leaves out a kind of change would lose it', async () => {
    const forward = streamName(pair().migration.id, 'forward');
    await pair().source.query('app', `ALTER PUBLICATION ${forward} SET (publish = 'insert, update, delete')`);
    await waitsUntilMended(pair(), /does not publish every kind of change/, () =>
      pair().source.query('app', `ALTER PUBLICATION ${forward} SET (publish = 'insert, update, delete, truncate')`),
    );
  });

  it('TRUNCATE travels like any other write', async () => {
    await pair().source.query(
      'app',
      'INSERT INTO public.parted VALUES (1, 1); TRUNCATE public.parted; INSERT INTO public.parted VALUES (2, 2)',
    );
    await until('the destination has the row after the TRUNCATE and no other', async () => {
      const rows = await pair().destination.query('app', 'SELECT id FROM public.parted');
      return rows.length === 1 && rows[0]?.id === 2;
    });
    const plan = await planFor(pair(), 'forward');
    await new CriticalSection(pair().context).returnToSource(plan, 'the test');
  });

  it('a TRUNCATE that the destination cannot follow holds the cutover back, and the table in its way is named', async () => {
    const { source, destination } = pair();
    await destination.query('app', 'CREATE TABLE public.outside (id int CONSTRAINT inside REFERENCES public.parted)');
    await source.query('app', 'TRUNCATE public.parted');
    await waitsUntilMended(
      pair(),
      /meets errors .*; a TRUNCATE of public\.parted\w* cannot be applied while public\.outside, which is not part of the stream, refers to it$/,
      () => destination.query('app', 'ALTER TABLE public.outside DROP CONSTRAINT inside'),
    );
    expect(await destination.query('app', 'SELECT FROM public.parted')).toEqual([]);
    await destination.query('app', 'DROP TABLE public.outside');
  });

  it('a change that was passed over because its row was missing is a loss, and is never forgotten', async () => {
    await pair().destination.query(
      'app',
      `SELECT pg_replication_origin_create('elsewhere'), pg_replication_origin_session_setup('elsewhere');
       ALTER TABLE public.item DISABLE TRIGGER cutover_fence_write; DELETE FROM public.item WHERE id = 7;
       ALTER TABLE public.item ENABLE ALWAYS TRIGGER cutover_fence_write`,
    );
    await pair().source.query('app', `UPDATE public.item SET name = 'lost' WHERE id = 7`);
    const counted = 'SELECT FROM pg_stat_subscription_stats WHERE confl_update_missing > 0';
    await until('the server has counted it', async () => (await pair().destination.query('app', counted)).length > 0);
    await waitsUntilMended(pair(), /^subscription .*_forward passed over 1 changes in conflict/, () =>
      pair().destination.query('app', 'SELECT pg_stat_reset_subscription_stats(oid) FROM pg_subscription'),
    );
  });

  it('clients are told what they must not change as long as the migration is there, on either side', async () => {
    const { proxy, node, context } = pair();
    const watch = new SchemaGuardWatch(proxy, node, SILENT);
    expect(watch.of('prod')).toBeNull();
    await watch.look();
    for (const name of ['prod', 'prod_new']) {
      expect(watch.of(name)).toMatchObject({ migration: pair().migration.id });
      expect([...(watch.of(name)?.tables ?? [])].sort()).toEqual(['item', 'parted', 'parted_1']);
    }
    expect(watch.of('elsewhere')).toBeNull();
    const config = context.config();
    const allowing = new SchemaGuardWatch(
      { config: { ...config, cutover: { ...config.cutover, ddl: 'allow' } } },
      node,
      SILENT,
    );
    await allowing.look();
    expect(allowing.of('prod')).toMatchObject({ allowed: true });
    await both(pair(), `UPDATE cutover.migration SET active = false`);
    await watch.look();
    expect(watch.of('prod')).toBeNull();
    await both(pair(), `UPDATE cutover.migration SET active = true`);
  });

  it('and back again: the same is compared with the sides exchanged', async () => {
    await move(pair(), 'forward');
    await pair().destination.query('app', 'ALTER TABLE public.item ADD COLUMN after int');
    pair().onStep = () => undefined;
    const told: string[] = [];
    const moment = awaitMoment(
      pair().context,
      { migration: pair().migration, heading: 'reverse', attempt: 'guard/back', acceptLoss: false },
      (waitingFor) => {
        told.push(waitingFor);
        return Promise.resolve();
      },
    );
    await until('the way back waits', () => told.some((t) => t.includes('column after is integer at the source')));
    await pair().source.query('app', 'ALTER TABLE public.item ADD COLUMN after int');
    await moment;
  });
});
