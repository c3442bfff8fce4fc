/** One task: a whole database, two shards that have its rows between them, and their coordinator. */
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect, withConnection, type Connection } from '../../src/postgres/connection.js';
import { createCoordinatorDatabase } from '../../src/postgres/coordinator/database.js';
import { makeCoordinator, type MadeCoordinator } from '../../src/postgres/coordinator/make.js';
import type { CoordinatorSpec } from '../../src/postgres/coordinator/spec.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { freshDatabase } from '../support/clusters.js';
import { APP_PASSWORD, APP_ROLE, keepRowsOf, placementOf, ROLES, ROWS, SCHEMA } from './coordinator-fixture.js';

export interface Sharded {
  readonly whole: string;
  readonly shards: readonly string[];
  readonly coordinator: string;
  readonly spec: CoordinatorSpec;
  readonly made: MadeCoordinator;
}

export async function makeSharded(cluster: Cluster): Promise<Sharded> {
  await makeRoles(cluster);
  const whole = await freshDatabase(cluster, 'whole');
  // A new label of an enumeration is used in a later transaction.
  await cluster.query(whole, SCHEMA);
  await cluster.query(whole, ROWS);
  const shards: string[] = [];
  for (const shard of [0, 1]) {
    const name = `${whole}_shard_${shard.toString()}`;
    await cluster.query('postgres', `CREATE DATABASE "${name}" TEMPLATE "${whole}"`);
    await cluster.query('postgres', `ALTER DATABASE "${name}" SET "TimeZone" TO 'America/New_York'`);
    await cluster.query('postgres', `ALTER DATABASE "${name}" SET search_path TO app, "$user", public`);
    await cluster.query(name, keepRowsOf(shard));
    // A copy of the whole has the same ctid for the same row; a shard that was filled by itself has not.
    await cluster.query(name, 'VACUUM FULL app.reading');
    shards.push(name);
  }
  const spec: CoordinatorSpec = {
    shards: shards.map((name) => cluster.endpoint(name)),
    placementOf,
    users: [{ role: APP_ROLE, logins: shards.map(() => ({ user: APP_ROLE, password: APP_PASSWORD })) }],
  };
  const coordinator = `coordinator_of_${whole}`;
  await createDatabase(cluster, coordinator, shards[0] ?? '');
  const made = await withConnection(cluster.endpoint(coordinator), (connection) => makeCoordinator(connection, spec));
  return { whole, shards, coordinator, spec, made };
}

export async function makeRoles(cluster: Cluster): Promise<void> {
  await cluster.query('postgres', `DO $$ BEGIN IF to_regrole('${APP_ROLE}') IS NULL THEN ${ROLES} END IF; END $$`);
}

export async function createDatabase(cluster: Cluster, name: string, shard: string): Promise<void> {
  await withConnection(cluster.endpoint('postgres'), (maintenance) =>
    withConnection(cluster.endpoint(shard), (connection) => createCoordinatorDatabase(maintenance, name, connection)),
  );
}

/** As the application, with the settings that the database gives it. */
export async function connectApp(cluster: Cluster, database: string): Promise<Connection> {
  const endpoint: Endpoint = { ...cluster.endpoint(database), user: APP_ROLE, password: APP_PASSWORD };
  const connection = await connect(endpoint);
  await connection.query('SET search_path TO app, public');
  return connection;
}
