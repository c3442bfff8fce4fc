/** One task: with dns_ttl, connections leave a server whose name leads elsewhere, not in a pause and not for a name with several addresses. */
import { expect, test } from 'vitest';
import type { Proxy } from '../../src/proxy/contract.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor } from './support.js';

const clusters = useClusters({ main: { major: 18 } });

/** A proxy that reaches the server by a name, and is told of it what `addresses` says at the time. */
async function start(addresses: () => readonly string[]): Promise<{ proxy: Proxy; looks: () => number }> {
  const databaseName = await freshDatabase(clusters.main);
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { general: { dnsTtlMs: 1 } });
  const databases = config.databases.map((entry) => ({ ...entry, host: 'localhost' }));
  let looks = 0;
  const resolve = (): Promise<readonly string[]> => {
    looks += 1;
    const found = addresses();
    return found.length > 0 ? Promise.resolve(found) : Promise.reject(new Error('ENOTFOUND'));
  };
  return { proxy: await proxyFor({ config: { ...config, databases }, resolve }), looks: () => looks };
}

test('a name that leads elsewhere has its connections made anew, but not while clients are held', async () => {
  let addresses: readonly string[] = ['192.0.2.1', '192.0.2.2'];
  const { proxy, looks } = await start(() => addresses);
  const client = await clientOf(proxy, 'prod');
  const pid = async (): Promise<unknown> => (await client.query('SELECT pg_backend_pid() AS pid')).rows[0];
  const looked = async (): Promise<void> => {
    const before = looks();
    await until('it has looked again', () => looks() > before);
  };
  const first = await pid();
  for (const same of [['192.0.2.2', '192.0.2.3'], [], ['192.0.2.3']]) {
    addresses = same;
    await looked();
    expect(await pid()).toEqual(first);
  }
  proxy.gate('prod').close('cutover');
  addresses = ['192.0.2.9'];
  await looked();
  expect(proxy.servers()).toHaveLength(1);
  proxy.gate('prod').open('cutover');
  await until('the connection is closed', () => proxy.servers().length === 0);
  const second = await pid();
  expect(second).not.toEqual(first);
  await looked();
  expect(await pid()).toEqual(second);
});

test('a transaction keeps its connection to the end', async () => {
  let addresses: readonly string[] = ['192.0.2.1'];
  const { proxy, looks } = await start(() => addresses);
  const client = await clientOf(proxy, 'prod');
  await client.query('BEGIN; CREATE TABLE kept (n int)');
  await until('it has looked', () => looks() > 0);
  addresses = ['192.0.2.9'];
  const before = looks();
  await until('it has looked again', () => looks() > before);
  await client.query('COMMIT');
  await until('then it is closed', () => proxy.servers().length === 0);
  expect((await client.query('SELECT count(*)::int AS n FROM kept')).rows).toEqual([{ n: 0 }]);
});
