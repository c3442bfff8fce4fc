/** One task: see every check of preflight find on real servers what it is there to find, and nothing on healthy ones. */
import { afterEach, describe, expect, it } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { ChaosProxy } from '../../src/dev/chaos-proxy.js';
import { freePort } from '../../src/dev/ports.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { CHECKS, preflight, runCheck } from '../../src/postgres/preflight/preflight.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { sidesOf, type Sides, type SidesOptions } from './preflight-setup.js';

const clusters = useClusters({
  source: { major: 17, auth: 'scram' },
  // Everything a statement says is logged, so that a password in one would be seen.
  destination: { major: 18, auth: 'scram', settings: { log_statement: 'all', log_min_duration_statement: '0' } },
  poor: {
    major: 15,
    settings: {
      wal_level: 'replica',
      fsync: 'off',
      full_page_writes: 'off',
      max_replication_slots: '0',
      max_wal_senders: '0',
      max_logical_replication_workers: '0',
      max_connections: '20',
      max_prepared_transactions: '0',
      max_locks_per_transaction: '10',
      max_slot_wal_keep_size: '1MB',
    },
  },
});

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function sides(options: SidesOptions = {}, source: Cluster = clusters.source): Promise<Sides> {
  const made = await sidesOf(source, clusters.destination, options);
  cleanups.push(() => made.end());
  return made;
}

async function session(cluster: Cluster, database: string): Promise<Connection> {
  const connection = await connect(cluster.endpoint(database));
  cleanups.push(() => connection.end());
  return connection;
}

interface Situation {
  readonly check: string;
  readonly when: string;
  readonly make: () => Promise<Sides>;
  readonly verdict: 'ok' | 'warning' | 'failed';
  readonly says: RegExp;
}

/** A fresh pair on which the statements ran. */
const given =
  (source: string, destination = 'SELECT', options: SidesOptions = {}) =>
  async (): Promise<Sides> => {
    const both = await sides(options);
    await both.onSource(source);
    await both.onDestination(destination);
    return both;
  };

const fromPoor =
  (sql = 'SELECT') =>
  async (): Promise<Sides> => {
    const both = await sides({}, clusters.poor);
    await both.onSource(sql);
    return both;
  };

/** One table is larger than a range. */
const inRanges =
  (options: SidesOptions = {}, parallelCopies = 4) =>
  async (): Promise<Sides> => {
    const both = await sides(options);
    await both.onSource(
      'CREATE TABLE public.small (id int PRIMARY KEY); CREATE TABLE public.large (id int PRIMARY KEY); INSERT INTO public.large SELECT generate_series(1, 10000)',
    );
    const cutover = { ...both.config.cutover, parallelCopies, copyRangeBytes: 200_000 };
    return { ...both, config: { ...both.config, cutover } };
  };

/** The destination's database is made by `sql`, from template0. */
const destinationMade = (how: string) => async (): Promise<Sides> => {
  const name = `made_${process.pid.toString()}_${cleanups.length.toString()}_${how.length.toString()}`;
  await clusters.destination.query('postgres', `CREATE DATABASE ${name} TEMPLATE template0 ${how}`);
  return sides({ databases: [await freshDatabase(clusters.source), name] });
};

const impatient = (both: Sides): Sides => ({
  ...both,
  config: { ...both.config, cutover: { ...both.config.cutover, timeoutMs: 0 } },
});

let counter = 0;
const unique = (prefix: string): string => `${prefix}_${process.pid.toString()}_${(counter += 1).toString()}`;

const SITUATIONS: readonly Situation[] = [
  {
    check: 'versions',
    when: 'the destination is older',
    make: async () => {
      const both = await sidesOf(clusters.destination, clusters.source);
      cleanups.push(() => both.end());
      return both;
    },
    verdict: 'warning',
    says: /18 to 17.*older/,
  },
  {
    check: 'versions',
    when: 'the source is from before replication could leave out origins',
    make: fromPoor(),
    verdict: 'ok',
    says: /15 to 18; the way back is made inside the pause/,
  },
  {
    check: 'primaries',
    when: 'the destination is read-only',
    make: async () => {
      const both = await sides();
      await both.destination.connection.query('SET default_transaction_read_only = on');
      return both;
    },
    verdict: 'failed',
    says: /destination are read-only/,
  },
  {
    check: 'primaries',
    when: 'the file leaves open which server of the source is the primary',
    make: async () => {
      const both = await sides();
      const { databases } = both.config;
      const rows = databases.flatMap((row) => (row.name === 'prod' ? [row, { ...row, port: 1 }] : []));
      const open = rows.map((row) => ({ ...row, role: 'auto' as const }));
      return {
        ...both,
        config: { ...both.config, databases: [...open, ...databases.filter((row) => row.name !== 'prod')] },
      };
    },
    verdict: 'failed',
    says: /leaves open which server of "prod" is the primary/,
  },
  {
    check: 'same-database',
    when: 'both names lead to one database',
    make: async () => {
      const database = await freshDatabase(clusters.destination);
      const both = await sidesOf(clusters.destination, clusters.destination, { databases: [database, database] });
      cleanups.push(() => both.end());
      return both;
    },
    verdict: 'failed',
    says: /same database/,
  },
  { check: 'wal-level', when: 'it is replica', make: fromPoor(), verdict: 'failed', says: /source is replica/ },
  {
    check: 'fsync',
    when: 'it is off',
    make: fromPoor(),
    verdict: 'failed',
    says: /fsync is off on the source.*full_page/,
  },
  { check: 'replication-slots', when: 'none is free', make: fromPoor(), verdict: 'failed', says: /source has 0 of 0/ },
  { check: 'wal-senders', when: 'none is free', make: fromPoor(), verdict: 'failed', says: /source has 0 of 0/ },
  {
    check: 'replication-workers',
    when: 'none is free',
    make: fromPoor(),
    verdict: 'failed',
    says: /source has 0 of 0/,
  },
  {
    check: 'replication-origins',
    when: 'none is free',
    make: fromPoor(),
    verdict: 'failed',
    says: /source has 0 of 0/,
  },
  {
    check: 'replication-slots',
    when: 'copies would wait for each other',
    make: async () => {
      const both = await sides();
      return { ...both, config: { ...both.config, cutover: { ...both.config.cutover, parallelCopies: 100 } } };
    },
    verdict: 'warning',
    says: /of 40 replication slots free; 101 are wanted/,
  },
  {
    check: 'connections',
    when: 'the engine itself finds none',
    make: async () => {
      const both = await sides({}, clusters.poor);
      const server = { source: 3, destination: 0, coordinator: false };
      return { ...both, shards: { source: 3, destination: 1 }, onServer: { source: server, destination: server } };
    },
    verdict: 'failed',
    says: /source at 127\.0\.0\.1:\d+, with 3 shards of the move, has \d+ of 20 connections free; 24 are wanted/,
  },
  {
    check: 'connections',
    when: 'the pools of every proxy would not fit',
    make: async () => {
      const both = await sides();
      const nodes = ['a', 'b', 'c'].map((name) => ({ name, host: 'there', port: 6432 }));
      const general = { ...both.config.general, defaultPoolSize: 70 };
      return { ...both, config: { ...both.config, nodes, general } };
    },
    verdict: 'warning',
    says: /destination has \d+ of 200 connections free; 218 are wanted/,
  },
  {
    check: 'replication-slots',
    when: 'several shards of both sides are on one server',
    make: async () => {
      const both = await sides();
      const server = { source: 2, destination: 3, coordinator: true };
      return {
        ...{ ...both, shards: { source: 2, destination: 3 }, onServer: { source: server, destination: server } },
        config: { ...both.config, cutover: { ...both.config.cutover, parallelCopies: 5 } },
      };
    },
    verdict: 'warning',
    // 2 × 3 streams there and 3 × 2 back, and 5 copies of each that leads there.
    says: /source at \S+, with 5 shards of the move, has 40 of 40 replication slots free; 42 are wanted/,
  },
  {
    check: 'parallel-copies',
    when: 'the destination copies fewer tables at once than it is told',
    make: async () => {
      const both = await sides();
      return { ...both, config: { ...both.config, cutover: { ...both.config.cutover, parallelCopies: 8 } } };
    },
    verdict: 'warning',
    says: /resharding_parallel_copies is 8; the destination copies 4 tables of a move at once/,
  },
  {
    check: 'parallel-copies',
    when: 'a table is copied in ranges',
    make: inRanges(),
    verdict: 'ok',
    says: /Copied in ranges: public\.large\./,
  },
  {
    check: 'parallel-copies',
    when: 'the role may not write as a subscription does, so that no table is copied in ranges',
    make: async () => {
      const mover = { user: 'mover_of_ranges', password: 'secret' };
      for (const cluster of [clusters.source, clusters.destination])
        await cluster.query('postgres', `CREATE ROLE ${mover.user} LOGIN PASSWORD '${mover.password}'`);
      return inRanges(mover)();
    },
    verdict: 'warning',
    says: /may not set session_replication_role at the destination, so large tables are not copied in ranges: public\.large/,
  },
  {
    check: 'connections',
    when: 'ranges are copied over connections of their own',
    make: inRanges({}, 200),
    verdict: 'warning',
    says: /source has \d+ of 200 connections free; 208 are wanted/,
  },
  {
    check: 'lock-table',
    when: 'one transaction needs more locks than there is room for',
    make: fromPoor(
      `DO $$ BEGIN FOR i IN 1..210 LOOP EXECUTE 'CREATE TABLE t' || i || ' (id int)'; COMMIT; END LOOP; END $$`,
    ),
    verdict: 'failed',
    says: /source locks 210 relations; there is room for 200/,
  },
  {
    check: 'wal-disk',
    when: 'a slot may keep less than the copy takes',
    make: fromPoor(`CREATE TABLE big AS SELECT repeat('x', 100) AS v FROM generate_series(1, 20000)`),
    verdict: 'warning',
    says: /may keep 1 MB/,
  },
  {
    check: 'encoding',
    when: 'the destination cannot hold the text',
    make: destinationMade(`ENCODING 'LATIN1' LOCALE 'C'`),
    verdict: 'failed',
    says: /source is in UTF8, the destination in LATIN1/,
  },
  {
    check: 'locale',
    when: 'the destination sorts in another way',
    make: destinationMade(`LOCALE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'`),
    verdict: 'warning',
    says: /libc C\/C, the destination builtin C\.UTF-8/,
  },
  {
    check: 'collation-versions',
    when: 'the library has changed under an index',
    make: given(`CREATE COLLATION english (provider = icu, locale = 'en'); CREATE TABLE t (v text COLLATE english PRIMARY KEY);
      SET allow_system_table_mods = on; UPDATE pg_collation SET collversion = '1' WHERE collname = 'english'`),
    verdict: 'warning',
    says: /source.*collation public\.english/,
  },
  {
    check: 'replica-identity',
    when: 'a table has none',
    make: given(
      'CREATE TABLE bare (id int); CREATE TABLE "Off" (id int PRIMARY KEY); ALTER TABLE "Off" REPLICA IDENTITY NOTHING',
    ),
    verdict: 'failed',
    says: /refuse the application's UPDATE and DELETE: public\."Off", public\.bare/,
  },
  {
    check: 'replica-identity',
    when: 'the primary key is deferrable',
    make: given('CREATE TABLE later (id int PRIMARY KEY DEFERRABLE)'),
    verdict: 'failed',
    says: /public\.later/,
  },
  {
    check: 'replica-identity',
    when: 'the whole row identifies, and holds what cannot be compared',
    make: given('CREATE TABLE doc (id int, v json, w varchar); ALTER TABLE doc REPLICA IDENTITY FULL'),
    verdict: 'failed',
    says: /public\.doc \(v\)/,
  },
  {
    check: 'replica-identity',
    when: 'the whole row identifies',
    make: given('CREATE TABLE doc (id int, w varchar); ALTER TABLE doc REPLICA IDENTITY FULL'),
    verdict: 'warning',
    says: /searches the whole table.*public\.doc/,
  },
  {
    check: 'publication',
    when: 'it does not exist',
    make: given('CREATE TABLE t (id int PRIMARY KEY)', 'SELECT', { publication: 'nowhere' }),
    verdict: 'failed',
    says: /"nowhere" does not exist/,
  },
  {
    check: 'publication',
    when: 'it is empty',
    make: given('CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p', 'SELECT', { publication: 'p' }),
    verdict: 'failed',
    says: /"p" has no tables/,
  },
  {
    check: 'publication',
    when: 'it leaves a table out and filters another',
    make: given(
      'CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t WHERE (id > 1)',
      'SELECT',
      { publication: 'p' },
    ),
    verdict: 'warning',
    says: /do not move with their rows: public\.u.*filters rows or columns of public\.t/,
  },
  {
    check: 'unlogged-tables',
    when: 'there is one',
    make: given('CREATE UNLOGGED TABLE scratch (id int)'),
    verdict: 'warning',
    says: /public\.scratch/,
  },
  {
    check: 'large-objects',
    when: 'there is one',
    make: given('SELECT lo_create(0)'),
    verdict: 'failed',
    says: /1 large/,
  },
  {
    check: 'generated-columns',
    when: 'one belongs to the primary key',
    make: given('CREATE TABLE g (id int, twice int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY)'),
    verdict: 'failed',
    says: /public\.g\.twice/,
  },
  {
    check: 'generated-columns',
    when: 'the whole row identifies, and one side is 18, which then refuses the UPDATE',
    make: given(
      'CREATE TABLE g (id int, twice int GENERATED ALWAYS AS (id * 2) STORED); ALTER TABLE g REPLICA IDENTITY FULL',
    ),
    verdict: 'failed',
    says: /public\.g\.twice/,
  },
  {
    check: 'generated-columns',
    when: 'one is virtual, and the destination does not know that',
    make: async () => {
      const both = await sidesOf(clusters.destination, clusters.source);
      cleanups.push(() => both.end());
      await both.onSource('CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2))');
      return both;
    },
    verdict: 'failed',
    says: /17 has no virtual generated columns: public\.g\.twice/,
  },
  {
    check: 'identity-columns',
    when: 'a sequence is nearly at its end',
    make: given('CREATE TABLE s (id smallint GENERATED ALWAYS AS IDENTITY (START 32000) PRIMARY KEY)'),
    verdict: 'warning',
    says: /public\.s_id_seq/,
  },
  {
    check: 'materialized-views',
    when: 'there is one',
    make: given('CREATE MATERIALIZED VIEW sums AS SELECT 1 AS one'),
    verdict: 'ok',
    says: /before the switch: public\.sums/,
  },
  {
    check: 'foreign-servers',
    when: 'there is one',
    make: given(`CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
      CREATE FOREIGN TABLE far (id int) SERVER elsewhere`),
    verdict: 'warning',
    says: /elsewhere \(1 foreign tables\)/,
  },
  {
    check: 'event-triggers',
    when: 'both sides have one',
    make: given(
      `CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
       CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION watch()`,
      `CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
       CREATE EVENT TRIGGER guard ON ddl_command_end EXECUTE FUNCTION watch()`,
    ),
    verdict: 'warning',
    says: /after the copy: watcher.*destination run.*guard/,
  },
  {
    check: 'tablespaces',
    when: 'a table lies in one of its own',
    make: async () => {
      const name = unique('fast');
      await clusters.source.query('postgres', 'ALTER SYSTEM SET allow_in_place_tablespaces = on');
      const both = await sides();
      const superuser = await session(clusters.source, both.source.endpoint.database);
      await superuser.query('SET allow_in_place_tablespaces = on');
      await superuser.query(`CREATE TABLESPACE ${name} LOCATION ''`);
      await superuser.query(`CREATE TABLE public.t (id int PRIMARY KEY) TABLESPACE ${name}`);
      return both;
    },
    verdict: 'warning',
    says: /fast_.*default tablespace/,
  },
  {
    check: 'source-is-subscriber',
    when: 'it has a subscription of somebody else',
    make: async () => {
      const both = await given(
        `CREATE SUBSCRIPTION feed CONNECTION 'dbname=x password=hidden' PUBLICATION p WITH (connect = false, slot_name = NONE)`,
      )();
      cleanups.push(() => both.onSource('DROP SUBSCRIPTION feed'));
      return both;
    },
    verdict: 'failed',
    says: /subscriber itself \(feed\)/,
  },
  {
    check: 'cutover-schema',
    when: 'it belongs to somebody else',
    make: given('SELECT', 'CREATE SCHEMA cutover; CREATE TABLE cutover.mine (id int)'),
    verdict: 'failed',
    says: /destination has a schema "cutover"/,
  },
  {
    check: 'destination-empty',
    when: 'it has rows',
    make: given('SELECT', 'CREATE TABLE empty (id int); CREATE TABLE "Full" (id int); INSERT INTO "Full" VALUES (1)'),
    verdict: 'failed',
    says: /rows already.*: public\."Full"\./,
  },
  {
    check: 'destination-empty',
    when: 'it has tables without rows',
    make: given('SELECT', 'CREATE TABLE empty (id int); INSERT INTO empty VALUES (1); DELETE FROM empty'),
    verdict: 'warning',
    says: /tables without rows: public\.empty/,
  },
  {
    check: 'extensions',
    when: 'the destination does not have one',
    make: fromPoor('CREATE EXTENSION adminpack'),
    verdict: 'failed',
    says: /no extension adminpack/,
  },
  {
    check: 'roles',
    when: 'an owner and a grantee are missing, and another role differs',
    make: async () => {
      const [owner, grantee, differs] = [unique('owner'), unique('grantee'), unique('differs')];
      await clusters.destination.query('postgres', `CREATE ROLE ${differs} LOGIN`);
      return given(`CREATE ROLE ${owner}; CREATE ROLE ${grantee}; CREATE ROLE ${differs};
        CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO ${owner}; GRANT SELECT ON t TO ${grantee}, ${differs}`)();
    },
    verdict: 'failed',
    says: /lacks: grantee_\w+, owner_\w+\..*other attributes.*differs_/,
  },
  {
    check: 'users',
    when: 'one is not configured for the other side',
    make: async () => {
      const name = unique('one_sided');
      await clusters.source.query('postgres', `CREATE ROLE ${name} LOGIN PASSWORD 'secret-one'`);
      return sides({ users: `[[users]]\nname = "${name}"\npassword = "secret-one"\ndatabase = "prod"\n` });
    },
    verdict: 'failed',
    says: /of "prod" is not configured for "prod_new"/,
  },
  {
    check: 'users',
    when: 'one does not exist on the other side, and one has another password',
    make: async () => {
      const [missing, changed] = [unique('missing'), unique('changed')];
      await clusters.source.query(
        'postgres',
        `CREATE ROLE ${missing} LOGIN PASSWORD 'secret-two'; CREATE ROLE ${changed} LOGIN PASSWORD 'secret-two'`,
      );
      await clusters.destination.query('postgres', `CREATE ROLE ${changed} LOGIN PASSWORD 'other'`);
      const row = (name: string): string =>
        `[[users]]\nname = "${name}"\npassword = "secret-two"\ndatabases = ["prod", "prod_new"]\n`;
      return sides({ users: row(missing) + row(changed) });
    },
    verdict: 'failed',
    says: /"missing_\w+" does not get into "prod_new".*"changed_\w+" does not get into "prod_new"/,
  },
  {
    check: 'database-settings',
    when: 'the destination lacks them, and their values are nobody’s business',
    make: async () => {
      const role = unique('set_role');
      for (const cluster of [clusters.source, clusters.destination])
        await cluster.query('postgres', `CREATE ROLE ${role}`);
      const both = await sides();
      await both.onSource(`ALTER ROLE ${role} SET search_path = secret_path;
        ALTER DATABASE ${both.source.endpoint.database} SET app.key = 'secret-key'`);
      return both;
    },
    verdict: 'warning',
    says: /^(?!.*secret[_-](?:path|key)).*ALTER DATABASE … SET app\.key.*ALTER ROLE "set_role_\w+" SET search_path/,
  },
  {
    check: 'destination-reaches-source',
    when: 'nobody listens at the address',
    make: async () => {
      const both = await sides();
      return { ...both, source: { ...both.source, endpoint: { ...both.source.endpoint, port: await freePort() } } };
    },
    verdict: 'failed',
    says: /destination's server does not reach the source.*refused/,
  },
  {
    check: 'source-reaches-destination',
    when: 'the database has another name there',
    make: async () => {
      const both = await sides();
      const endpoint = { ...both.destination.endpoint, database: 'nowhere' };
      return { ...both, destination: { ...both.destination, endpoint } };
    },
    verdict: 'failed',
    says: /source's server does not reach the destination.*"nowhere" does not exist/,
  },
  {
    check: 'lease',
    when: 'the way to the destination takes more than a sixth of it',
    make: async () => {
      const both = await sides();
      const far = await ChaosProxy.listen(both.destination.endpoint.port, { slowMs: 50 });
      cleanups.push(() => far.close());
      const connection = await connect({ ...both.destination.endpoint, port: far.port });
      cleanups.push(() => connection.end());
      far.set('slow');
      const config = { ...both.config, cutover: { ...both.config.cutover, leaseMs: 500 } };
      return { ...both, config, destination: { ...both.destination, connection } };
    },
    verdict: 'failed',
    says: /^the destination answers after \d{3,}\.\d ms: cutover_lease is 500 ms and must be 6 times that\.$/,
  },
  {
    check: 'long-transactions',
    when: 'one runs longer than a cutover may take',
    make: async () => {
      const both = await sides();
      const holder = await session(clusters.source, both.source.endpoint.database);
      await holder.query('BEGIN; SELECT 1');
      return impatient(both);
    },
    verdict: 'warning',
    says: /cannot begin before these end.*idle in transaction/,
  },
  {
    check: 'prepared-transactions',
    when: 'one is young',
    make: async () => {
      const both = await given(`CREATE TABLE t (id int PRIMARY KEY)`)();
      const gid = unique('young');
      await both.onSource(`BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '${gid}'`);
      cleanups.push(() => both.onSource(`ROLLBACK PREPARED '${gid}'`));
      return both;
    },
    verdict: 'warning',
    says: /"young_/,
  },
  {
    check: 'prepared-transactions',
    when: 'one is older than a cutover may take',
    make: async () => {
      const both = await given(`CREATE TABLE t (id int PRIMARY KEY)`)();
      const gid = unique('orphan');
      await both.onSource(`BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '${gid}'`);
      cleanups.push(() => both.onSource(`ROLLBACK PREPARED '${gid}'`));
      return impatient(both);
    },
    verdict: 'failed',
    says: /"orphan_/,
  },
  {
    check: 'maintenance',
    when: 'somebody holds a table for himself',
    make: async () => {
      const both = await given('SELECT', 'CREATE TABLE t (id int PRIMARY KEY)')();
      const holder = await session(clusters.destination, both.destination.endpoint.database);
      await holder.query('BEGIN; LOCK TABLE public.t');
      return both;
    },
    verdict: 'warning',
    says: /destination there runs a session that holds AccessExclusiveLock on public\.t/,
  },
];

it('finds nothing wrong with two healthy servers, and changes nothing there', async () => {
  const both = await sides();
  await both.onSource('CREATE TABLE item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)');
  const results = await preflight(both);
  expect(results.filter((r) => r.verdict !== 'ok')).toEqual([]);
  for (const cluster of [clusters.source, clusters.destination]) {
    expect(await cluster.query('postgres', 'SELECT FROM pg_subscription')).toEqual([]);
    expect(await cluster.query('postgres', 'SELECT FROM pg_replication_slots')).toEqual([]);
  }
});

describe.each(SITUATIONS)('$check', ({ check, when, make, verdict, says }) => {
  it(`says ${verdict} when ${when}`, async () => {
    const definition = CHECKS.find((c) => c.id === check);
    expect(definition).toBeDefined();
    const both = await make();
    const result = definition && (await runCheck(definition, both));
    expect(result).toMatchObject({ verdict, detail: expect.stringMatching(says) as string });
    if (verdict !== 'ok') expect(result?.remedy).not.toBe('');
  });
});

it('has a situation for every check, so that none is only believed to work', () => {
  // test/postgres/preflight-privileges.test.ts
  const elsewhere = ['privileges', 'new-tables'];
  const seen = new Set([...SITUATIONS.map((s) => s.check), ...elsewhere]);
  expect(CHECKS.map((check) => check.id).filter((id) => !seen.has(id))).toEqual([]);
});

it('runs every check even when some of them cannot look', async () => {
  const both = await sides();
  await both.onSource('CREATE TABLE t (id int PRIMARY KEY)');
  const holder = await session(clusters.source, both.source.endpoint.database);
  await holder.query('BEGIN; LOCK TABLE public.t; LOCK TABLE pg_catalog.pg_foreign_server');
  const results = await preflight(both);
  expect(results).toHaveLength(CHECKS.length);
  expect(results.find((r) => r.id === 'foreign-servers')).toMatchObject({
    verdict: 'failed',
    detail: expect.stringContaining('lock timeout') as string,
  });
});

it('puts no password into a result or the log of a server that logs everything', async () => {
  const secret = 'very-secret-42';
  const name = unique('keeper');
  for (const cluster of [clusters.source, clusters.destination]) {
    const superuser = await session(cluster, 'postgres');
    await superuser.query(`SET log_statement = 'none'; SET log_min_duration_statement = -1`);
    await superuser.query(`CREATE ROLE ${name} SUPERUSER LOGIN PASSWORD '${secret}'`);
  }
  const both = await sides({ user: name, password: secret });
  const closed = { ...both.source, endpoint: { ...both.source.endpoint, port: await freePort() } };
  const results = [...(await preflight(both)), ...(await preflight({ ...both, source: closed }))];
  expect(results.filter((r) => r.id.includes('reaches') && r.verdict === 'ok')).toHaveLength(3);
  expect(JSON.stringify(results)).not.toContain(secret);
  const log = clusters.source.log + clusters.destination.log;
  expect(log).toContain('log_min_error_statement');
  // The line alone, so that a failure does not print the whole log.
  expect(log.split('\n').filter((line) => line.includes(secret))).toEqual([]);
});
