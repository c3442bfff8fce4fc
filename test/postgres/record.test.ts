/** One task: hold the protocol of record to its rules on real servers, each rule by the failure it prevents. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rememberCatalogue } from '../../src/postgres/catalogue.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { applicationTables, armFence, fenceGap, writersInFlight } from '../../src/postgres/fence.js';
import { applyProblems, canaryArrived, parityOf } from '../../src/postgres/parity.js';
import {
  abortEpoch,
  beginEpoch,
  commitEpoch,
  installRecord,
  openDestination,
  readIdentity,
  readRecord,
  ready,
  refuseDestination,
  releaseSource,
  seal,
  type Decision,
  type Fence,
  type Identity,
} from '../../src/postgres/record.js';
import { advanceSequences, readSequences } from '../../src/postgres/sequences.js';
import {
  ensurePublication,
  ensureReplicationRole,
  ensureSlot,
  ensureSubscription,
  tableSyncs,
} from '../../src/postgres/streams.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';

const clusters = useClusters({ source: { major: 17 }, destination: { major: 18 } });

interface Pair {
  source: Connection;
  destination: Connection;
  sourceSide: Identity;
  destinationSide: Identity;
  writer: Connection;
  destinationWriter: Connection;
}

let pair: Pair;
const SCHEMA = `CREATE TABLE public.item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
  CREATE TABLE public.parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
  CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (1000);`;

beforeEach(async () => {
  const { source, destination } = clusters;
  const sourceDatabase = await freshDatabase(source);
  const destinationDatabase = await freshDatabase(destination);
  const s = await connect(source.endpoint(sourceDatabase));
  const d = await connect(destination.endpoint(destinationDatabase));
  await s.query(SCHEMA);
  await s.query(`INSERT INTO public.item (name) SELECT 'old' FROM generate_series(1, 10)`);
  await d.query(SCHEMA);
  await installRecord(s, 'open');
  await installRecord(d, 'closed');
  pair = {
    source: s,
    destination: d,
    sourceSide: await readIdentity(s),
    destinationSide: await readIdentity(d),
    writer: await connect(source.endpoint(sourceDatabase)),
    destinationWriter: await connect(destination.endpoint(destinationDatabase)),
  };
  const tables = await applicationTables(s);
  await ensurePublication(
    s,
    'cutover_m1_forward',
    tables.filter((t) => t.table !== 'parted'),
  );
  await armFence(s, tables, 'always');
  await armFence(d, tables, 'always');
});

afterEach(async () => {
  for (const connection of [pair.source, pair.destination, pair.writer, pair.destinationWriter])
    await connection.end().catch(() => undefined);
});

async function begin(attempt = '1'): Promise<Decision> {
  return beginEpoch(pair.source, {
    migration: 'm1',
    attempt,
    nonce: randomUUID(),
    floorEpoch: (await readRecord(pair.destination))?.fence.epoch ?? 0,
    database: 'prod',
    peer: 'prod_new',
    source: pair.sourceSide,
    destination: pair.destinationSide,
    fenced: true,
  });
}

function sealEpoch(
  decision: Decision,
  lockTimeoutMs = 1000,
): Promise<{ lsn: string; repeated: boolean; tables: number }> {
  return seal(pair.source, pair.sourceSide, {
    epoch: decision.epoch,
    nonce: decision.nonce,
    shard: 0,
    publication: 'cutover_m1_forward',
    lockTimeoutMs,
    stream: `m1@${decision.epoch.toString()}`,
    events: [],
  });
}

const readyFor = ({ epoch, nonce }: Decision): Promise<Fence> =>
  ready(pair.destination, pair.destinationSide, {
    epoch,
    nonce,
    shard: 0,
    subscription: 'cutover_m1_forward',
    fenced: true,
  });

const commit = (decision: Decision): Promise<Decision> =>
  commitEpoch(pair.source, pair.sourceSide, decision.epoch, decision.nonce, 'm1@1', []);

const write = (connection: Connection): Promise<unknown> =>
  connection.query(`INSERT INTO public.item (name) VALUES ('new')`);

describe('fence', () => {
  it('refuses a snapshot older than the seal, a prepared statement, a partition, TRUNCATE, COPY and replica role', async () => {
    await pair.writer.query(`PREPARE ahead AS INSERT INTO public.item (name) VALUES ('new')`);
    await pair.writer.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await pair.writer.query('SELECT count(*) FROM public.item');
    const decision = await begin();
    await sealEpoch(decision);
    await expect(write(pair.writer)).rejects.toMatchObject({ code: 'CUT01' });
    await pair.writer.query('ROLLBACK');
    for (const statement of [
      `UPDATE public.item SET name = 'x'`,
      `DELETE FROM public.item`,
      `TRUNCATE public.item`,
      `EXECUTE ahead`,
      `COPY public.item (name) FROM PROGRAM 'echo copied'`,
      `INSERT INTO public.parted VALUES (1, 1)`,
      `INSERT INTO public.parted_1 VALUES (1, 1)`,
      `SET session_replication_role = replica; INSERT INTO public.item (name) VALUES ('x')`,
    ])
      await expect(pair.writer.query(statement), statement).rejects.toMatchObject({ code: 'CUT01' });
  });

  it('keeps the destination shut from its schema to its opening', async () => {
    await expect(write(pair.destinationWriter)).rejects.toMatchObject({ code: 'CUT01' });
    const decision = await begin();
    await sealEpoch(decision);
    await readyFor(decision);
    await expect(write(pair.destinationWriter)).rejects.toMatchObject({ code: 'CUT01' });
    await expect(openDestination(pair.destination, { ...decision, state: 'sealed' })).rejects.toThrow('not committed');
    await openDestination(pair.destination, await commit(decision));
    await write(pair.destinationWriter);
    await expect(write(pair.writer)).rejects.toMatchObject({ code: 'CUT01' });
  });

  it('waits for a direct writer in flight and keeps its write', async () => {
    await pair.writer.query('BEGIN');
    await write(pair.writer);
    const decision = await begin();
    await expect(sealEpoch(decision, 100)).rejects.toMatchObject({ code: '55P03' });
    expect((await writersInFlight(pair.source)).join()).toContain('idle in transaction');
    const sealed = sealEpoch(decision, 10_000);
    await until('the seal waits', async () => {
      const { rowCount } = await pair.writer.query(
        `SELECT FROM pg_locks WHERE relation = 'public.item'::regclass AND mode = 'ShareRowExclusiveLock' AND NOT granted`,
      );
      return rowCount === 1;
    });
    await pair.writer.query('COMMIT');
    await sealed;
    const { rows } = await pair.source.query(`SELECT count(*)::int AS n FROM public.item WHERE name = 'new'`);
    expect(rows[0]).toEqual({ n: 1 });
  });

  it('names a table that is published but not fenced, and refuses the seal', async () => {
    await pair.source.query('DROP TRIGGER cutover_fence_truncate ON public.item');
    expect(await fenceGap(pair.source, 'cutover_m1_forward')).toContain('public.item');
    await expect(sealEpoch(await begin())).rejects.toMatchObject({ code: 'CUT03' });
  });

  it.each([
    ['DROP TRIGGER cutover_fence_truncate ON public.item', 'a fence trigger of table public.item'],
    ['ALTER PUBLICATION cutover_m1_forward DROP TABLE public.item', 'is fenced but not published'],
    [
      'CREATE TABLE public.late (id int PRIMARY KEY); ALTER PUBLICATION cutover_m1_forward ADD TABLE public.late',
      'is published but not fenced',
    ],
  ])('the seal compares again what changed since it was compared ahead of the pause: %s', async (change, gap) => {
    const decision = await begin();
    await rememberCatalogue(pair.source, 'cutover_m1_forward');
    await pair.writer.query(change);
    await expect(sealEpoch(decision)).rejects.toThrow(gap);
  });

  it('the seal waits for a writer of a table that was fenced after the tables were listed', async () => {
    const decision = await begin();
    await rememberCatalogue(pair.source, 'cutover_m1_forward');
    await pair.source.query('CREATE TABLE public.late (id int PRIMARY KEY)');
    await pair.source.query('ALTER PUBLICATION cutover_m1_forward ADD TABLE public.late');
    await armFence(pair.source, await applicationTables(pair.source), 'always');
    await pair.writer.query('BEGIN; INSERT INTO public.late VALUES (1)');
    await expect(sealEpoch(decision, 100)).rejects.toMatchObject({ code: '55P03' });
    await pair.writer.query('COMMIT');
    expect((await sealEpoch(decision)).tables).toBe(4);
  });

  it('where nothing changed the seal is as good as with the comparison, and says how many tables it found', async () => {
    const decision = await begin();
    await rememberCatalogue(pair.source, 'cutover_m1_forward');
    expect((await sealEpoch(decision)).tables).toBe(3);
    await expect(write(pair.writer)).rejects.toMatchObject({ code: 'CUT01' });
  });

  it('the commit sees a table that is made while nothing else changed', async () => {
    await pair.source.query(`INSERT INTO cutover.migration (id, owner, database, peer, source, destination, publication)
      VALUES ('m1', 'test', 'prod', 'prod_new', '{}', '{}', '')`);
    const decision = await begin();
    await rememberCatalogue(pair.source, 'cutover_m1_forward');
    await sealEpoch(decision);
    await pair.writer.query('BEGIN; CREATE TABLE public.late (id int PRIMARY KEY)');
    await expect(commit(decision)).rejects.toThrow('is making a table');
    await pair.writer.query('COMMIT');
    await expect(commit(decision)).rejects.toThrow('table public.late came after the streams were made');
    await pair.writer.query('DROP TABLE public.late');
    expect((await commit(decision)).state).toBe('committed');
  });
});

describe('epochs', () => {
  it('gives a repeated begin the same epoch and bars a second one while the first is open', async () => {
    const first = await begin('1');
    expect((await begin('1')).epoch).toBe(first.epoch);
    await expect(begin('2')).rejects.toMatchObject({ code: 'CUT02' });
    await abortEpoch(pair.source, pair.sourceSide, first.epoch, 'test');
    expect((await begin('2')).epoch).toBe(first.epoch + 1);
  });

  it('a seal that comes after its epoch was aborted changes nothing', async () => {
    const decision = await begin();
    expect((await abortEpoch(pair.source, pair.sourceSide, decision.epoch, 'late')).state).toBe('aborted');
    await releaseSource(pair.source, pair.sourceSide, decision.epoch);
    await expect(sealEpoch(decision)).rejects.toMatchObject({ code: 'CUT02' });
    await write(pair.writer);
  });

  it('a late release of a dead epoch does not open a later seal', async () => {
    const first = await begin('1');
    await sealEpoch(first);
    await abortEpoch(pair.source, pair.sourceSide, first.epoch, 'test');
    await releaseSource(pair.source, pair.sourceSide, first.epoch);
    const second = await begin('2');
    await sealEpoch(second);
    await releaseSource(pair.source, pair.sourceSide, first.epoch);
    await expect(write(pair.writer)).rejects.toMatchObject({ code: 'CUT01' });
    expect((await commit(second)).state).toBe('committed');
    await releaseSource(pair.source, pair.sourceSide, first.epoch);
    await expect(releaseSource(pair.source, pair.sourceSide, second.epoch)).rejects.toMatchObject({ code: 'CUT02' });
    await expect(write(pair.writer)).rejects.toMatchObject({ code: 'CUT01' });
  });

  it('commit after abort answers aborted, abort after commit answers committed', async () => {
    const first = await begin('1');
    await sealEpoch(first);
    await abortEpoch(pair.source, pair.sourceSide, first.epoch, 'test');
    expect((await commit(first)).state).toBe('aborted');
    await releaseSource(pair.source, pair.sourceSide, first.epoch);
    const second = await begin('2');
    await sealEpoch(second);
    expect((await commit(second)).state).toBe('committed');
    expect((await abortEpoch(pair.source, pair.sourceSide, second.epoch, 'late')).state).toBe('committed');
  });

  it('commit and abort at the same moment leave one decision, whoever wins', async () => {
    for (let round = 0; round < 20; round++) {
      const decision = await begin(round.toString());
      await sealEpoch(decision);
      const [committed, aborted] = await Promise.all([
        commit(decision),
        abortEpoch(pair.writer, pair.sourceSide, decision.epoch, 'race'),
      ]);
      expect(committed.state).toBe(aborted.state);
      if (committed.state === 'committed') return;
      await releaseSource(pair.source, pair.sourceSide, decision.epoch);
    }
  });

  it('a door refused for an aborted epoch stays shut for a late ready', async () => {
    const decision = await begin();
    await refuseDestination(pair.destination, pair.destinationSide, decision.epoch, decision.nonce);
    await expect(readyFor(decision)).rejects.toMatchObject({ code: 'CUT02' });
  });

  it('an answer from the wrong server is no answer', async () => {
    const decision = await begin();
    await expect(abortEpoch(pair.source, pair.destinationSide, decision.epoch, 'x')).rejects.toMatchObject({
      code: 'wrong_server',
    });
  });
});

describe('streams', () => {
  it('reach parity by the marker, prove the way back by the canary, and never loop', async () => {
    const { source, destination } = clusters;
    const sourceDatabase = pair.source.database ?? '';
    const destinationDatabase = pair.destination.database ?? '';
    const tables = (await applicationTables(pair.source)).filter((t) => t.table !== 'parted');
    const options = { copyData: true, binary: false, originNone: true };
    const toSource = await ensureReplicationRole(pair.source, source.endpoint(sourceDatabase), 'm1', tables);
    await ensureSlot(pair.source, 'cutover_m1_forward');
    await pair.destination.query('ALTER TABLE public.item ENABLE TRIGGER cutover_fence_write');
    await pair.destination.query('ALTER TABLE public.parted_1 ENABLE TRIGGER cutover_fence_write');
    await ensureSubscription(pair.destination, 'cutover_m1_forward', toSource, options);
    await until('the copy is done', async () => {
      const syncs = await tableSyncs(pair.destination, 'cutover_m1_forward');
      return syncs.length > 0 && syncs.every((t) => t.state === 'r');
    });
    const toDestination = await ensureReplicationRole(
      pair.destination,
      destination.endpoint(destinationDatabase),
      'm1',
      tables,
    );
    await ensurePublication(pair.destination, 'cutover_m1_reverse', tables);
    await ensureSlot(pair.destination, 'cutover_m1_reverse');
    await ensureSubscription(pair.source, 'cutover_m1_reverse', toDestination, { ...options, copyData: false });
    const decision = await begin();
    const { lsn, tables: sealedTables } = await sealEpoch(decision);
    expect(sealedTables).toBe(3);
    const mark = {
      subscription: 'cutover_m1_forward',
      cluster: pair.sourceSide.systemIdentifier,
      shard: 0,
      epoch: decision.epoch,
      nonce: decision.nonce,
      lsn,
      tables: sealedTables,
      applyProblems: await applyProblems(pair.destination, 'cutover_m1_forward'),
    };
    await until('parity', async () => (await parityOf(pair.destination, mark)).level);
    const more = { ...mark, tables: sealedTables + 1 };
    expect(await parityOf(pair.destination, more)).toEqual({ level: false, missing: '1 tables not ready' });
    const values = await readSequences(pair.source);
    expect(await advanceSequences(pair.destination, pair.destinationSide, decision.epoch, values)).toBe(1);
    expect(await advanceSequences(pair.destination, pair.destinationSide, decision.epoch, values)).toBe(0);
    await expect(readyFor(decision)).rejects.toThrow('disabled or missing at the destination');
    await armFence(pair.destination, await applicationTables(pair.destination), 'always');
    await readyFor(decision);
    await until('the canary', () =>
      canaryArrived(pair.source, { ...decision, cluster: pair.destinationSide.systemIdentifier, shard: 0 }),
    );
    await openDestination(pair.destination, await commit(decision));
    await write(pair.destinationWriter);
    await until('the write came back', async () => {
      const { rows } = await pair.source.query(`SELECT max(id)::int AS id FROM public.item`);
      return (rows[0] as { id: number }).id > 1000;
    });
    const { rows } = await pair.destination.query(`SELECT count(*)::int AS n FROM public.item`);
    expect(rows[0]).toEqual({ n: 11 });
  });
});
