/** One task: see a move end well when the destination refuses the schema: told, recorded, nothing left. */
import { describe, expect, it } from 'vitest';
import { useSystem } from '../support/served.js';

const system = useSystem({
  source: 17,
  destination: 18,
  schema: `CREATE TABLE public.item (id bigint PRIMARY KEY, name text);
    CREATE TABLE public.other (id bigint PRIMARY KEY);
    CREATE PUBLICATION all_tables FOR ALL TABLES;`,
});

describe('a schema the destination refuses', () => {
  it('fails the task with the reason, also in the record, and leaves nothing on either side', async () => {
    const { source, destination } = system();
    await destination.query('app', 'CREATE VIEW public.item AS SELECT 1 AS id');
    await system().admin('RESHARD prod prod_new all_tables');
    const failed = await system().task(
      'the move has failed',
      (t) => t.type === 'reshard prod -> prod_new' && t.status.startsWith('failed'),
    );
    expect(failed.status).toContain('item');
    const events = await source.query(
      'app',
      `SELECT data ->> 'reason' AS reason FROM cutover.event WHERE type = 'TaskFailed'`,
    );
    expect(events).toHaveLength(1);
    const tables = await destination.query('app', `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`);
    expect(tables).toEqual([]);
    for (const cluster of [source, destination]) {
      expect(await cluster.query('app', `SELECT tgname FROM pg_trigger WHERE tgname ~ '^cutover_'`)).toEqual([]);
      expect(await cluster.query('app', 'SELECT subname FROM pg_subscription')).toEqual([]);
      expect(await cluster.query('app', 'SELECT slot_name FROM pg_replication_slots')).toEqual([]);
    }
    await destination.query('app', 'DROP VIEW public.item');
    await system().admin('RESHARD prod prod_new all_tables');
    await system().task('the next one moves', (t) => t.type.includes('(reverse)'));
  });
});
