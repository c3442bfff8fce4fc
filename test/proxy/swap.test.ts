/** One task: databases change places under load and no client reads an error or loses an acknowledged write. */
import { expect, test } from 'vitest';
import type pg from 'pg';
import type { Config, GeneralConfig } from '../../src/config/config.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor } from './support.js';

const clusters = useClusters({ source: { major: 15 }, destination: { major: 18 } });

interface Pair {
  readonly proxy: Proxy;
  readonly databaseName: string;
  readonly before: Config;
  readonly after: Config;
}

async function start(general: Partial<GeneralConfig> = {}): Promise<Pair> {
  const databaseName = await freshDatabase(clusters.source);
  await clusters.destination.createDatabase(databaseName);
  for (const cluster of Object.values(clusters)) {
    await cluster.query(databaseName, 'CREATE TABLE ledger (id text PRIMARY KEY)');
  }
  const source = { cluster: clusters.source, databaseName };
  const destination = { cluster: clusters.destination, databaseName };
  const before = configFor(
    [
      { name: 'prod', ...source },
      { name: 'prod_new', ...destination },
    ],
    { general },
  );
  const after = configFor(
    [
      { name: 'prod', ...destination },
      { name: 'prod_new', ...source },
    ],
    { general },
  );
  return { proxy: await proxyFor({ config: before }), databaseName, before, after };
}

async function majorOf(client: pg.Client): Promise<number | undefined> {
  const { rows } = await client.query<{ major: number }>(
    "SELECT current_setting('server_version_num')::int / 10000 AS major",
  );
  return rows[0]?.major;
}

test.each(['transaction', 'session'] as const)(
  'in %s mode, ten swaps under eight writers cost no error and no write',
  async (poolerMode) => {
    const { proxy, databaseName, before, after } = await start({ poolerMode, defaultPoolSize: 10 });
    const acknowledged = new Set<string>();
    let writing = true;
    const writer = async (name: string): Promise<void> => {
      const client = await clientOf(proxy, 'prod');
      for (let turn = 0; writing; turn += 1) {
        const id = `${name}-${turn.toString()}`;
        if (turn % 3 === 0) {
          await client.query('BEGIN');
          await client.query('INSERT INTO ledger VALUES ($1)', [id]);
          await client.query('COMMIT');
        } else if (turn % 3 === 1)
          await client.query({ name: 'insert', text: 'INSERT INTO ledger VALUES ($1)', values: [id] });
        else await client.query(`INSERT INTO ledger VALUES ('${id}')`);
        acknowledged.add(id);
      }
    };
    const writers = Array.from({ length: 8 }, (_, index) => writer(`w${index.toString()}`));
    const gate = proxy.gate('prod');
    for (let swap = 0; swap < 10; swap += 1) {
      const seen = acknowledged.size;
      await until('the writers write', () => acknowledged.size > seen + 30);
      gate.close('cutover');
      expect(await gate.drained(5_000)).toMatchObject({ drained: true });
      const [written] = await clusters[swap % 2 === 0 ? 'source' : 'destination'].query(
        databaseName,
        'SELECT count(*) AS n FROM ledger',
      );
      proxy.apply(swap % 2 === 0 ? after : before);
      const [still] = await clusters[swap % 2 === 0 ? 'source' : 'destination'].query(
        databaseName,
        'SELECT count(*) AS n FROM ledger',
      );
      expect(still).toEqual(written);
      gate.open('cutover');
    }
    writing = false;
    await Promise.all(writers);
    const sides = await Promise.all(
      Object.values(clusters).map((cluster) => cluster.query(databaseName, 'SELECT id FROM ledger')),
    );
    const stored = sides.flat().map((row) => row.id);
    expect(stored.sort()).toEqual([...acknowledged].sort());
  },
);

test('an idle session-mode client is served by the new side at its next statement, with its settings', async () => {
  const { proxy, after } = await start({ poolerMode: 'session' });
  const client = await clientOf(proxy, 'prod');
  await client.query("SET work_mem = '11MB'");
  expect(await majorOf(client)).toBe(15);
  proxy.gate('prod').close('cutover');
  expect(await proxy.gate('prod').drained(1_000)).toMatchObject({ drained: true });
  proxy.apply(after);
  proxy.gate('prod').open('cutover');
  expect(await majorOf(client)).toBe(18);
  expect((await client.query('SHOW work_mem')).rows).toEqual([{ work_mem: '11MB' }]);
});

test('a transaction open during the swap ends where it began', async () => {
  const { proxy, after } = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('BEGIN');
  expect(await majorOf(client)).toBe(15);
  proxy.apply(after);
  expect(await majorOf(client)).toBe(15);
  await client.query('COMMIT');
  expect(await majorOf(client)).toBe(18);
});

test('a client that waits for a busy server of the old side is served by the new one', async () => {
  const { proxy, databaseName } = await start({ defaultPoolSize: 1 });
  const [busy, waiting] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  await busy.query('BEGIN');
  const answer = majorOf(waiting);
  await until('the client waits', () => proxy.pools().some((pool) => pool.clientsWaiting === 1));
  proxy.apply(configFor([{ name: 'prod', cluster: clusters.destination, databaseName }]));
  expect(await answer).toBe(18);
  expect(await majorOf(busy)).toBe(15);
  await busy.query('COMMIT');
  expect(await majorOf(busy)).toBe(18);
});

test('the client is told what the new server reports differently', async () => {
  const { proxy, after } = await start();
  const client = await clientOf(proxy, 'prod');
  const versions: string[] = [];
  const { connection } = client as unknown as { connection: NodeJS.EventEmitter };
  connection.on('parameterStatus', (message: { parameterName: string; parameterValue: string }) => {
    if (message.parameterName === 'server_version') versions.push(message.parameterValue);
  });
  await majorOf(client);
  proxy.apply(after);
  await majorOf(client);
  expect(versions).toEqual([expect.stringMatching(/^18\./)]);
});

test('pools of a target that keeps its role are kept, those of a removed one are closed when idle', async () => {
  const { proxy, databaseName, before, after } = await start();
  const client = await clientOf(proxy, 'prod');
  const pid = async (): Promise<number> =>
    (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid ?? 0;
  const first = await pid();
  proxy.apply(after);
  const second = await pid();
  proxy.apply(before);
  expect(await pid()).toBe(first);
  proxy.apply(configFor([{ name: 'prod', cluster: clusters.destination, databaseName }]));
  expect(await pid()).toBe(second);
  await until('the old connections are closed', async () => {
    const rows = await clusters.source.query(
      'postgres',
      `SELECT 1 FROM pg_stat_activity WHERE datname = '${databaseName}'`,
    );
    return rows.length === 0;
  });
});

test('a client whose database is taken away reads it at its next statement', async () => {
  const { proxy, databaseName } = await start();
  const client = await clientOf(proxy, 'prod');
  await client.query('SELECT 1');
  proxy.apply(configFor([{ name: 'other', cluster: clusters.source, databaseName }]));
  await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '3D000' });
});

test('RECONNECT replaces idle connections at once and busy ones when they are given back', async () => {
  const { proxy } = await start();
  const [busy, idle] = await Promise.all([clientOf(proxy, 'prod'), clientOf(proxy, 'prod')]);
  const pid = async (client: pg.Client): Promise<number> =>
    (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid ?? 0;
  await busy.query('BEGIN');
  const [busyPid, idlePid] = [await pid(busy), await pid(idle)];
  proxy.reconnect('prod');
  expect(await pid(busy)).toBe(busyPid);
  await busy.query('COMMIT');
  const later = [await pid(busy), await pid(idle)];
  expect(later).not.toContain(busyPid);
  expect(later).not.toContain(idlePid);
});
