/** One task: hold a side that has moved away to refusing new tables, on every kind of server that differs in it, and no other side. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { disarmFence } from '../../src/postgres/fence.js';
import { allowNewTables, fenceNewTables } from '../../src/postgres/new-tables.js';
import { upgradeRecord } from '../../src/postgres/record.js';
import { useClusters } from '../support/clusters.js';
import { FencedPair, PEER, type FencedSide } from './fenced-pair.js';

const settings = { fsync: 'off' };
const clusters = useClusters({
  '14': { major: 14, settings },
  '17': { major: 17, settings },
  '18': { major: 18, settings },
});
const CUT01 = { code: 'CUT01', message: expect.stringContaining(`it has moved to ${PEER}`) as string };
const TRACES = `SELECT evtname FROM pg_event_trigger UNION ALL SELECT proname FROM pg_proc WHERE proname = 'refuse_table'`;

let pair: FencedPair;
let source: FencedSide;
let destination: FencedSide;

describe.each(['14', '17', '18'] as const)('on %s, a table made on the side that has moved away', (major) => {
  beforeEach(async () => {
    pair = await FencedPair.make(clusters[major]);
    ({ source, destination } = pair);
    for (const { engine } of [source, destination]) expect(await fenceNewTables(engine)).toBe(true);
  });
  afterEach(() => pair.end());

  it('is refused after the seal, whoever makes it and however; a temporary one is not, and before it everything is', async () => {
    await source.writer.query('CREATE TABLE public.early (id int); DROP TABLE public.early');
    await destination.writer.query('CREATE TABLE public.schema_load (id int); DROP TABLE public.schema_load');
    const guest = `maker_${randomUUID().slice(0, 8)}`;
    await source.engine.query(`CREATE ROLE ${guest}; GRANT CREATE ON SCHEMA public TO ${guest}`);
    await pair.move();
    for (const statement of [
      'CREATE TABLE public.late (id int)',
      'CREATE UNLOGGED TABLE public.late (id int)',
      'CREATE TABLE public.late AS SELECT 1 AS id',
      'SELECT 1 AS id INTO public.late',
      'CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (1000) TO (2000)',
      'CREATE SCHEMA late CREATE TABLE inner_table (id int)',
      `DO $$ BEGIN CREATE TABLE public.late (id int); END $$`,
      `SET session_replication_role = replica; CREATE TABLE public.late (id int)`,
      `SET application_name = 'cutover engine'; CREATE TABLE public.late (id int)`,
      `SET ROLE ${guest}; CREATE TABLE public.late (id int)`,
    ])
      await expect(source.writer.query(statement), statement).rejects.toMatchObject(CUT01);
    await source.writer.query(
      'CREATE TEMPORARY TABLE passing (id int); SELECT 1 AS id INTO TEMPORARY passing_too; CREATE SCHEMA empty',
    );
    await upgradeRecord(source.engine);
    await destination.writer.query('CREATE TABLE public.late (id int)');
  });

  it('is refused to a transaction whose snapshot is older than the seal', async () => {
    await source.writer.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1');
    await pair.move();
    await expect(source.writer.query('CREATE TABLE public.late (id int)')).rejects.toMatchObject({ code: 'CUT01' });
  });

  it('is accepted again when the fence goes, and nothing of it is left; nor where the record is dropped under it', async () => {
    await pair.move();
    await fenceNewTables(source.engine);
    await disarmFence(source.engine);
    expect((await source.engine.query(TRACES)).rows).toEqual([]);
    await source.writer.query('CREATE TABLE public.late (id int)');
    await destination.engine.query('DROP SCHEMA cutover CASCADE');
    expect((await destination.engine.query(TRACES)).rows).toEqual([]);
    await destination.writer.query('CREATE TABLE public.late (id int)');
  });

  it('is not refused where the engine is no superuser: no event trigger is made, and taking none away is allowed', async () => {
    for (const { engine } of [source, destination]) await allowNewTables(engine);
    const plain = `plain_${randomUUID().slice(0, 8)}`;
    await source.engine.query(`CREATE ROLE ${plain}; SET ROLE ${plain}`);
    expect(await fenceNewTables(source.engine)).toBe(false);
    await allowNewTables(source.engine);
    await source.engine.query('RESET ROLE');
    expect((await source.engine.query(TRACES)).rows).toEqual([]);
    await pair.move();
    await source.writer.query('CREATE TABLE public.late (id int)');
  });
});
