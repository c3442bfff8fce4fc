/**
 * One task: make the coordinator database of a sharded cluster, keep it in step, and tell what is out of step.
 *
 * A change is made by making everything anew in one transaction: readers see the old schema or the new one, and a failure leaves
 * the old one. Only definitions are made: no row is copied, so a thousand tables take seconds.
 */
import { invariant } from '../../errors/invariant.js';
import { quoteIdentifier, quoteLiteral, type Connection } from '../connection.js';
import { dumpSchema } from '../dump/dump.js';
import { serverVersion } from '../streams.js';
import { awaitShardChanges, isClosed } from './barrier.js';
import { MARKER } from './database.js';
import { takesStates } from './deviation-proof.js';
import { COORDINATOR_STATES_DDL } from './deviation-states.js';
import { differences, type Items } from './items.js';
import { beginMaking } from './making.js';
import { keepMappings } from './mappings.js';
import { allowParts } from './parts.js';
import { coordinatorSchema, type CoordinatorObject, type CoordinatorSchema } from './schema.js';
import { serverSql } from './servers.js';
import { settingsSql } from './settings.js';
import { USER_SCHEMAS } from './shape.js';
import { readWanted, shardDifferences, type Wanted } from './shards.js';
import { tableSql } from './tables.js';
import { coordinatorFailed, shardName, type CoordinatorSpec, type LeftOut } from './spec.js';

export interface MadeCoordinator {
  /** false: it was in step, and only changed passwords were put into it */
  readonly changed: boolean;
  /** what of the shards is not there: a statement that names it must not be sent here */
  readonly leftOut: readonly LeftOut[];
}

/** Catalogue and dump are read one after the other; somebody may change the schema in between. */
const READS_MAX = 3;
const LOCK_WAIT_MS = 20_000;
/** An object may need another that stands behind it in the dump (see coordinatorSchema): what failed is tried again after the others. */
const PASSES_MAX = 5;
const DIFFERENCES_MAX = 100;
const NO_STATES = 'the aggregates of deviations are missing at the coordinator: its server was restored or upgraded';
const PUBLIC_OWNER_SINCE = 150000;

const LEDGER = `
  CREATE SCHEMA IF NOT EXISTS cutover;
  CREATE EXTENSION IF NOT EXISTS postgres_fdw WITH SCHEMA cutover;
  CREATE TABLE IF NOT EXISTS cutover.coordinator (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- the shards' schema and the placements it was made from
    items jsonb NOT NULL,
    left_out jsonb NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
  );
  REVOKE ALL ON cutover.coordinator FROM PUBLIC`;

/**
 * Makes the coordinator or brings it in step with the shards. May be called again, and twice at once.
 *
 * @param connection to the coordinator's database (`createCoordinatorDatabase`), as its owner; a superuser where the shards ask some
 *   user for no password, and so that no log shows one. Nobody else may use it meanwhile
 * @throws CutoverError `coordinator_failed` | `schema_dump_failed`; then nothing has changed
 */
export async function makeCoordinator(connection: Connection, spec: CoordinatorSpec): Promise<MadeCoordinator> {
  await expectOurs(connection, connection.database ?? '');
  try {
    await attempt(connection.database ?? '', 'the lock', () => beginMaking(connection, LOCK_WAIT_MS));
    const made = await makeInTransaction(connection, spec);
    await connection.query('COMMIT');
    return made;
  } catch (error) {
    // A connection that is broken has rolled back by itself.
    await connection.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/**
 * The same in a transaction that `beginMaking` has begun, up to its commit. The shards are read behind its lock, and when no change of their
 * schema is under way: what is made is then what they are, and stays so until somebody else has the lock.
 *
 * @throws CutoverError as makeCoordinator
 */
export async function makeInTransaction(connection: Connection, spec: CoordinatorSpec): Promise<MadeCoordinator> {
  const database = connection.database ?? '';
  await expectOurs(connection, database);
  await attempt(database, 'a change of the schema is under way on a shard', () => awaitShardChanges(spec.shards));
  const { wanted, schema } = await readAtOneMoment(connection, spec);
  if (schema === null) {
    await attempt(database, 'user mappings', () => keepMappings(connection, wanted.users));
    return { changed: false, leftOut: (await readStored(connection))?.leftOut ?? [] };
  }
  return { changed: true, leftOut: await rebuild(connection, database, wanted, schema) };
}

/**
 * What is out of step, a sentence each, at most a hundred: the shards among each other, and what the coordinator was made from
 * against what they, the placements and the users are now. Empty: in step. Reads only; changed passwords are not seen.
 */
export async function coordinatorDifference(connection: Connection, spec: CoordinatorSpec): Promise<readonly string[]> {
  const stored = await readStored(connection);
  if (stored === null) return ['the coordinator has not been made'];
  if (await isClosed(connection)) return ['it is closed: a change of the schema has not come to its end'];
  const among = await shardDifferences(spec, DIFFERENCES_MAX);
  if (among.length > 0) return among;
  const wanted = await readWanted(connection, spec);
  const sides = { left: 'at the coordinator', right: 'at the shards' };
  const different = differences(stored.items, wanted.items, sides, DIFFERENCES_MAX);
  return different.length === 0 && (await lacksStates(connection, wanted)) ? [NO_STATES] : different;
}

/** What of the shards the coordinator does not have. */
export async function leftOutOf(connection: Connection): Promise<readonly LeftOut[]> {
  return (await readStored(connection))?.leftOut ?? [];
}

/** The schema is null where the coordinator has been made from the same already. */
async function readAtOneMoment(
  connection: Connection,
  spec: CoordinatorSpec,
): Promise<{ wanted: Wanted; schema: CoordinatorSchema | null }> {
  const database = connection.database ?? '';
  const version = await serverVersion(connection);
  const [shard] = spec.shards;
  let wanted = await readWanted(connection, spec);
  invariant(shard, 'a coordinator without shards was refused');
  const stored = await readStored(connection);
  const isSame = stored !== null && same(stored.items, wanted.items);
  if (isSame && !(await lacksStates(connection, wanted))) return { wanted, schema: null };
  // A placement that cannot be is found before the dump.
  for (const table of wanted.tables) tableSql(table, spec.placementOf(table), spec.omnishardedShard ?? 0);
  for (let read = 0; read < READS_MAX; read++) {
    const dump = await dumpSchema(shard, spec.pgDumpPath === undefined ? {} : { pgDumpPath: spec.pgDumpPath });
    const after = await readWanted(connection, spec);
    if (same(wanted.items, after.items))
      return {
        wanted,
        schema: await attempt(database, 'schema', () => coordinatorSchema(dump, wanted.tables, spec, version)),
      };
    wanted = after;
  }
  throw coordinatorFailed(database, 'the schema of the shards went on changing while it was read');
}

/** What it was made from says that it has them; see `takesStates`. */
async function lacksStates(connection: Connection, { deviationStates }: Wanted): Promise<boolean> {
  return deviationStates && !(await takesStates(connection));
}

function same(left: Items, right: Items): boolean {
  return differences(left, right, { left: '', right: '' }, 1).length === 0;
}

async function rebuild(
  connection: Connection,
  database: string,
  wanted: Wanted,
  schema: CoordinatorSchema,
): Promise<readonly LeftOut[]> {
  await attempt(database, 'what it had', () => removeAll(connection));
  await attempt(database, 'postgres_fdw', () => connection.query(LEDGER));
  if (wanted.deviationStates)
    await attempt(database, 'the states of deviations', () => connection.query(COORDINATOR_STATES_DDL));
  for (const [shard, options] of wanted.servers.entries())
    await attempt(database, `server of shard ${shard.toString()}`, () =>
      connection.query(`CREATE SCHEMA ${quoteIdentifier(shardName(shard))}; ${serverSql(shard, options)}`),
    );
  await attempt(database, 'user mappings', () => keepMappings(connection, wanted.users));
  const leftOut = [...schema.leftOut, ...(await makeObjects(connection, database, schema.objects))];
  await attempt(database, 'access', () => connection.query(accessSql(database, wanted)));
  await attempt(database, 'access to the parts of tables', () => allowParts(connection));
  await connection.query(
    `INSERT INTO cutover.coordinator (items, left_out) VALUES ($1, $2)
     ON CONFLICT (only_row) DO UPDATE SET items = excluded.items, left_out = excluded.left_out, made_at = now()`,
    [JSON.stringify(Object.fromEntries(wanted.items)), JSON.stringify(leftOut)],
  );
  // Last: they may change this session's search_path.
  for (const statement of settingsSql(database, wanted.settings))
    await attempt(database, 'settings', () => connection.query(statement));
  return leftOut;
}

/** Everything but the schema cutover; `public` is made as initdb makes it (PostgreSQL documentation, 15, release notes). */
async function removeAll(connection: Connection): Promise<void> {
  const { rows } = await connection.query<{ statement: string }>(`
    SELECT format('DROP SERVER %I CASCADE', srvname) AS statement FROM pg_foreign_server
    UNION ALL SELECT format('DROP SCHEMA %I CASCADE', n.nspname) FROM pg_namespace n
    WHERE ${USER_SCHEMAS} OR n.nspname ~ '^cutover_shard_[0-9]+$'`);
  for (const { statement } of rows) await connection.query(statement);
  const owner = (await serverVersion(connection)) >= PUBLIC_OWNER_SINCE;
  await connection.query(
    owner
      ? 'CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC'
      : 'CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC',
  );
}

/** Makes what can be made, in passes. @returns what cannot */
async function makeObjects(
  connection: Connection,
  database: string,
  objects: readonly CoordinatorObject[],
): Promise<readonly LeftOut[]> {
  let waiting = objects;
  let failures = new Map<CoordinatorObject, string>();
  for (let pass = 0; pass < PASSES_MAX && waiting.length > 0; pass++) {
    failures = new Map();
    for (const object of waiting) {
      const problem = await makeObject(connection, object);
      if (problem === null) continue;
      if (object.required) throw coordinatorFailed(database, `${object.object}: ${problem}`);
      failures.set(object, problem);
    }
    if (failures.size === waiting.length) break;
    waiting = [...failures.keys()];
  }
  // Privileges on what is left out are left out with it.
  return [...failures]
    .filter(([{ object }]) => !object.startsWith('privileges on '))
    .map(([{ object }, reason]) => ({ object, reason }));
}

async function makeObject(connection: Connection, object: CoordinatorObject): Promise<string | null> {
  const settings = [...object.settings].map(([name, value]) => `SET LOCAL ${name} = ${value}`);
  try {
    await connection.query(
      ['SAVEPOINT object', ...settings, ...object.statements, 'RELEASE object'].map(ended).join('\n'),
    );
    return null;
  } catch (error) {
    await connection.query('ROLLBACK TO object; RELEASE object');
    const { code, message } = error as { code?: string; message?: string };
    // duplicate_schema: public
    return code === '42P06' ? null : (message ?? 'refused');
  }
}

function ended(statement: string): string {
  return statement.endsWith(';') ? statement : `${statement};`;
}

/** Only those who have a way to the shards may come in; who they are is written on the database itself. */
function accessSql(database: string, { users }: Wanted): string {
  const name = quoteIdentifier(database);
  const roles = users.map(({ role }) => quoteIdentifier(role)).join(', ');
  return `REVOKE ALL ON DATABASE ${name} FROM PUBLIC; GRANT CONNECT ON DATABASE ${name} TO ${roles};
    COMMENT ON DATABASE ${name} IS ${quoteLiteral(MARKER)}`;
}

/** A database with tables that is no coordinator is somebody's data. */
async function expectOurs(connection: Connection, database: string): Promise<void> {
  const { rows } = await connection.query<{ comment: string | null; tables: boolean }>(`
    SELECT shobj_description(d.oid, 'pg_database') AS comment, EXISTS (
      SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${USER_SCHEMAS}) AS tables
    FROM pg_database d WHERE d.datname = current_database()`);
  if (rows[0]?.comment === MARKER || rows[0]?.tables === false) return;
  throw coordinatorFailed(database, 'the database has tables and was not made by Cutover');
}

async function readStored(connection: Connection): Promise<{ items: Items; leftOut: readonly LeftOut[] } | null> {
  const { rows: known } = await connection.query<{ known: boolean }>(
    `SELECT to_regclass('cutover.coordinator') IS NOT NULL AS known`,
  );
  if (known[0]?.known !== true) return null;
  const { rows } = await connection.query<{ items: Record<string, string>; leftOut: LeftOut[] }>(
    'SELECT items, left_out AS "leftOut" FROM cutover.coordinator',
  );
  const row = rows[0];
  return row === undefined ? null : { items: new Map(Object.entries(row.items)), leftOut: row.leftOut };
}

async function attempt<T>(database: string, what: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw coordinatorFailed(database, what, cause);
  }
}
