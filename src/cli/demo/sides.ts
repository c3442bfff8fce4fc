/** One task: start the clusters of both sides, and make in them the roles and databases that a move finds. */
import { invariant } from '../../errors/invariant.js';
import { startCluster, type Cluster, type Major, type Place } from '../../dev/embedded-postgres.js';
import type { Cleanup } from './cleanup.js';
import type { Login } from './configuration.js';

export interface SidesOptions {
  readonly from: Major;
  readonly to: Major;
  /** how many databases the destination has, on two clusters in turn; absent: one, called as the source's */
  readonly shards?: number | undefined;
  /** the name of the source's database; each shard's has its number behind it */
  readonly database: string;
  /** on every cluster; who is schema_admin is a superuser, the other owns the databases */
  readonly logins: readonly Login[];
}

export interface Sides {
  readonly source: Place;
  /** shard by shard */
  readonly destination: readonly [Place, ...Place[]];
}

const CLUSTERS_OF_SHARDS = 2;
/** A shard takes part in writes on several of them, and each client of a coordinator has a connection to each. */
const SETTINGS_WITH_SHARDS: Readonly<Record<string, string>> = {
  max_connections: '300',
  max_prepared_transactions: '20',
  max_replication_slots: '40',
  max_wal_senders: '40',
  max_logical_replication_workers: '40',
  max_worker_processes: '60',
};

/** What was started is noted in `cleanup` at once. */
export async function startSides(options: SidesOptions, cleanup: Cleanup): Promise<Sides> {
  const { from, to, shards = 1, database, logins } = options;
  const clusters = Array.from({ length: Math.min(shards, CLUSTERS_OF_SHARDS) }, () => startOne(to, options, cleanup));
  const [source, first, ...others] = await allOrNothing([startOne(from, options, cleanup), ...clusters]);
  invariant(first, 'the destination has a cluster');
  const shard = (number: number): Place => ({
    cluster: others[(number % CLUSTERS_OF_SHARDS) - 1] ?? first,
    database: options.shards === undefined ? database : `${database}_${number.toString()}`,
  });
  const further = Array.from({ length: shards - 1 }, (_, index) => shard(index + 1));
  const sides: Sides = { source: { cluster: source, database }, destination: [shard(0), ...further] };
  for (const place of [sides.source, ...sides.destination]) await makeDatabase(place, logins);
  return sides;
}

/** Waits for all of them even when one fails, so that each has noted how it is taken down. */
export async function allOrNothing<T extends readonly unknown[]>(work: {
  readonly [K in keyof T]: Promise<T[K]>;
}): Promise<T> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}

async function startOne(major: Major, { shards, logins }: SidesOptions, cleanup: Cleanup): Promise<Cluster> {
  const settings = shards === undefined ? {} : SETTINGS_WITH_SHARDS;
  const cluster = await startCluster({ major, auth: 'scram', settings });
  cleanup.defer('a cluster', () => cluster.remove());
  const roles = logins.map(({ name, password, schemaAdmin }) => {
    return `CREATE ROLE ${name} LOGIN ${schemaAdmin ? 'SUPERUSER' : ''} PASSWORD '${password}'`;
  });
  await cluster.query('postgres', roles.join(';'));
  return cluster;
}

async function makeDatabase({ cluster, database }: Place, logins: readonly Login[]): Promise<void> {
  const owner = logins.find(({ schemaAdmin }) => !schemaAdmin);
  invariant(owner, 'an application owns its databases');
  await cluster.query('postgres', `CREATE DATABASE ${database} OWNER ${owner.name}`);
}
