/** One task: replica identities for the time of a move are made, finished after a kill at any point, and undone to what was there before. */
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { connect, withConnection, type Connection } from '../../src/postgres/connection.js';
import { planIdentities, type IdentityPlan } from '../../src/postgres/identity-plan.js';
import {
  identitiesMadeHere,
  prepareIdentities,
  restoreIdentities,
  type PreparedIdentity,
} from '../../src/postgres/prepared-identity.js';
import { spawnScript } from '../support/child.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';

const clusters = useClusters({ server: { major: 18, settings: { fsync: 'off' } } });
const server = (): (typeof clusters)['server'] => clusters.server;

const MOVE = 'abcd_1';
const SCHEMA = `
  CREATE SCHEMA cutover;
  CREATE TABLE public.chosen (id bigint NOT NULL, code int NOT NULL, tenant_id bigint NOT NULL, note text);
  CREATE UNIQUE INDEX chosen_code ON public.chosen (code);
  ALTER TABLE public.chosen REPLICA IDENTITY USING INDEX chosen_code;
  CREATE TABLE public.late (id bigint PRIMARY KEY, tenant_id bigint NOT NULL);
  CREATE TABLE public.loose (tenant_id bigint, note text);
  CREATE TABLE public."No Identity" (id bigint PRIMARY KEY, tenant_id bigint);
  ALTER TABLE public."No Identity" REPLICA IDENTITY NOTHING;
  INSERT INTO public.late SELECT n, n FROM generate_series(1, 1000) n;`;
const index = (table: string, ...columns: readonly string[]): PreparedIdentity => ({
  ...{ schema: 'public', table, way: 'index' },
  columns,
});
const full = (table: string): PreparedIdentity => ({ schema: 'public', table, way: 'full', columns: [] });
const ALL = [
  index('chosen', 'code', 'tenant_id'),
  index('late', 'id', 'tenant_id'),
  full('loose'),
  full('No Identity'),
];
/** What tells the rows of each table apart, and every index of ours. PostgreSQL lets one be chosen that is not valid, and does not use it. */
const IDENTITIES = `
  SELECT c.relname AS "table", c.relreplident AS identity, ARRAY(SELECT pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END FROM pg_index i
    WHERE i.indrelid = c.oid AND (i.indisreplident OR i.indexrelid::regclass::text ~ 'cutover')) AS indexes
  FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 1`;
const BEFORE = [
  { table: 'No Identity', identity: 'n', indexes: [] },
  { table: 'chosen', identity: 'i', indexes: [expect.stringContaining(' chosen_code ON ')] },
  { table: 'late', identity: 'd', indexes: [] },
  { table: 'loose', identity: 'd', indexes: [] },
];
const PREPARED = [
  { table: 'No Identity', identity: 'f', indexes: [] },
  {
    table: 'chosen',
    identity: 'i',
    indexes: [expect.stringMatching(/cutover_abcd_1_identity_\d+ .*\(code, tenant_id\)$/)],
  },
  {
    table: 'late',
    identity: 'i',
    indexes: [expect.stringMatching(/cutover_abcd_1_identity_\d+ .*\(id, tenant_id\)$/)],
  },
  { table: 'loose', identity: 'f', indexes: [] },
];

async function made(): Promise<string> {
  const database = await freshDatabase(server());
  await server().query(database, SCHEMA);
  return database;
}

const on = <T>(database: string, work: (connection: Connection) => Promise<T>): Promise<T> =>
  withConnection(server().endpoint(database), work);
const identitiesOf = (database: string): Promise<unknown> => server().query(database, IDENTITIES);

it('gives each table what it shall have and gives back what it had, however often each is called', async () => {
  const database = await made();
  for (let call = 1; call <= 2; call++) {
    await on(database, (c) => prepareIdentities(c, MOVE, ALL));
    expect(await identitiesOf(database)).toEqual(PREPARED);
  }
  expect(await on(database, identitiesMadeHere)).toContainEqual({ name: 'public.late', migration: MOVE });
  for (let call = 1; call <= 2; call++) {
    await on(database, restoreIdentities);
    expect(await identitiesOf(database)).toEqual(BEFORE);
  }
  expect(await on(database, identitiesMadeHere)).toEqual([]);
});

it('leaves what somebody chose meanwhile, an index that a foreign key was built on, and nothing of a table that is gone', async () => {
  const database = await made();
  await on(database, (c) => prepareIdentities(c, MOVE, ALL));
  await server().query(
    database,
    `ALTER TABLE public.loose REPLICA IDENTITY NOTHING; DROP TABLE public."No Identity"; DROP INDEX public.chosen_code;
     CREATE TABLE public.child (id bigint, tenant_id bigint, FOREIGN KEY (id, tenant_id) REFERENCES public.late (id, tenant_id))`,
  );
  await on(database, restoreIdentities);
  expect(await identitiesOf(database)).toEqual([
    { table: 'child', identity: 'd', indexes: [] },
    { table: 'chosen', identity: 'd', indexes: [] },
    { table: 'late', identity: 'd', indexes: [expect.stringContaining('cutover_abcd_1_identity') as string] },
    { table: 'loose', identity: 'n', indexes: [] },
  ]);
  expect(await on(database, identitiesMadeHere)).toEqual([]);
});

describe.each([
  // In the order of their names: "No Identity" is done by then, late and loose are written down and untouched.
  ['between its index and the ALTER TABLE', 'LOCK TABLE public.chosen IN ACCESS SHARE MODE', true],
  [
    'in the build of the index',
    `UPDATE public.chosen SET note = 'open'; LOCK TABLE public.chosen IN ROW EXCLUSIVE MODE`,
    false,
  ],
])('an engine that is killed %s', (_, hold, valid) => {
  let killed = '';
  let copy = '';

  beforeAll(async () => {
    killed = await made();
    const holder = await connect(server().endpoint(killed));
    await holder.query(`BEGIN; ${hold}`);
    const endpoint = JSON.stringify(server().endpoint(killed));
    const file = fileURLToPath(new URL('prepare-process.ts', import.meta.url));
    const child = spawnScript(file, [endpoint, MOVE, JSON.stringify(ALL)]);
    const reached = `SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
      WHERE x.relname ~ 'cutover' AND i.indrelid = 'public.chosen'::regclass AND i.indisvalid = ${valid.toString()}`;
    await until('it is there', async () => (await server().query(killed, reached)).length > 0, 20_000);
    child.process.kill('SIGKILL');
    expect(await child.ended, child.output()).toBeNull();
    const sessions = async (): Promise<number> =>
      (await server().query('postgres', `SELECT FROM pg_stat_activity WHERE datname = '${killed}'`)).length;
    // Before the holder lets go: its build would end well.
    await until('its session is over', async () => (await sessions()) === 1);
    await holder.end();
    await until('nobody is left', async () => (await sessions()) === 0);
    copy = await freshDatabase(server());
    await server().query('postgres', `DROP DATABASE ${copy}`);
    await server().query('postgres', `CREATE DATABASE ${copy} TEMPLATE ${killed}`);
  });

  it('has written down every table, and is followed by one that finishes', async () => {
    expect(await on(killed, identitiesMadeHere)).toHaveLength(ALL.length);
    expect(await identitiesOf(killed)).not.toEqual(PREPARED);
    await on(killed, (c) => prepareIdentities(c, MOVE, ALL));
    expect(await identitiesOf(killed)).toEqual(PREPARED);
    await on(killed, restoreIdentities);
    expect(await identitiesOf(killed)).toEqual(BEFORE);
  });

  it('is followed by one that undoes it', async () => {
    expect(await identitiesOf(copy)).not.toEqual(BEFORE);
    await on(copy, restoreIdentities);
    expect(await identitiesOf(copy)).toEqual(BEFORE);
  });
});

describe('the way to an identity with the column tenant_id', () => {
  const CASES: readonly (readonly [string, string, string | null, RegExp])[] = [
    ['a primary key beside it', 'id bigint PRIMARY KEY, tenant_id bigint NOT NULL', 'index (id, tenant_id)', /^$/],
    ['a key of limited texts', 'id varchar(40) PRIMARY KEY, tenant_id uuid NOT NULL', 'index (id, tenant_id)', /^$/],
    ['NULL', 'id bigint PRIMARY KEY, tenant_id bigint', 'full', /tenant_id may be NULL/],
    ['no key', 'id bigint, tenant_id bigint NOT NULL', 'full', /nothing tells its rows apart/],
    ['a deferrable key', 'id bigint PRIMARY KEY DEFERRABLE, tenant_id bigint NOT NULL', 'full', /nothing tells/],
    ['a key without a limit', 'id text PRIMARY KEY, tenant_id bigint NOT NULL', 'full', /may be too long/],
    ['texts that are too long', 'id varchar(600) PRIMARY KEY, tenant_id bigint NOT NULL', 'full', /may be too long/],
    [
      'NULL beside a generated column',
      'id bigint PRIMARY KEY, tenant_id bigint, g int GENERATED ALWAYS AS (1) STORED',
      null,
      /generated/,
    ],
    ['no key and json', 'doc json, tenant_id bigint NOT NULL', null, /doc cannot be compared/],
    ['a key that has it', 'tenant_id bigint PRIMARY KEY', 'nothing', /^$/],
  ];

  let plans: readonly IdentityPlan[] = [];
  beforeAll(async () => {
    const database = await freshDatabase(server());
    const tables = CASES.map(([, columns], number) => `CREATE TABLE public.t${number.toString()} (${columns});`);
    await server().query(database, tables.join('\n'));
    const wanted = CASES.map((_, number) => ({
      ...{ schema: 'public', columns: ['tenant_id'] },
      table: `t${number.toString()}`,
    }));
    plans = await on(database, (c) => planIdentities(c, wanted));
  });

  it.each(CASES.map((row, number) => [...row, number] as const))('%s', (_, columns, way, reason, number) => {
    const plan = plans.find(({ table }) => table === `t${number.toString()}`);
    const found = plan && (plan.way === 'index' ? `index (${plan.columns.join(', ')})` : plan.way);
    expect(found === undefined ? 'nothing' : found, columns).toBe(way);
    expect(plan?.reason ?? '').toMatch(reason);
  });

  it('takes no included column for one of the identity, and no key with a collation of its own', async () => {
    const database = await freshDatabase(server());
    await server().query(
      database,
      `CREATE TABLE public.t (id bigint NOT NULL, tenant_id bigint NOT NULL);
       CREATE UNIQUE INDEX t_id ON public.t (id) INCLUDE (tenant_id); ALTER TABLE public.t REPLICA IDENTITY USING INDEX t_id;
       CREATE TABLE public.u (id varchar(9) NOT NULL, tenant_id bigint NOT NULL);
       CREATE UNIQUE INDEX u_id ON public.u (id COLLATE "C"); ALTER TABLE public.u REPLICA IDENTITY USING INDEX u_id`,
    );
    const wanted = ['t', 'u'].map((table) => ({ schema: 'public', table, columns: ['tenant_id'] }));
    expect(await on(database, (c) => planIdentities(c, wanted))).toMatchObject([
      { way: 'index', columns: ['id', 'tenant_id'] },
      { way: 'full', reason: 'its key is compared in a way of its own' },
    ]);
  });
});
