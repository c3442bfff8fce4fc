/** One task: hold the comparison of the seal to what it must see, and to a time that does not grow with the square of the tables. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { applicationTables, armFence, fenceGap } from '../../src/postgres/fence.js';
import { installRecord } from '../../src/postgres/record.js';
import { ensurePublication } from '../../src/postgres/streams.js';
import { warmUpSeal } from '../../src/postgres/warm-up.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ source: { major: 18 } });
const PUBLICATION = 'cutover_m1_forward';
const TABLES = 1_000;
const ROUNDS = 5;

let source: Connection;

beforeEach(async () => {
  source = await connect(clusters.source.endpoint(await freshDatabase(clusters.source)));
  await source.query(`
    CREATE TABLE public.item (id bigint PRIMARY KEY);
    CREATE TABLE public.other (id bigint PRIMARY KEY);
    CREATE TABLE public.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (1000);`);
  await installRecord(source, 'open');
  const tables = await applicationTables(source);
  await armFence(source, tables, 'always');
  await ensurePublication(
    source,
    PUBLICATION,
    tables.filter((t) => t.table !== 'parted'),
  );
});

afterEach(async () => {
  await source.end();
});

it('a partitioned parent and the marker of the record are no gap', async () => {
  const { rows } = await source.query(
    `SELECT FROM pg_publication_tables WHERE pubname = $1 AND schemaname = 'cutover' AND tablename = 'marker'`,
    [PUBLICATION],
  );
  expect(rows).toHaveLength(1);
  expect(await fenceGap(source, PUBLICATION)).toBeNull();
});

it.each([
  ['DROP TRIGGER cutover_fence_write ON public.item', 'a fence trigger of table public.item is disabled or missing'],
  ['ALTER TABLE public.item DISABLE TRIGGER cutover_fence_truncate', 'a fence trigger of table public.item'],
  ['ALTER TABLE public.item ENABLE TRIGGER cutover_fence_write', 'a fence trigger of table public.item'],
  [`ALTER PUBLICATION ${PUBLICATION} DROP TABLE public.item`, 'table public.item is fenced but not published'],
  [`ALTER PUBLICATION ${PUBLICATION} DROP TABLE public.parted_1`, 'table public.parted_1 is fenced but not published'],
  [
    `CREATE TABLE public.late (id int PRIMARY KEY); ALTER PUBLICATION ${PUBLICATION} ADD TABLE public.late`,
    'table public.late is published but not fenced',
  ],
])('a gap is seen by a connection that was warmed up before it came: %s', async (change, gap) => {
  await warmUpSeal(source, PUBLICATION);
  expect(await fenceGap(source, PUBLICATION)).toBeNull();
  await source.query(change);
  expect(await fenceGap(source, PUBLICATION)).toContain(gap);
});

it('with a thousand tables the comparison takes a few times as long as reading what it compares, not its square', async () => {
  await source.query(`DO $$ BEGIN
    FOR n IN 1..${TABLES.toString()} LOOP
      EXECUTE format('CREATE TABLE public.extra_%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)', n);
      EXECUTE format('CREATE TRIGGER cutover_fence_write BEFORE INSERT ON public.extra_%s
        FOR EACH STATEMENT EXECUTE FUNCTION cutover.refuse_write()', n);
      EXECUTE format('CREATE TRIGGER cutover_fence_truncate BEFORE TRUNCATE ON public.extra_%s
        FOR EACH STATEMENT EXECUTE FUNCTION cutover.refuse_write()', n);
      EXECUTE format('ALTER TABLE public.extra_%s ENABLE ALWAYS TRIGGER cutover_fence_write', n);
      EXECUTE format('ALTER PUBLICATION ${PUBLICATION} ADD TABLE public.extra_%s', n);
    END LOOP; END $$`);
  // As autovacuum does sooner or later: it is by these statistics that the planner once chose a nested loop.
  await source.query('ANALYZE');
  await warmUpSeal(source, PUBLICATION);
  expect(await fenceGap(source, PUBLICATION)).toBeNull();
  const compared = await shortest(() => fenceGap(source, PUBLICATION));
  const read = await shortest(() =>
    source.query(`SELECT (SELECT count(*) FROM pg_get_publication_tables('${PUBLICATION}')),
      (SELECT count(DISTINCT tgrelid) FROM pg_trigger WHERE tgname LIKE 'cutover_fence_%')`),
  );
  expect(compared / read).toBeLessThan(10);
});

/** Of several rounds, in milliseconds: other work on the machine makes a round longer, never shorter. */
async function shortest(work: () => Promise<unknown>): Promise<number> {
  let best = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await work();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}
