/** One task: a client that changes the schema of a table while it is moved: refused by the program, or, where allowed, the end of the move. */
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { useSystem } from '../support/served.js';
import { until } from '../support/wait.js';

const system = useSystem({
  source: 17,
  destination: 18,
  // Preflight measures the nodes: a machine that is busy with other tests answers late.
  general: 'cutover_ddl = "refuse"\ncutover_lease = 20000',
  schema: `CREATE TABLE public.item (id bigint PRIMARY KEY, name text); INSERT INTO public.item VALUES (1, 'one');
    CREATE PUBLICATION all_tables FOR ALL TABLES;`,
});

const LEFT = `SELECT slot_name AS name FROM pg_replication_slots UNION ALL SELECT subname FROM pg_subscription
  UNION ALL SELECT pubname FROM pg_publication WHERE pubname <> 'all_tables'
  UNION ALL SELECT rolname FROM pg_roles WHERE rolname ~ '^cutover_'
  UNION ALL SELECT tgname FROM pg_trigger WHERE tgname ~ '^cutover_fence' UNION ALL SELECT id FROM cutover.migration WHERE active`;

/** Only a ceiling: every wait is for a condition. */
const DEADLINE_MS = 120_000;

describe('a schema change through the proxy while the streams run', { timeout: 2 * DEADLINE_MS }, () => {
  let task = '';

  it('is refused by the program, and the move goes on', async () => {
    const [started] = await system().admin<{ task_id: string }>('COPY_DATA prod prod_new all_tables');
    task = started?.task_id ?? '';
    await system().task('the streams run', (t) => t.id === task && t.inner_status === 'replicating', DEADLINE_MS);
    const client = await system().client();
    await expect(client.query('ALTER TABLE public.item ADD COLUMN note text')).rejects.toMatchObject({
      code: '55006',
      message: expect.stringMatching(/^ALTER TABLE is refused while migration \S+ carries/) as unknown,
    });
    await client.query(`INSERT INTO public.item VALUES (2, 'two')`);
    await client.end();
    await system().task('the streams run on', (t) => t.id === task && t.inner_status === 'replicating');
  });

  it('passes with cutover_ddl = "allow": the move fails by that reason and leaves nothing', async () => {
    const { source, destination, files } = system();
    writeFileSync(files.config, readFileSync(files.config, 'utf8').replace('"refuse"', '"allow"'));
    await system().admin('RELOAD');
    const client = await system().client();
    await client.query('ALTER TABLE public.item ADD COLUMN note text');
    const failed = await system().task(
      'the move has failed',
      (t) => t.id === task && t.status.startsWith('failed'),
      DEADLINE_MS,
    );
    expect(failed.status).toMatch(
      /ALTER TABLE on "prod" while migration \S+ carried its tables \(cutover_ddl = "allow"\); the migration is removed/,
    );
    await client.query(`INSERT INTO public.item VALUES (3, 'three', 'served as before')`);
    await client.end();
    const story = `SELECT type FROM cutover.event
      WHERE type = 'SchemaChanged' OR type = 'TaskFailed' AND data ->> 'reason' ~ 'ALTER TABLE' ORDER BY at`;
    for (const cluster of [source, destination]) {
      await until('nothing is left', async () => (await cluster.query('app', LEFT)).length === 0, DEADLINE_MS);
      const told = await cluster.query<{ type: string }>('app', story);
      expect(told.map(({ type }) => type)).toEqual(['SchemaChanged', 'TaskFailed', 'TaskFailed']);
    }
    expect(await destination.query('app', `SELECT FROM pg_tables WHERE schemaname = 'public'`)).toEqual([]);
  });
});
