/** One task: hold the embedded PostgreSQL clusters to what the tests and the demo rely on. */
import { existsSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { isPackaged, startCluster, type Cluster, type Major } from '../../src/dev/embedded-postgres.js';
import { isRunning } from '../../src/dev/processes.js';

const MAJORS = [14, 15, 16, 17, 18] as const satisfies readonly Major[];
const started: Cluster[] = [];

async function start(options: Parameters<typeof startCluster>[0]): Promise<Cluster> {
  const cluster = await startCluster(options);
  started.push(cluster);
  return cluster;
}

afterEach(async () => {
  await Promise.all(started.splice(0).map((cluster) => cluster.remove()));
});

describe('an embedded cluster', () => {
  test.for(MAJORS)('of major %i is that major and can publish and subscribe', async (major, context) => {
    context.skip(!isPackaged(major), `PostgreSQL ${major.toString()} is not packaged for this platform`);
    const cluster = await start({ major });
    const [row] = await cluster.query(
      'postgres',
      `SELECT current_setting('server_version_num')::int / 10000 AS major, current_setting('wal_level') AS wal,
              current_setting('fsync') AS fsync, current_setting('max_prepared_transactions')::int AS prepared`,
    );
    expect(row).toEqual({ major, wal: 'logical', fsync: 'on', prepared: 10 });
    expect([5432, 6432, 7233]).not.toContain(cluster.port);
  });

  test('keeps what was committed when it is killed, and comes back on the same port', async () => {
    const cluster = await start({ major: 18 });
    await cluster.createDatabase('app');
    await cluster.query('app', 'CREATE TABLE t (id int); INSERT INTO t VALUES (1)');
    const { pid, port } = cluster;
    await cluster.kill();
    expect(isRunning(pid)).toBe(false);
    await cluster.start();
    expect(cluster.port).toBe(port);
    expect(await cluster.query('app', 'SELECT id FROM t')).toEqual([{ id: 1 }]);
  });

  test('refuses a wrong password when it was started with SCRAM', async () => {
    const cluster = await start({ major: 17, auth: 'scram' });
    expect(await cluster.query('postgres', 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    const { default: pg } = await import('pg');
    const stranger = new pg.Client({ ...cluster.endpoint('postgres'), password: 'wrong' });
    await expect(stranger.connect()).rejects.toMatchObject({ code: '28P01' });
  });

  test('its log has no password, however much it is told to write down', async () => {
    const settings = { log_statement: 'all', log_min_duration_statement: '0' };
    const cluster = await start({ major: 18, settings });
    await cluster.query('postgres', 'SELECT 1 AS seen');
    expect(cluster.log).toContain('SELECT 1 AS seen');
    expect(cluster.log).not.toContain(cluster.password);
  });

  test('is another than each other one: by its identity, and by its password', async () => {
    const clusters = await Promise.all([start({ major: 17, auth: 'scram' }), start({ major: 17, auth: 'scram' })]);
    const rows = await Promise.all(
      clusters.map((cluster) => cluster.query('postgres', 'SELECT system_identifier FROM pg_control_system()')),
    );
    expect(new Set(rows.map(([row]) => row?.system_identifier)).size).toBe(2);
    const [one, other] = clusters;
    const { default: pg } = await import('pg');
    const stranger = new pg.Client({ ...one.endpoint('postgres'), password: other.password });
    await expect(stranger.connect()).rejects.toMatchObject({ code: '28P01' });
  });

  test('leaves no directory behind when it is removed', async () => {
    const cluster = await start({ major: 18 });
    await cluster.remove();
    expect(existsSync(cluster.directory)).toBe(false);
  });

  test('says what the server logged when a setting is wrong', async () => {
    await expect(start({ major: 18, settings: { shared_buffers: 'plenty' } })).rejects.toThrow(/shared_buffers/);
  });
});
