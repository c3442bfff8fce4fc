/** One task: the defect "a failover slot that blocks cleanup": a standby that syncs the slot and has stopped keeps nobody from removing it. */
import { expect, it, onTestFinished } from 'vitest';
import { removeMigration } from '../../activities/ending.js';
import { startStandby, type Cluster } from '../../src/dev/embedded-postgres.js';
import { childrenOf, signalProcess } from '../../src/dev/processes.js';
import { streamName } from '../../src/postgres/streams.js';
import { usePair, type Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

const pairOf = usePair({ source: 17, destination: 18 });

const LOGICAL = `SELECT slot_name AS name FROM pg_replication_slots WHERE slot_type = 'logical'`;
const INSERT = `INSERT INTO public.item (name) VALUES ('for the standby')`;

async function set(cluster: Cluster, settings: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, value] of Object.entries(settings))
    await cluster.query('postgres', `ALTER SYSTEM SET ${name} = '${value}'`);
  await cluster.query('postgres', 'SELECT pg_reload_conf()');
}

/** As an operator makes a standby that takes over logical slots (PostgreSQL documentation, 47.2.3). */
async function syncingStandby(primary: Cluster): Promise<Cluster> {
  await primary.query('postgres', `SELECT pg_create_physical_replication_slot('heir', true)`);
  const standby = await startStandby(primary, 'heir');
  onTestFinished(() => standby.remove());
  const [line] = await standby.query<{ conninfo: string }>(
    'postgres',
    `SELECT current_setting('primary_conninfo') AS conninfo`,
  );
  await set(standby, {
    primary_conninfo: `${line?.conninfo ?? ''} dbname=postgres`,
    primary_slot_name: 'heir',
    hot_standby_feedback: 'on',
    sync_replication_slots: 'on',
  });
  await set(primary, { synchronized_standby_slots: 'heir' });
  return standby;
}

async function makeFailover({ source, destination }: Pair, slot: string): Promise<void> {
  await destination.query('app', `ALTER SUBSCRIPTION ${slot} DISABLE`);
  const active = `SELECT FROM pg_replication_slots WHERE slot_name = '${slot}' AND active`;
  await until('the slot is free', async () => (await source.query('app', active)).length === 0);
  await until('the slot follows', () =>
    destination.query('app', `ALTER SUBSCRIPTION ${slot} SET (failover = true)`).then(() => true),
  );
  await destination.query('app', `ALTER SUBSCRIPTION ${slot} ENABLE`);
}

it('a failover slot blocks cleanup: one that a stopped standby syncs is removed there too, once it goes on', async () => {
  const pair = pairOf();
  const { source, destination, context, migration } = pair;
  const slot = streamName(migration.id, 'forward');
  const standby = await syncingStandby(source);
  await makeFailover(pair, slot);
  const synced = `SELECT FROM pg_replication_slots WHERE slot_name = '${slot}' AND synced AND NOT temporary`;
  await until(
    'the standby has the slot',
    async () => {
      await source.query('app', INSERT);
      await source.query('app', 'SELECT pg_log_standby_snapshot()');
      return (await standby.query('postgres', synced)).length === 1;
    },
    60_000,
  );
  await expect(standby.query('postgres', `SELECT pg_drop_replication_slot('${slot}')`)).rejects.toThrow(
    `cannot drop replication slot "${slot}"`,
  );

  const family = [standby.pid, ...childrenOf(standby.pid)];
  for (const pid of family) signalProcess(pid, 'SIGSTOP');
  await source.query('app', INSERT);
  const blocked = `SELECT FROM pg_stat_activity WHERE wait_event = 'WaitForStandbyConfirmation'`;
  await until('its walsender waits for the standby', async () => (await source.query('app', blocked)).length > 0);
  await removeMigration(context, migration);
  for (const cluster of [source, destination]) expect(await cluster.query('app', LOGICAL)).toEqual([]);

  for (const pid of family) signalProcess(pid, 'SIGCONT');
  await until(
    'the standby has let go of its copy',
    async () => {
      // Its worker rests for up to half a minute when nothing happens; a reload wakes it.
      await standby.query('postgres', 'SELECT pg_reload_conf()');
      return (await standby.query('postgres', LOGICAL)).length === 0;
    },
    60_000,
  );
});
