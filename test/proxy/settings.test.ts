/** One task: what a client sets stays with it, and with nobody else, whichever server it gets. */
import { expect, test } from 'vitest';
import type pg from 'pg';
import type { Proxy } from '../../src/proxy/contract.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { clientOf, configFor, proxyFor } from './support.js';

const clusters = useClusters({ main: { major: 17 } });

async function start(defaultPoolSize = 1): Promise<Proxy> {
  const databaseName = await freshDatabase(clusters.main);
  return proxyFor({
    config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general: { defaultPoolSize } }),
  });
}

async function show(client: pg.Client, name: string): Promise<unknown> {
  const { rows } = await client.query<Record<string, unknown>>(`SHOW ${name}`);
  return Object.values(rows[0] ?? {})[0];
}

test('SET by one client is not seen by the next one on the same server', async () => {
  const proxy = await start();
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await first.query("SET statement_timeout = '7s'");
  await first.query("SET TIME ZONE 'Asia/Tokyo'");
  await first.query('SET search_path TO pg_catalog, public');
  await first.query("SET SESSION app.tenant = 'a;b'");
  expect(await show(second, 'statement_timeout')).toBe('0');
  expect(await show(second, 'TimeZone')).toBe('UTC');
  expect(await show(first, 'statement_timeout')).toBe('7s');
  expect(await show(first, 'TimeZone')).toBe('Asia/Tokyo');
  expect(await show(first, 'search_path')).toBe('pg_catalog, public');
  expect(await show(first, 'app.tenant')).toBe('a;b');
  expect(await show(second, 'search_path')).toBe('"$user", public');
});

test('settings of the startup packet hold on every server, and RESET goes back to them', async () => {
  const proxy = await start();
  const first = await clientOf(proxy, 'prod', {
    application_name: 'first',
    options: '-c statement_timeout=5000 -c work_mem=8MB',
  });
  const second = await clientOf(proxy, 'prod', { application_name: 'second' });
  expect(await show(second, 'work_mem')).toBe('4MB');
  expect(await show(second, 'application_name')).toBe('second');
  expect(await show(first, 'work_mem')).toBe('8MB');
  expect(await show(first, 'application_name')).toBe('first');
  await first.query("SET work_mem = '16MB'");
  await show(second, 'work_mem');
  expect(await show(first, 'work_mem')).toBe('16MB');
  await first.query('RESET work_mem');
  expect(await show(first, 'work_mem')).toBe('8MB');
  await first.query('RESET ALL');
  expect(await show(first, 'statement_timeout')).toBe('5s');
});

test('SET in a transaction counts when it commits, and not when it is rolled back', async () => {
  const proxy = await start();
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await first.query('BEGIN');
  await first.query("SET work_mem = '9MB'");
  await first.query('ROLLBACK');
  await show(second, 'work_mem');
  expect(await show(first, 'work_mem')).toBe('4MB');
  await first.query("BEGIN; SET work_mem = '9MB'; SET LOCAL statement_timeout = '1s'; COMMIT");
  expect(await show(second, 'work_mem')).toBe('4MB');
  expect(await show(first, 'work_mem')).toBe('9MB');
  expect(await show(first, 'statement_timeout')).toBe('0');
});

test('SET through the extended protocol and set_config of a reported parameter are followed too', async () => {
  const proxy = await start();
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await first.query({ name: 'memory', text: "SET work_mem = '10MB'" });
  await first.query("SELECT set_config('application_name', $1, false)", ["it's"]);
  expect(await show(second, 'work_mem')).toBe('4MB');
  expect(await show(second, 'application_name')).toBe('');
  expect(await show(first, 'work_mem')).toBe('10MB');
  expect(await show(first, 'application_name')).toBe("it's");
});

test('a role taken by one client is not left to the next one', async () => {
  const proxy = await start();
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await first.query(`CREATE ROLE guest_${process.pid.toString()}`);
  await first.query(`SET ROLE guest_${process.pid.toString()}`);
  const user = async (client: pg.Client): Promise<unknown> =>
    (await client.query('SELECT current_user AS name')).rows[0];
  expect(await user(second)).toEqual({ name: 'postgres' });
  expect(await user(first)).toEqual({ name: `guest_${process.pid.toString()}` });
  await first.query('RESET ROLE');
  expect(await user(first)).toEqual({ name: 'postgres' });
  await second.query(`DROP ROLE guest_${process.pid.toString()}`);
});

test('a setting the server does not accept ends that session with its reason, and no other', async () => {
  const proxy = await start();
  const good = await clientOf(proxy, 'prod');
  await good.query('SELECT 1');
  const bad = await clientOf(proxy, 'prod', { options: '-c no_such_setting=1' });
  await expect(bad.query('SELECT 1')).rejects.toMatchObject({
    code: '22023',
    message: expect.stringContaining('no_such_setting') as string,
  });
  expect((await good.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('LISTEN does not stay behind for the next client', async () => {
  const proxy = await start();
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const heard: string[] = [];
  second.on('notification', (message) => heard.push(message.channel));
  await first.query('LISTEN gossip');
  expect((await second.query('SELECT pg_listening_channels() AS channel')).rows).toEqual([]);
  await second.query('NOTIFY gossip');
  await second.query('SELECT 1');
  expect(heard).toEqual([]);
});

test('in session mode a listener hears what others tell', async () => {
  const databaseName = await freshDatabase(clusters.main);
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], {
    general: { defaultPoolSize: 2, poolerMode: 'session' },
  });
  const proxy = await proxyFor({ config });
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const heard = new Promise<pg.Notification>((resolve) => first.once('notification', resolve));
  await first.query('LISTEN gossip');
  await second.query("NOTIFY gossip, 'hello'");
  expect(await heard).toMatchObject({ payload: 'hello' });
});

test('what SQL has prepared does not stay behind, to be run by the next client under the same name', async () => {
  const proxy = await start();
  const [first, second] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const own = await first.query('BEGIN; PREPARE p AS SELECT 5 AS five; EXECUTE p; COMMIT');
  expect((own as unknown as pg.QueryResult[])[2]?.rows).toEqual([{ five: 5 }]);
  await expect(second.query('EXECUTE p')).rejects.toMatchObject({ code: '26000' });
  expect((await second.query('PREPARE p AS SELECT 6')).command).toBe('PREPARE');
});

test('in session mode a session keeps its server and everything in it; the next one finds it clean', async () => {
  const databaseName = await freshDatabase(clusters.main);
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], {
    general: { defaultPoolSize: 1, poolerMode: 'session' },
  });
  const proxy = await proxyFor({ config });
  const first = await clientOf(proxy, 'prod');
  await first.query("CREATE TEMP TABLE mine (a int); SET work_mem = '6MB'");
  await first.query('PREPARE p AS SELECT 5 AS five');
  expect((await first.query('EXECUTE p')).rows).toEqual([{ five: 5 }]);
  expect((await first.query('SELECT * FROM mine')).rows).toEqual([]);
  const second = await clientOf(proxy, 'prod');
  const answer = second.query("SELECT to_regclass('mine') AS mine, current_setting('work_mem') AS memory");
  await first.end();
  expect((await answer).rows).toEqual([{ mine: null, memory: '4MB' }]);
});
