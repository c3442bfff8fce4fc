/** One task: hold the fence to every kind of writer there is: each is waited for or refused, and told where the database went. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { writersInFlight } from '../../src/postgres/fence.js';
import {
  installRecord,
  keepFence,
  openDestination,
  readRecord,
  upgradeRecord,
  type Decision,
} from '../../src/postgres/record.js';
import { RECORD_VERSION } from '../../src/postgres/record-schema.js';
import { useClusters } from '../support/clusters.js';
import { FencedPair, PEER, PUBLICATION, type FencedSide } from './fenced-pair.js';

const clusters = useClusters({ server: { major: 18, settings: { fsync: 'off' } } });

let pair: FencedPair;
let source: FencedSide;
let destination: FencedSide;

async function setUp(): Promise<void> {
  pair = await FencedPair.make(clusters.server);
  ({ source, destination } = pair);
}

const tearDown = (): Promise<void> => pair.end();
const begin = (): Promise<Decision> => pair.begin();
const sealed = (decision: Decision, lockTimeoutMs?: number): Promise<void> => pair.seal(decision, lockTimeoutMs);
const committed = (decision: Decision): Promise<Decision> => pair.commit(decision);
const proven = (decision: Decision): Promise<unknown> => pair.prove(decision);

describe('a source that is sealed refuses', () => {
  beforeAll(async () => {
    await setUp();
    await sealed(await begin());
  });
  afterAll(tearDown);
  afterEach(() => source.writer.query('RESET ALL'));

  it.each([
    ['INSERT', `INSERT INTO public.item (name) VALUES ('x')`],
    ['INSERT ... ON CONFLICT', `INSERT INTO public.child VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET item = NULL`],
    ['MERGE', `MERGE INTO public.child c USING (SELECT 1 AS id) s ON c.id = s.id WHEN MATCHED THEN DELETE`],
    ['a write in a WITH', `WITH gone AS (DELETE FROM public.child RETURNING id) SELECT * FROM gone`],
    ['COPY', `COPY public.item (name) FROM PROGRAM 'echo x'`],
    ['TRUNCATE', `TRUNCATE public.child`],
    ['a partitioned parent', `INSERT INTO public.parted VALUES (1, 1)`],
    ['a partition', `INSERT INTO public.parted_1 VALUES (1, 1)`],
    ['a superuser as a replica', `SET session_replication_role = replica; DELETE FROM public.item`],
    ['a superuser who is the engine', `SET application_name = 'cutover engine'; DELETE FROM public.item`],
    ['a function', `DO $$ BEGIN UPDATE public.item SET name = 'x'; END $$`],
  ])('%s', async (_, statement) => {
    await expect(source.writer.query(statement)).rejects.toMatchObject({ code: 'CUT01' });
  });
});

describe('a source that is sealed since then refuses', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  it('a prepared statement whose plan is older than the seal', async () => {
    const insert = { name: 'old plan', text: `INSERT INTO public.item (name) VALUES ($1)`, values: ['x'] };
    await source.writer.query(insert);
    await sealed(await begin());
    await expect(source.writer.query(insert)).rejects.toMatchObject({ code: 'CUT01' });
  });

  it.each(['REPEATABLE READ', 'SERIALIZABLE'])(
    'a transaction whose %s snapshot is older than the seal',
    async (level) => {
      await source.writer.query(`BEGIN ISOLATION LEVEL ${level}`);
      await source.writer.query('SELECT 1 FROM pg_class LIMIT 1');
      await sealed(await begin());
      await expect(source.writer.query('DELETE FROM public.child')).rejects.toMatchObject({ code: 'CUT01' });
    },
  );

  it('the role that owns the tables, and one that may do nothing but insert', async () => {
    const owner = `owner_${randomUUID().slice(0, 8)}`;
    const guest = `guest_${randomUUID().slice(0, 8)}`;
    await source.engine.query(`CREATE ROLE ${owner}; ALTER TABLE public.item OWNER TO ${owner};
      CREATE ROLE ${guest}; GRANT INSERT ON public.item TO ${guest}`);
    await sealed(await begin());
    for (const role of [owner, guest]) {
      await source.writer.query(`SET ROLE ${role}`);
      await expect(source.writer.query(`INSERT INTO public.item (name) VALUES ('x')`)).rejects.toMatchObject({
        code: 'CUT01',
      });
      await source.writer.query('RESET ROLE');
    }
  });

  it('a cascade from a table that is not part of the move', async () => {
    await source.engine
      .query(`DROP TRIGGER cutover_fence_write ON public.item; DROP TRIGGER cutover_fence_truncate ON public.item;
      ALTER PUBLICATION ${PUBLICATION} DROP TABLE public.item;
      CREATE PUBLICATION part FOR TABLE public.child, public.parted; UPDATE cutover.migration SET publication = 'part'`);
    await sealed(await begin());
    await expect(source.writer.query('DELETE FROM public.item')).rejects.toMatchObject({ code: 'CUT01' });
    await expect(source.writer.query('DELETE FROM public.child')).rejects.toMatchObject({ code: 'CUT01' });
  });
});

describe('the seal waits for', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  it('a prepared transaction, names it, and keeps its write', async () => {
    await source.writer.query(`BEGIN; INSERT INTO public.item (name) VALUES ('prepared'); PREPARE TRANSACTION 'held'`);
    const decision = await begin();
    await expect(sealed(decision, 100)).rejects.toMatchObject({ code: '55P03' });
    expect((await writersInFlight(source.engine)).join()).toContain('prepared transaction holding public.item');
    await source.writer.query(`COMMIT PREPARED 'held'`);
    await sealed(decision);
    const { rows } = await source.engine.query(`SELECT FROM public.item WHERE name = 'prepared'`);
    expect(rows).toHaveLength(1);
  });
});

describe('tables made during the migration', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  it.each([
    ['a table', 'CREATE TABLE public.late (id int PRIMARY KEY)', 'public.late'],
    [
      'a partition',
      'CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (1000) TO (2000)',
      'public.parted_2',
    ],
    ['a table filled by a query', 'CREATE TABLE public.late AS SELECT 1 AS id', 'public.late'],
  ])('%s made after the moment: the seal is refused, by its name', async (_, statement, name) => {
    const decision = await begin();
    await source.writer.query(statement);
    await expect(sealed(decision)).rejects.toMatchObject({
      code: 'CUT03',
      message: `table ${name} came after the streams were made and is not replicated`,
    });
    await source.writer.query(`INSERT INTO public.item (name) VALUES ('still open')`);
  });

  it('a table in the making, which nobody sees yet: neither the seal nor the commit passes before it has ended', async () => {
    const make = `BEGIN; CREATE TABLE public.late (id int PRIMARY KEY); INSERT INTO public.late VALUES (1)`;
    const making = { code: 'CUT03', message: expect.stringMatching(/^pid \d+ is making a table/) as string };
    const decision = await begin();
    await source.writer.query(make);
    await expect(sealed(decision)).rejects.toMatchObject(making);
    await source.writer.query('ROLLBACK');
    await sealed(decision);
    await source.writer.query(make);
    await expect(committed(decision)).rejects.toMatchObject(making);
    await source.writer.query('ROLLBACK');
    expect(await committed(decision)).toMatchObject({ state: 'committed' });
  });

  it('a partition made after the seal: the commit is refused, by its name', async () => {
    const decision = await begin();
    await sealed(decision);
    await source.writer.query(
      'CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (1000) TO (2000)',
    );
    await source.writer.query('INSERT INTO public.parted_2 VALUES (1500, 1)');
    await expect(committed(decision)).rejects.toMatchObject({
      code: 'CUT03',
      message: expect.stringContaining('parted_2') as string,
    });
  });

  it('a partition of the publication that the user named: the seal is refused', async () => {
    await source.engine.query(`CREATE PUBLICATION part FOR TABLE public.item, public.child, public.parted;
      UPDATE cutover.migration SET publication = 'part'`);
    const decision = await begin();
    await source.writer.query('CREATE TABLE public.elsewhere (id int)');
    await source.writer.query(
      'CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (1000) TO (2000)',
    );
    await expect(sealed(decision)).rejects.toMatchObject({
      code: 'CUT03',
      message: expect.stringContaining('parted_2') as string,
    });
  });
});

describe('what passes a raised fence (docs/limits.md)', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  it('TRUNCATE by a superuser who says that he is a replica; every other TRUNCATE and write of his is refused', async () => {
    await sealed(await begin());
    await expect(source.writer.query('TRUNCATE public.child')).rejects.toMatchObject({ code: 'CUT01' });
    await source.writer.query('SET session_replication_role = replica');
    await expect(source.writer.query('DELETE FROM public.child')).rejects.toMatchObject({ code: 'CUT01' });
    await source.writer.query('TRUNCATE public.child');
  });
});

describe('the write probe', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  it('a trigger disabled after the seal: the commit is refused', async () => {
    const decision = await begin();
    await sealed(decision);
    await source.writer.query('ALTER TABLE public.child DISABLE TRIGGER cutover_fence_write');
    await expect(committed(decision)).rejects.toMatchObject({
      code: 'CUT03',
      message: expect.stringContaining('public.child') as string,
    });
  });

  it('a trigger function that no longer refuses: neither side passes its proof', async () => {
    const harmless = `CREATE OR REPLACE FUNCTION cutover.refuse_write() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`;
    const decision = await begin();
    await sealed(decision);
    await destination.engine.query(harmless);
    await expect(proven(decision)).rejects.toMatchObject({
      code: 'CUT03',
      message: expect.stringContaining('a write to') as string,
    });
    await source.engine.query(harmless);
    await expect(committed(decision)).rejects.toMatchObject({
      code: 'CUT03',
      message: expect.stringContaining('a write to') as string,
    });
  });

  it('a flag lowered by hand: no commit, no readiness, until the keeper has raised it again', async () => {
    const decision = await begin();
    await sealed(decision);
    for (const { engine } of [source, destination]) await engine.query(`SELECT setval('cutover.fence_flag', 1, false)`);
    await expect(committed(decision)).rejects.toMatchObject({ code: 'CUT02' });
    await expect(proven(decision)).rejects.toMatchObject({ code: 'CUT03' });
    for (const { engine, identity } of [source, destination]) {
      expect(await keepFence(engine, identity, null)).toBe('raised again');
      expect(await keepFence(engine, identity, null)).toBeNull();
    }
    await proven(decision);
    expect(await committed(decision)).toMatchObject({ state: 'committed' });
  });

  it('the keeper leaves the side that serves alone', async () => {
    expect(await keepFence(source.engine, source.identity, null)).toBeNull();
    await source.writer.query('DELETE FROM public.child');
  });
});

describe('a refusal says where the database went', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  const write = `INSERT INTO public.item (name) VALUES ('x')`;

  it('before, during and after the move, on both sides', async () => {
    const refusal = (where: string): object => ({
      code: 'CUT01',
      message: expect.stringContaining(`: ${where} ${PEER}`) as string,
    });
    await expect(destination.writer.query(write)).rejects.toMatchObject(refusal('it is served by'));
    const decision = await begin();
    await sealed(decision);
    await expect(source.writer.query(write)).rejects.toMatchObject(refusal('it is moving to'));
    await proven(decision);
    await openDestination(destination.engine, await committed(decision));
    await expect(source.writer.query(write)).rejects.toMatchObject(refusal('it has moved to'));
    await destination.writer.query(write);
  });

  it('in the words of the server, whatever the search_path of the writer hides', async () => {
    await sealed(await begin());
    await source.writer
      .query(`CREATE FUNCTION public.current_database() RETURNS name LANGUAGE sql AS $$ SELECT 'fooled'::name $$;
      SET search_path = public, pg_catalog`);
    await expect(source.writer.query(write)).rejects.toMatchObject({
      code: 'CUT01',
      message: expect.not.stringContaining('fooled') as string,
    });
  });
});

describe('a record of an older layout', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  it('is brought up to date and keeps what it holds', async () => {
    const decision = await begin();
    await source.engine.query(`ALTER TABLE cutover.decision DROP COLUMN fenced, DROP COLUMN publication;
      ALTER TABLE cutover.fence DROP COLUMN peer_address; UPDATE cutover.layout SET version = 1`);
    expect(await readRecord(source.engine)).toMatchObject({ version: 1, decisions: [{ epoch: decision.epoch }] });
    await upgradeRecord(source.engine);
    expect(await readRecord(source.engine)).toMatchObject({
      version: RECORD_VERSION,
      decisions: [{ epoch: decision.epoch, fenced: null }],
    });
    await sealed(decision);
    expect(await committed(decision)).toMatchObject({ state: 'committed' });
  });

  it('is refused where it is newer, with both numbers', async () => {
    await source.engine.query('UPDATE cutover.layout SET version = 99');
    for (const attempt of [readRecord(source.engine), installRecord(source.engine, 'open')])
      await expect(attempt).rejects.toMatchObject({
        code: 'record_newer',
        details: { version: 99, known: RECORD_VERSION },
      });
  });
});
