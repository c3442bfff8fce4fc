/**
 * One task: give tables another replica identity for the time of a move, and give back what they had.
 *
 * What a table had is written down in the same database (`cutover.replica_identity`) before anything is changed, so that whoever comes after an
 * engine that died finds what there is to finish or to undo. The index is built CONCURRENTLY: nobody who reads or writes waits for it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { CutoverError, messageOf } from '../errors/errors.js';
import { quoteIdentifier, quoteLiteral, type Connection } from './connection.js';
import { qualified, withShortLock, type TableName } from './fence.js';

/** How the rows of a table shall be told apart. */
export interface PreparedIdentity extends TableName {
  readonly way: 'index' | 'full';
  /** of the index */
  readonly columns: readonly string[];
}

interface Remembered extends PreparedIdentity {
  readonly migration: string;
  readonly relid: string;
  /** pg_class.relreplident before */
  readonly was: string;
  readonly wasIndex: string | null;
}

/** A table as it is now. */
interface State extends TableName {
  /** pg_class.relreplident */
  readonly identity: string;
  /** null: there is no such index */
  readonly valid: boolean | null;
  /** the index is the replica identity */
  readonly chosen: boolean;
  /** the process that builds the index now */
  readonly builder: number | null;
  /** the index that was the replica identity could be it again */
  readonly wasThere: boolean;
}

/** Made when it is first needed; a database whose moves prepare nothing has none. */
const LEDGER = `
  CREATE TABLE IF NOT EXISTS cutover.replica_identity (
    migration text NOT NULL,
    relid oid NOT NULL,
    schema text NOT NULL,
    "table" text NOT NULL,
    way text NOT NULL CHECK (way IN ('index', 'full')),
    columns text[] NOT NULL,
    was text NOT NULL CHECK (was IN ('d', 'n', 'f', 'i')),
    was_index text,
    PRIMARY KEY (migration, relid)
  )`;
const REMEMBER = `
  INSERT INTO cutover.replica_identity (migration, relid, schema, "table", way, columns, was, was_index)
  SELECT $1, c.oid, t.schema, t."table", t.way, t.columns, c.relreplident::text,
    (SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisreplident)
  FROM json_to_recordset($2) AS t (schema text, "table" text, way text, columns text[])
  JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t."table"
  ON CONFLICT (migration, relid) DO NOTHING`;
const STATE = `
  SELECT n.nspname AS schema, c.relname AS "table", c.relreplident AS identity, i.indisvalid AS valid, coalesce(i.indisreplident, false) AS chosen,
    (SELECT p.pid FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid LIMIT 1) AS builder,
    EXISTS (SELECT FROM pg_index w JOIN pg_class wx ON wx.oid = w.indexrelid
      WHERE w.indrelid = c.oid AND wx.relname = $3 AND w.indisvalid AND w.indisunique) AS "wasThere"
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN (pg_index i JOIN pg_class x ON x.oid = i.indexrelid) ON i.indrelid = c.oid AND x.relname = $2
  WHERE c.oid = $1::oid`;

/** Each wait of a build for older transactions; when one takes longer, the build is given up and begun anew. */
const BUILD_LOCK_TIMEOUT_MS = 10 * 60_000;
const BUILDS_MAX = 5;
const POLL_MS = 500;
/** duplicate_table (PostgreSQL documentation, Appendix A): somebody else has begun the index meanwhile */
const DUPLICATE = '42P07';
/** dependent_objects_still_exist */
const DEPENDENT_OBJECTS = '2BP01';

const indexOf = ({ migration, relid }: Pick<Remembered, 'migration' | 'relid'>): string =>
  `cutover_${migration}_identity_${relid}`;

/**
 * Gives the tables their replica identity. May be called again, by another engine too: it goes on where the last one ended.
 *
 * The connection must have a `queryTimeoutMs` that the longest index build fits in, and nobody else may use it meanwhile.
 *
 * @throws CutoverError `identity_unprepared` when a table cannot be had for a moment, or its index cannot be built
 */
export async function prepareIdentities(
  connection: Connection,
  migration: string,
  identities: readonly PreparedIdentity[],
): Promise<void> {
  await rememberIdentities(connection, migration, identities);
  for (const row of await remembered(connection, migration)) await prepare(connection, row);
}

/** Writes down what the tables have now, and what they shall have; what is written already stays. Changes no table. */
export async function rememberIdentities(
  connection: Connection,
  migration: string,
  identities: readonly PreparedIdentity[],
): Promise<void> {
  if (identities.length === 0) return;
  await connection.query(LEDGER);
  await connection.query(REMEMBER, [migration, JSON.stringify(identities)]);
}

/** What was written down of the tables of a migration; nothing where nothing was. */
export async function rememberedIdentities(
  connection: Connection,
  migration: string,
): Promise<readonly PreparedIdentity[]> {
  const rows = await remembered(connection, migration);
  return rows.map(({ schema, table, way, columns }) => ({ schema, table, way, columns }));
}

/** The tables of this database that a migration has given another replica identity, as `public.orders`. */
export async function identitiesMadeHere(
  connection: Connection,
): Promise<readonly { readonly name: string; readonly migration: string }[]> {
  const rows = await remembered(connection, null);
  return rows.map(({ schema, table, migration }) => ({ name: `${schema}.${table}`, migration }));
}

/**
 * Gives back what the tables had, and removes the indexes: of one migration, or of all. An identity that somebody has chosen meanwhile stays, and
 * an index on which a foreign key was built. May be called again.
 *
 * No publication with row filters may be left: PostgreSQL would refuse the application's UPDATE.
 *
 * @throws CutoverError `identity_unprepared` when a table cannot be had for a moment
 */
export async function restoreIdentities(connection: Connection, migration: string | null = null): Promise<void> {
  for (const row of await remembered(connection, migration)) await restore(connection, row);
}

async function remembered(connection: Connection, migration: string | null): Promise<readonly Remembered[]> {
  const { rows: known } = await connection.query<{ known: boolean }>(
    `SELECT to_regclass('cutover.replica_identity') IS NOT NULL AS known`,
  );
  if (known[0]?.known !== true) return [];
  const { rows } = await connection.query<Remembered>(
    `SELECT migration, relid::text AS relid, schema, "table", way, columns, was, was_index AS "wasIndex"
     FROM cutover.replica_identity WHERE $1::text IS NULL OR migration = $1 ORDER BY migration, schema, "table"`,
    [migration],
  );
  return rows;
}

async function stateOf(connection: Connection, row: Remembered): Promise<State | null> {
  const { rows } = await connection.query<State>(STATE, [row.relid, indexOf(row), row.wasIndex]);
  return rows[0] ?? null;
}

async function prepare(connection: Connection, row: Remembered): Promise<void> {
  if (row.way === 'index') await build(connection, row);
  const state = await stateOf(connection, row);
  if (state === null || isPrepared(row, state)) return;
  const identity = row.way === 'full' ? 'FULL' : `USING INDEX ${quoteIdentifier(indexOf(row))}`;
  await alter(connection, `ALTER TABLE ${qualified(state)} REPLICA IDENTITY ${identity}`, state);
}

const isPrepared = ({ way }: Remembered, { identity, chosen }: State): boolean =>
  way === 'full' ? identity === 'f' : identity === 'i' && chosen;

/**
 * A build that was interrupted leaves an index that is not valid (PostgreSQL documentation, CREATE INDEX): it goes, and is built anew. As a
 * replica identity PostgreSQL would take it without a word, and then not use it (*measured* with 18).
 */
async function build(connection: Connection, row: Remembered): Promise<void> {
  await connection.query(`SET lock_timeout = ${BUILD_LOCK_TIMEOUT_MS.toString()}`);
  try {
    for (let builds = 0; ;) {
      const state = await stateOf(connection, row);
      if (state === null || state.valid === true) return;
      // The server goes on for a moment after its engine has died, or another engine builds.
      if (state.builder !== null) await delay(POLL_MS);
      else if (state.valid === false)
        await connection.query(`DROP INDEX CONCURRENTLY IF EXISTS ${indexName(row, state)}`);
      else if (builds++ < BUILDS_MAX) await connection.query(createIndex(row, state)).catch(unlessDuplicate);
      else throw new Error('its index was not valid, however often it was built');
    }
  } catch (error) {
    throw unprepared(row, error);
  } finally {
    // A connection that broke has forgotten it.
    await connection.query('RESET lock_timeout').catch(() => undefined);
  }
}

const indexName = (row: Remembered, { schema }: TableName): string =>
  `${quoteIdentifier(schema)}.${quoteIdentifier(indexOf(row))}`;

function createIndex(row: Remembered, table: TableName): string {
  const columns = row.columns.map(quoteIdentifier).join(', ');
  return `CREATE UNIQUE INDEX CONCURRENTLY ${quoteIdentifier(indexOf(row))} ON ${qualified(table)} (${columns})`;
}

function unlessDuplicate(error: unknown): void {
  if ((error as { code?: string }).code !== DUPLICATE) throw error;
}

async function restore(connection: Connection, row: Remembered): Promise<void> {
  const state = await stateOf(connection, row);
  const forget = `DELETE FROM cutover.replica_identity WHERE migration = ${quoteLiteral(row.migration)} AND relid = ${row.relid}`;
  if (state === null) {
    await connection.query(forget);
    return;
  }
  // Nobody is left who would use what it builds.
  if (state.builder !== null) await connection.query('SELECT pg_cancel_backend($1)', [state.builder]);
  const back = isPrepared(row, state)
    ? `ALTER TABLE ${qualified(state)} REPLICA IDENTITY ${identityBefore(row, state)};`
    : '';
  const drop = row.way === 'index' ? `DROP INDEX IF EXISTS ${indexName(row, state)};` : '';
  try {
    await alter(connection, `${back} ${drop} ${forget}`, state);
  } catch (error) {
    if ((error as { code?: string }).code !== DEPENDENT_OBJECTS) throw error;
    await alter(connection, `${back} ${forget}`, state);
  }
}

/** Where the index is gone that it was, the primary key is nearest to it. */
function identityBefore({ was, wasIndex }: Remembered, { wasThere }: State): string {
  if (was === 'n') return 'NOTHING';
  if (was === 'f') return 'FULL';
  return was === 'i' && wasIndex !== null && wasThere ? `USING INDEX ${quoteIdentifier(wasIndex)}` : 'DEFAULT';
}

async function alter(connection: Connection, statements: string, table: TableName): Promise<void> {
  try {
    await withShortLock(connection, statements, qualified(table));
  } catch (error) {
    throw error instanceof CutoverError ? unprepared(table, error) : error;
  }
}

function unprepared({ schema, table }: TableName, cause: unknown): CutoverError {
  const { details } = cause as { details?: { problem?: unknown } };
  const problem = typeof details?.problem === 'string' ? details.problem : messageOf(cause);
  return new CutoverError('identity_unprepared', { table: `${schema}.${table}`, problem }, { cause });
}
