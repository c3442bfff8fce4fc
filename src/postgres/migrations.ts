/** One task: keep the rows of `cutover.migration`: which workflow holds this database. */
import type { Side } from '../cutover/side.js';
import { invariant } from '../errors/invariant.js';
import type { Connection } from './connection.js';

/** A side as it was when the migration began; a row of layout 1 has no timeline. */
export interface BegunSide extends Side {
  readonly timeline?: number;
  readonly otherShards?: readonly BegunSide[];
}

export interface MigrationRow {
  readonly id: string;
  /** workflow that owns the streams */
  readonly owner: string;
  /** workflow that moves the traffic right now */
  readonly operation: string | null;
  readonly database: string;
  readonly peer: string;
  readonly source: BegunSide;
  readonly destination: BegunSide;
  /** empty: every table */
  readonly publication: string;
}

const COLUMNS = 'id, owner, operation, database, peer, source, destination, publication';

/** The migration this database belongs to, while it is not over. */
export async function findMigration(connection: Connection): Promise<MigrationRow | null> {
  if (!(await hasMigrations(connection))) return null;
  const { rows } = await connection.query<MigrationRow>(`SELECT ${COLUMNS} FROM cutover.migration WHERE active`);
  return rows[0] ?? null;
}

/**
 * The names of the tables the active migration of this database carries, without their schemas; null when there is none. At the
 * destination, where nobody knows the operator's publication, those that are fenced.
 */
export async function guardedTables(
  connection: Connection,
): Promise<{ readonly migration: string; readonly tables: readonly string[] } | null> {
  if (!(await hasMigrations(connection))) return null;
  const { rows } = await connection.query<{ migration: string; tables: readonly string[] }>(`
    SELECT m.id AS migration, ARRAY(
      SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE m.publication = '' AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
        AND n.nspname NOT IN ('cutover', 'cutover_shards', 'information_schema') AND n.nspname !~ '^pg_'
      UNION SELECT p.tablename::text FROM pg_publication_tables p
        WHERE p.pubname = m.publication AND p.schemaname NOT IN ('cutover', 'cutover_shards')
      UNION SELECT c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname = 'cutover_fence_write'
    ) AS tables
    FROM cutover.migration m WHERE m.active`);
  return rows[0] ?? null;
}

/** How many migrations of this database are over; 0 where there is no record. */
export async function migrationCount(connection: Connection): Promise<number> {
  if (!(await hasMigrations(connection))) return 0;
  const { rows } = await connection.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM cutover.migration WHERE NOT active',
  );
  return rows[0]?.n ?? 0;
}

/** Takes this database for `row`, by compare-and-set; answers the row that holds it afterwards. */
export async function insertMigration(connection: Connection, row: MigrationRow): Promise<MigrationRow> {
  await connection.query(
    `INSERT INTO cutover.migration (id, owner, database, peer, source, destination, publication)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
    [
      row.id,
      row.owner,
      row.database,
      row.peer,
      JSON.stringify(row.source),
      JSON.stringify(row.destination),
      row.publication,
    ],
  );
  const held = await findMigration(connection);
  invariant(held, 'a claimed database has an active migration');
  return held;
}

/**
 * From here on no epoch of this migration begins; with `false` they may again.
 *
 * @throws the server's CUT02 while an epoch is under way
 */
export async function setEnding(connection: Connection, id: string, ending: boolean): Promise<void> {
  await connection.query('SELECT cutover.set_ending($1, $2)', [id, ending]);
}

export async function setActive(connection: Connection, id: string, active: boolean): Promise<void> {
  await connection.query(
    `UPDATE cutover.migration SET active = $2, operation = NULL, ended_at = CASE WHEN $2 THEN NULL ELSE clock_timestamp() END
     WHERE id = $1`,
    [id, active],
  );
}

/** Compare-and-set of the operation from `expected`; answers who holds it afterwards. */
export async function takeOperation(
  connection: Connection,
  id: string,
  operation: string,
  expected: string | null,
): Promise<string | null> {
  await connection.query(
    `UPDATE cutover.migration SET operation = $2
     WHERE id = $1 AND active AND (operation IS NOT DISTINCT FROM $3 OR operation = $2)`,
    [id, operation, expected],
  );
  const { rows } = await connection.query<{ operation: string | null }>(
    'SELECT operation FROM cutover.migration WHERE id = $1 AND active',
    [id],
  );
  return rows[0]?.operation ?? null;
}

export async function releaseOperation(connection: Connection, id: string, operation: string): Promise<void> {
  await connection.query(`UPDATE cutover.migration SET operation = NULL WHERE id = $1 AND operation = $2`, [
    id,
    operation,
  ]);
}

async function hasMigrations(connection: Connection): Promise<boolean> {
  const { rows } = await connection.query<{ present: boolean }>(
    `SELECT to_regclass('cutover.migration') IS NOT NULL AS present`,
  );
  return rows[0]?.present === true;
}
