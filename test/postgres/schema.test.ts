/** One task: hold the schema's way from one server to another to its promises, on real servers. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect, withConnection, type Connection } from '../../src/postgres/connection.js';
import { dumpSchema } from '../../src/postgres/dump/dump.js';
import { insertMigration } from '../../src/postgres/migrations.js';
import { installRecord, readIdentity } from '../../src/postgres/record.js';
import { applySchema, dropAppliedSchema, splitSchema, type SchemaParts } from '../../src/postgres/schema.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
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
  const parts = await splitSchema(dump, { destinationVersion: destination.major * 10000 });
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

/** Everything in the database that is not PostgreSQL's own or Cutover's: nothing of it may be left behind. */
async function objects(cluster: Cluster, database: string): Promise<readonly string[]> {
  const rows = await cluster.query<{ name: string }>(
    database,
    `SELECT pg_describe_object('pg_class'::regclass, oid, 0) AS name FROM pg_class WHERE oid >= 16384 AND relnamespace::regnamespace::text NOT IN ('cutover', 'pg_toast')
     UNION SELECT 'schema ' || nspname FROM pg_namespace WHERE oid >= 16384 AND nspname <> 'cutover'
     UNION SELECT 'type ' || typname FROM pg_type WHERE oid >= 16384 AND typnamespace::regnamespace::text NOT IN ('cutover', 'pg_toast')
     UNION SELECT 'function ' || proname FROM pg_proc WHERE oid >= 16384 AND pronamespace::regnamespace::text <> 'cutover'
     UNION SELECT 'extension ' || extname FROM pg_extension WHERE oid >= 16384
     UNION SELECT 'default privileges' FROM pg_default_acl
     ORDER BY 1`,
  );
  return rows.map((row) => row.name);
}

async function partsOf(cluster: Cluster, database: string): Promise<SchemaParts> {
  return splitSchema(await dumpSchema(cluster.endpoint(database)), { destinationVersion: 180000 });
}

/** A destination that belongs to a migration: fenced, and held by it. */
async function claimed(cluster: Cluster): Promise<{ database: string; connection: Connection }> {
  await roles(cluster);
  const database = await freshDatabase(cluster);
  const connection = await connect(cluster.endpoint(database));
  open.push(connection);
  await installRecord(connection, 'closed');
  const side = await readIdentity(connection);
  await insertMigration(connection, {
    id: 'm1',
    owner: 'test',
    operation: null,
    database: 'prod',
    peer: 'prod_new',
    source: side,
    destination: side,
    publication: '',
  });
  return { database, connection };
}

const open: Connection[] = [];
afterEach(async () => {
  for (const connection of open.splice(0)) await connection.end();
});

const BROKEN = `CREATE TABLE public.a (id int PRIMARY KEY); CREATE SCHEMA app; CREATE TABLE app.b (id int PRIMARY KEY);
  CREATE TABLE app.c (id int PRIMARY KEY, b int REFERENCES app.b (id), v text); CREATE INDEX c_v ON app.c (v)`;

describe('making a schema', () => {
  it('that is refused leaves nothing behind, and names the statement', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, BROKEN);
    const { pre, primaryKeys } = await partsOf(clusters.current, from);
    const { database, connection } = await claimed(clusters.current);
    await clusters.current.query(database, 'CREATE TABLE public.app_c_pkey (id int); CREATE SCHEMA other');
    const before = await objects(clusters.current, database);
    const wrong = [...pre, ...primaryKeys].map((s) => ({
      ...s,
      text: s.text.replace('ADD CONSTRAINT c_pkey', 'ADD CONSTRAINTT c_pkey'),
    }));
    await expect(applySchema(connection, wrong, { ignoreExisting: true })).rejects.toMatchObject({
      code: 'schema_failed',
      message: expect.stringMatching(/syntax error.*\(statement: ALTER TABLE ONLY app\.c\)/) as string,
    });
    expect(await objects(clusters.current, database)).toEqual(before);
  });

  it('again, by a repeated activity, changes nothing and fails nothing', async () => {
    const from = await withSchema(clusters.current);
    const { pre, primaryKeys, post } = await partsOf(clusters.current, from);
    const { database, connection } = await claimed(clusters.current);
    const make = async (): Promise<{ applied: number; existing: number }> => {
      await applySchema(connection, [...pre, ...primaryKeys], { ignoreExisting: false });
      return applySchema(connection, post, { ignoreExisting: false, transaction: 'each' });
    };
    await make();
    const once = await comparable(clusters.current, database);
    expect((await make()).existing).toBeGreaterThan(10);
    expect(await comparable(clusters.current, database)).toBe(once);
  });

  it('twice at once makes it once', async () => {
    const from = await withSchema(clusters.current);
    const { pre, primaryKeys, post } = await partsOf(clusters.current, from);
    const { database, connection } = await claimed(clusters.current);
    const other = await connect(clusters.current.endpoint(database));
    open.push(other);
    await Promise.all(
      [connection, other].map(async (one) => {
        await applySchema(one, [...pre, ...primaryKeys], { ignoreExisting: false });
        await applySchema(one, post, { ignoreExisting: false, transaction: 'each' });
      }),
    );
    expect(await comparable(clusters.current, database)).toBe(await comparable(clusters.current, from));
  });

  it('is not ended by a deadlock with what is applied meanwhile', async () => {
    const { database, connection } = await claimed(clusters.current);
    await clusters.current.query(
      database,
      'CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (id int)',
    );
    const applying = await connect(clusters.current.endpoint(database));
    open.push(applying);
    await applying.query(`SET deadlock_timeout = '60s'; BEGIN; LOCK TABLE public.a IN ROW EXCLUSIVE MODE`);
    await connection.query(`SET deadlock_timeout = '500ms'`);
    const text = 'ALTER TABLE ONLY public.b ADD CONSTRAINT b_a FOREIGN KEY (id) REFERENCES public.a (id);';
    const entry = { number: 1, type: 'FK CONSTRAINT', schema: 'public', name: 'b b_a' };
    const key = { entry, text, settings: new Map<string, string>(), drop: null };
    const made = applySchema(connection, [key], { ignoreExisting: false, transaction: 'each' });
    const waits = `SELECT FROM pg_locks WHERE relation = 'public.a'::regclass AND NOT granted`;
    await until('the constraint waits', async () => (await clusters.current.query(database, waits)).length > 0);
    // Answered once the other one was given up.
    await applying.query('LOCK TABLE public.b IN ROW EXCLUSIVE MODE; COMMIT');
    expect(await made).toEqual({ applied: 1, existing: 0 });
  });

  it('after a worker died between two indexes goes on where it ended', async () => {
    const from = await withSchema(clusters.current);
    const { pre, primaryKeys, post } = await partsOf(clusters.current, from);
    const { database, connection } = await claimed(clusters.current);
    await applySchema(connection, [...pre, ...primaryKeys], { ignoreExisting: false });
    let seen = 0;
    const dies = applySchema(connection, post, {
      ignoreExisting: false,
      transaction: 'each',
      onStatement: () => {
        seen += 1;
        if (seen === 5) throw new Error('the worker died');
      },
    });
    await expect(dies).rejects.toThrow('the worker died');
    const rest = await applySchema(connection, post, { ignoreExisting: false, transaction: 'each' });
    expect(rest.existing).toBeGreaterThanOrEqual(3);
    expect(await comparable(clusters.current, database)).toBe(await comparable(clusters.current, from));
  });

  it('does not take an object of somebody else for its own, unless told so', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, 'CREATE TABLE public.item (id int PRIMARY KEY)');
    const { pre, primaryKeys } = await partsOf(clusters.current, from);
    const { database, connection } = await claimed(clusters.current);
    await clusters.current.query(database, 'CREATE TABLE public.item (other int)');
    await expect(applySchema(connection, pre, { ignoreExisting: false })).rejects.toThrow(/"item" already exists/);
    await clusters.current.query(database, 'DROP TABLE public.item; CREATE TABLE public.item (id int PRIMARY KEY)');
    const result = await applySchema(connection, [...pre, ...primaryKeys], { ignoreExisting: true });
    expect(result.existing).toBe(2);
  });

  it('accepts an extension that is there from the beginning', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, 'CREATE EXTENSION hstore');
    const { pre } = await partsOf(clusters.current, from);
    const { database, connection } = await claimed(clusters.current);
    await clusters.current.query(database, 'CREATE EXTENSION hstore');
    await applySchema(connection, pre, { ignoreExisting: false });
    await dropAppliedSchema(connection);
    expect(await objects(clusters.current, database)).toContain('extension hstore');
  });

  it('leaves the settings of the session as they were', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, 'CREATE TABLE public.item (id int PRIMARY KEY)');
    const { connection } = await claimed(clusters.current);
    await applySchema(connection, (await partsOf(clusters.current, from)).pre, { ignoreExisting: false });
    const { rows } = await connection.query('SHOW search_path');
    expect(rows).toEqual([{ search_path: 'pg_catalog' }]);
  });
});

describe('taking a schema away', () => {
  const all = async (connection: Connection, parts: SchemaParts): Promise<void> => {
    await applySchema(connection, [...parts.pre, ...parts.primaryKeys], { ignoreExisting: true });
    await applySchema(connection, parts.post, { ignoreExisting: true, transaction: 'each' });
  };

  it('leaves what was there before, and nothing else', async () => {
    const from = await withSchema(clusters.current);
    const { database, connection } = await claimed(clusters.current);
    await clusters.current.query(database, 'CREATE TABLE public.mine (id int PRIMARY KEY); CREATE EXTENSION hstore');
    const before = await objects(clusters.current, database);
    await all(connection, await partsOf(clusters.current, from));
    expect(await dropAppliedSchema(connection)).toBeGreaterThan(30);
    expect(await objects(clusters.current, database)).toEqual(before);
    expect(await dropAppliedSchema(connection)).toBe(0);
  });

  it('keeps an object that was there under the same name', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(
      from,
      'CREATE TABLE public.item (id int PRIMARY KEY); CREATE TABLE public.made (id int)',
    );
    const { database, connection } = await claimed(clusters.current);
    await clusters.current.query(
      database,
      'CREATE TABLE public.item (id int PRIMARY KEY); INSERT INTO item VALUES (1)',
    );
    await all(connection, await partsOf(clusters.current, from));
    await dropAppliedSchema(connection);
    expect(await clusters.current.query(database, 'SELECT id FROM item')).toEqual([{ id: 1 }]);
    expect(await objects(clusters.current, database)).not.toContain('table made');
  });

  it('removes nothing when somebody has built upon it, and names what', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, BROKEN);
    const { database, connection } = await claimed(clusters.current);
    await all(connection, await partsOf(clusters.current, from));
    await clusters.current.query(database, 'CREATE VIEW public.mine AS SELECT id FROM app.b');
    const before = await objects(clusters.current, database);
    await expect(dropAppliedSchema(connection)).rejects.toMatchObject({
      code: 'schema_failed',
      message: expect.stringMatching(/view .*mine depends on table app\.b/) as string,
    });
    expect(await objects(clusters.current, database)).toEqual(before);
    await clusters.current.query(database, 'DROP VIEW public.mine');
    expect(await dropAppliedSchema(connection)).toBeGreaterThan(3);
  });

  it('is refused on a side that accepts writes, whatever the caller believes', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, BROKEN);
    const { database, connection } = await claimed(clusters.current);
    await all(connection, await partsOf(clusters.current, from));
    await clusters.current.query(database, `SELECT setval('cutover.fence_flag', 1, false)`);
    const before = await objects(clusters.current, database);
    await expect(dropAppliedSchema(connection)).rejects.toThrow(/accepts application writes/);
    expect(await objects(clusters.current, database)).toEqual(before);
  });

  it('keeps what an earlier migration has made', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, BROKEN);
    const { database, connection } = await claimed(clusters.current);
    await all(connection, await partsOf(clusters.current, from));
    const before = await objects(clusters.current, database);
    await clusters.current.query(database, `UPDATE cutover.migration SET id = 'm2'`);
    await all(connection, await partsOf(clusters.current, from));
    expect(await dropAppliedSchema(connection)).toBe(0);
    expect(await objects(clusters.current, database)).toEqual(before);
  });
});

describe('a dump', () => {
  it('of a server that cannot be reached fails with one clear error, without the password', async () => {
    const endpoint = { ...clusters.current.endpoint('nowhere'), password: 'very-secret' };
    await expect(dumpSchema(endpoint)).rejects.toMatchObject({
      code: 'schema_dump_failed',
      message: expect.stringMatching(/^(?!.*very-secret).*\/nowhere could not be read: .*does not exist/) as string,
    });
  });

  it('that the role may not make names what pg_dump was refused', async () => {
    const from = await freshDatabase(clusters.current);
    await clusters.current.query(from, 'CREATE TABLE public.item (id int)');
    await clusters.current.query('postgres', 'CREATE ROLE nobody_special LOGIN');
    const endpoint = { ...clusters.current.endpoint(from), user: 'nobody_special' };
    await expect(dumpSchema(endpoint)).rejects.toThrow(/permission denied for table item/);
  });

  it('that takes too long or grows too large is given up, and its session ends', async () => {
    const from = await withSchema(clusters.current);
    const endpoint = clusters.current.endpoint(from);
    await expect(dumpSchema(endpoint, { limits: { sizeBytesMax: 1000 } })).rejects.toThrow(/more than 1000 bytes/);
    const holder = await connect(endpoint);
    open.push(holder);
    await holder.query('BEGIN; LOCK TABLE app.customer');
    await expect(dumpSchema(endpoint, { limits: { deadlineMs: 1500 } })).rejects.toThrow(/within 1500 ms/);
    await until('no session of the dump is left', async () => {
      const rows = await clusters.current.query(
        'postgres',
        `SELECT FROM pg_stat_activity WHERE application_name = 'cutover schema'`,
      );
      return rows.length === 0;
    });
  });

  it('by a pg_dump of the system passes the password in the environment only', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cutover-pg-dump-'));
    const path = join(folder, 'pg_dump');
    writeFileSync(path, '#!/bin/sh\necho "$@"\necho "$PGPASSWORD"\necho "-- $HOME"\n', { mode: 0o755 });
    try {
      const endpoint = { host: 'db', port: 5, database: 'd', user: 'u', password: 'very-secret' };
      const [args, password, home] = (await dumpSchema(endpoint, { pgDumpPath: path })).split('\n');
      expect(args).toContain('--schema-only --clean --if-exists --no-publications');
      expect(args).toContain('--host db --port 5 --username u --no-password --dbname d');
      expect(args).not.toContain('very-secret');
      expect(password).toBe('very-secret');
      expect(home).toBe('-- ');
      await expect(dumpSchema(endpoint, { pgDumpPath: path, limits: { sizeBytesMax: 10 } })).rejects.toThrow(
        /more than 10 bytes/,
      );
      writeFileSync(path, '#!/bin/sh\necho "pg_dump: error: server version mismatch" >&2\nexit 1\n');
      await expect(dumpSchema(endpoint, { pgDumpPath: path })).rejects.toThrow(
        /could not be read: pg_dump: error: server version mismatch/,
      );
      writeFileSync(path, '#!/bin/sh\nexec sleep 60\n');
      await expect(dumpSchema(endpoint, { pgDumpPath: path, limits: { deadlineMs: 200 } })).rejects.toThrow(
        /within 200 ms/,
      );
      await expect(dumpSchema(endpoint, { pgDumpPath: join(folder, 'absent') })).rejects.toThrow(
        /could not run \(ENOENT\)/,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
