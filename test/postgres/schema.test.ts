/** One task: hold the schema's way from one server to another to its promises, on real servers. */
import { describe, expect, it } from 'vitest';
import { withConnection } from '../../src/postgres/connection.js';
import { dumpSchema } from '../../src/postgres/dump/dump.js';
import { applySchema, splitSchema } from '../../src/postgres/schema.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { ROLES, SCHEMA } from './schema-fixture.js';

const clusters = useClusters({ old: { major: 15 }, current: { major: 18 } });

async function roles(cluster: Cluster): Promise<void> {
  await cluster.query('postgres', `DO $$ BEGIN IF to_regrole('app_owner') IS NULL THEN ${ROLES} END IF; END $$`);
}

/** What must be equal on both sides: everything but the versions and what Cutover keeps for itself. */
async function comparable(cluster: Cluster, database: string): Promise<string> {
  const dump = await dumpSchema(cluster.endpoint(database));
  return dump.replace(/^-- Dumped .*$/gm, '');
}

/** Carries the schema of a database to a new database of `destination`, in the way a migration does. */
async function carried(source: Cluster, from: string, destination: Cluster): Promise<string> {
  await roles(destination);
  const to = await freshDatabase(destination);
  const dump = await dumpSchema(source.endpoint(from));
  const parts = splitSchema(dump, { destinationVersion: destination.major * 10000 });
  await withConnection(destination.endpoint(to), async (connection) => {
    await applySchema(connection, [...parts.pre, ...parts.primaryKeys], { ignoreExisting: false });
    await applySchema(connection, parts.post, { ignoreExisting: false, transaction: 'each' });
  });
  return to;
}

async function withSchema(cluster: Cluster): Promise<string> {
  await roles(cluster);
  const database = await freshDatabase(cluster);
  await cluster.query(database, SCHEMA);
  return database;
}

describe('a schema on the other side', () => {
  it.each([['old'], ['current']] as const)('is the same schema, %s to the same version', async (name) => {
    const from = await withSchema(clusters[name]);
    const to = await carried(clusters[name], from, clusters[name]);
    expect(await comparable(clusters[name], to)).toBe(await comparable(clusters[name], from));
  });

  // Each version prints a view in its own way, so what went to another version is compared when it has come back.
  it.each([
    ['old', 'current'],
    ['current', 'old'],
  ] as const)('is the same schema, %s to %s and back', async (source, destination) => {
    const from = await withSchema(clusters[source]);
    const there = await carried(clusters[source], from, clusters[destination]);
    const back = await carried(clusters[destination], there, clusters[source]);
    // Before 18 a NOT NULL has no name to remember.
    const unnamed = (dump: string): string => dump.replace(/ CONSTRAINT \w+_not_null NOT NULL/g, ' NOT NULL');
    expect(unnamed(await comparable(clusters[source], back))).toBe(unnamed(await comparable(clusters[source], from)));
  });
});
