/** One task: a client that would change the schema of a migrated table reads why not, and everything else of its session goes on. */
import { expect, test } from 'vitest';
import type { Proxy, SchemaGuard } from '../../src/proxy/contract.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { clientOf, configFor, proxyFor } from './support.js';

const clusters = useClusters({ only: { major: 18 } });

async function start(): Promise<{ proxy: Proxy; databaseName: string; readonly guard: (on: boolean) => void }> {
  const databaseName = await freshDatabase(clusters.only);
  await clusters.only.query(databaseName, 'CREATE TABLE item (id int)');
  const config = configFor([{ name: 'prod', cluster: clusters.only, databaseName }]);
  let guard: SchemaGuard | null = { migration: 'abc_1', tables: new Set(['item']), allowed: false };
  const hooks = { onFenceRefusal: () => Promise.reject(new Error('unused')), schemaGuard: () => guard };
  const proxy = await proxyFor({ config, hooks });
  return {
    ...{ proxy, databaseName },
    guard: (on) => {
      guard = on ? { migration: 'abc_1', tables: new Set(['item']), allowed: false } : null;
    },
  };
}

const REFUSED = {
  code: '55006',
  message: 'ALTER TABLE is refused while migration abc_1 carries the tables of "prod"',
  hint: expect.stringMatching(/cutover_ddl = "allow"/) as string,
};

test('simple, extended, prepared, and inside a text of several statements', async () => {
  const { proxy } = await start();
  const client = await clientOf(proxy, 'prod');
  const alter = 'ALTER TABLE item ADD COLUMN extra int';
  await expect(client.query(alter)).rejects.toMatchObject(REFUSED);
  await expect(client.query({ text: alter, values: [] })).rejects.toMatchObject(REFUSED);
  await expect(client.query({ name: 'alter', text: alter })).rejects.toMatchObject(REFUSED);
  await expect(client.query(`INSERT INTO item VALUES (1); ${alter}`)).rejects.toMatchObject(REFUSED);
  // The text of several is one transaction: nothing of it was done.
  expect((await client.query('SELECT * FROM item')).rows).toEqual([]);
});

test('a transaction is aborted by it as by any error, and the session goes on', async () => {
  const { proxy } = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('BEGIN; INSERT INTO item VALUES (1)');
  await expect(client.query('DROP TABLE item')).rejects.toMatchObject({ code: '55006' });
  await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
  await client.query('ROLLBACK');
  await client.query('INSERT INTO item VALUES (2)');
  expect((await client.query('SELECT id FROM item')).rows).toEqual([{ id: 2 }]);
});

test('the application goes on with its own tables, and with these once nothing carries them', async () => {
  const { proxy, guard } = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('CREATE TEMP TABLE scratch (id int); DROP TABLE scratch');
  await client.query({ text: 'TRUNCATE item', values: [] });
  guard(false);
  await client.query('ALTER TABLE item ADD COLUMN extra int');
  guard(true);
  await expect(client.query('ALTER TABLE item DROP COLUMN extra')).rejects.toMatchObject({ code: '55006' });
});
