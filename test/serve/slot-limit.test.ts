/** One task: a slot beyond its limit ends a migration that is not committed, is told of, and leaves nothing on either side. */
import { expect, it } from 'vitest';
import { useSystem } from '../support/served.js';
import { until } from '../support/wait.js';

const system = useSystem({
  source: 17,
  destination: 18,
  // A slot always keeps some WAL: one byte is too much of it from the beginning.
  general: 'cutover_retained_wal_limit = 1\ncutover_slot_limit_action = "abort"',
  schema: `CREATE TABLE public.item (id bigint PRIMARY KEY, name text); INSERT INTO public.item VALUES (1, 'one');
    CREATE PUBLICATION all_tables FOR ALL TABLES;`,
});

it('the task fails with the reason, the alarm is in the record, and nothing is left', { timeout: 60_000 }, async () => {
  const { source, destination } = system();
  await system().admin('COPY_DATA prod prod_new all_tables');
  const failed = await system().task(
    'the move has failed',
    (t) => t.type === 'copy_data prod -> prod_new' && t.status.startsWith('failed'),
  );
  expect(failed.status).toMatch(/slot cutover_\S+_forward: retained WAL \d+ bytes, limit 1; the migration is removed/);
  const alarms = await source.query('app', `SELECT FROM cutover.event WHERE type = 'LimitExceeded'`);
  expect(alarms).toHaveLength(1);
  const left = `SELECT slot_name AS name FROM pg_replication_slots UNION ALL SELECT subname FROM pg_subscription
    UNION ALL SELECT pubname FROM pg_publication WHERE pubname <> 'all_tables'
    UNION ALL SELECT rolname FROM pg_roles WHERE rolname ~ '^cutover_'
    UNION ALL SELECT tgname FROM pg_trigger WHERE tgname ~ '^cutover_fence' UNION ALL SELECT id FROM cutover.migration WHERE active`;
  for (const cluster of [source, destination])
    await until('nothing is left', async () => (await cluster.query('app', left)).length === 0);
  expect(await destination.query('app', `SELECT FROM pg_tables WHERE schemaname = 'public'`)).toEqual([]);
  const client = await system().client();
  // The node hears of the end as it hears of the beginning, by looking.
  await until('the tables are the application’s again', () =>
    client.query('ALTER TABLE public.item ADD COLUMN IF NOT EXISTS free int').then(() => true),
  );
  await client.end();
});
