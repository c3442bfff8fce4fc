/** One task: the survey says of what a database has run where it would run on shards, as an operator sees it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { survey } from '../../src/cli/survey.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { SCHEMA_SQL } from './routing-context.js';

const clusters = useClusters({
  source: { major: 18, settings: { shared_preload_libraries: 'pg_stat_statements' } },
});
const folder = mkdtempSync(join(tmpdir(), 'cutover-survey-'));

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const RUN: readonly [times: number, sql: string][] = [
  [30, 'SELECT * FROM orders WHERE tenant_id = 7'],
  [20, "INSERT INTO tenants VALUES (1, 'a') ON CONFLICT DO NOTHING"],
  [10, 'SELECT * FROM products WHERE id = 3'],
  [5, 'SELECT count(*) FROM orders'],
  [4, 'UPDATE orders SET amount = 1'],
  [3, 'SELECT * FROM orders WHERE tenant_id = ANY (ARRAY[1, 2])'],
  [2, "INSERT INTO serials (label) VALUES ('x')"],
  [1, 'SET work_mem = 4096'],
];

async function reported(database: string, as: string): Promise<{ code: number; text: string }> {
  const { host, port, password } = clusters.source;
  const entry = (name: string, shard: number): string =>
    `[[databases]]\nname = "${name}"\nhost = "${host}"\nport = ${port.toString()}\ndatabase_name = "${database}"\nshard = ${shard.toString()}\n`;
  const tables = '[[sharded_tables]]\ndatabase = "later"\ncolumn = "tenant_id"\ndata_type = "bigint"\n';
  const files = { config: join(folder, 'pgdog.toml'), users: join(folder, 'users.toml') };
  writeFileSync(files.config, entry('prod', 0) + entry('later', 0) + entry('later', 1) + tables);
  writeFileSync(
    files.users,
    `[admin]\npassword = "x"\n[[users]]\nname = "postgres"\npassword = "${password}"\ndatabases = ["prod", "later"]\nschema_admin = true\n`,
  );
  let text = '';
  const code = await survey({ files, database: 'prod', as, limit: 1_000, write: (part) => (text += part) });
  return { code, text };
}

test('each statement is counted where it would run, and what would be refused says why', async () => {
  const database = await freshDatabase(clusters.source);
  await clusters.source.query(database, `CREATE EXTENSION pg_stat_statements; ${SCHEMA_SQL}`);
  await clusters.source.query(database, 'SELECT pg_stat_statements_reset()');
  for (const [times, sql] of RUN)
    for (let time = 0; time < times; time += 1) await clusters.source.query(database, sql);
  const { code, text } = await reported(database, 'later');
  const lines = text.split('\n');
  const ofClass = (name: string): string => lines.find((line) => line.startsWith(`${name} `)) ?? '';
  expect(ofClass('one shard')).toMatch(/^one shard +3 statements/);
  // The reset is one of them: a function of an extension may read tables.
  expect(ofClass('coordinator')).toMatch(/^coordinator +2 statements/);
  expect(ofClass('several shards')).toMatch(/^several shards +1 statements/);
  expect(ofClass('session')).toMatch(/^session +1 statements/);
  expect(text).toContain('several shards: 4 calls: UPDATE orders SET amount = $1\n');
  expect(text).toContain('coordinator: 5 calls: SELECT count(*) FROM orders\n');
  expect(text).toContain(
    'refused: 2 calls: INSERT INTO serials (label) VALUES ($1) (it writes a table of every shard with values that each shard',
  );
  expect(code).toBe(2);
});

test('without the extension the error is PostgreSQL’s own', async () => {
  const database = await freshDatabase(clusters.source);
  await expect(reported(database, 'later')).rejects.toThrow(/pg_stat_statements/);
});
