/**
 * One task: arm and disarm the fence, the triggers that bind every role once the flag is up.
 *
 * CREATE TRIGGER needs SHARE ROW EXCLUSIVE on the table (PostgreSQL documentation, CREATE TRIGGER), so a table is armed alone,
 * with a short lock_timeout, and tried again: a queue behind a long transaction would be a pause nobody asked for.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { CutoverError, messageOf } from '../errors/errors.js';
import { quoteIdentifier, type Connection } from './connection.js';
import { allowNewTables } from './new-tables.js';

export interface TableName {
  readonly schema: string;
  readonly table: string;
}

const ARM_LOCK_TIMEOUT_MS = 200;
const ARM_ATTEMPTS = 100;
const ARM_PAUSE_MS = 300;
const LOCK_NOT_AVAILABLE = '55P03';

export function qualified(name: TableName): string {
  return `${quoteIdentifier(name.schema)}.${quoteIdentifier(name.table)}`;
}

/** Every table the application can write, partitioned parents and partitions included; not the schema `cutover`. */
export async function applicationTables(connection: Connection): Promise<readonly TableName[]> {
  const { rows } = await connection.query<TableName>(`
    SELECT n.nspname AS schema, c.relname AS table
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
      AND n.nspname NOT IN ('cutover', 'cutover_shards', 'information_schema') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1, 2`);
  return rows;
}

/**
 * Makes the fence triggers on `tables`; those already there stay. May be called again.
 *
 * @param mode `origin` while the initial copy runs (a COPY by a subscription fires ALWAYS triggers), `always` afterwards, which
 *   binds `session_replication_role = replica` too. TRUNCATE stays `origin`: the apply worker fires its triggers.
 */
export async function armFence(
  connection: Connection,
  tables: readonly TableName[],
  mode: 'origin' | 'always',
): Promise<void> {
  const enable = mode === 'always' ? 'ENABLE ALWAYS' : 'ENABLE';
  const { rows } = await connection.query<TableName & { mode: string }>(`
    SELECT n.nspname AS schema, c.relname AS table, t.tgenabled AS mode
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgname = 'cutover_fence_write'`);
  const armed = new Map(rows.map((r) => [`${r.schema}.${r.table}`, r.mode]));
  for (const table of tables) {
    const present = armed.get(`${table.schema}.${table.table}`);
    if (present === (mode === 'always' ? 'A' : 'O')) continue;
    const name = qualified(table);
    const create =
      present === undefined
        ? `CREATE TRIGGER cutover_fence_write BEFORE INSERT OR UPDATE OR DELETE ON ${name}
           FOR EACH STATEMENT EXECUTE FUNCTION cutover.refuse_write();
         CREATE TRIGGER cutover_fence_truncate BEFORE TRUNCATE ON ${name}
           FOR EACH STATEMENT EXECUTE FUNCTION cutover.refuse_write();`
        : '';
    // ONLY: on a partitioned parent ALTER TABLE would otherwise look for the trigger on every partition.
    await withShortLock(connection, `${create} ALTER TABLE ONLY ${name} ${enable} TRIGGER cutover_fence_write`, name);
  }
}

/** Takes every fence trigger away, the event trigger first. May be called again. */
export async function disarmFence(connection: Connection): Promise<void> {
  await allowNewTables(connection);
  const { rows } = await connection.query<TableName & { trigger: string }>(`
    SELECT n.nspname AS schema, c.relname AS table, t.tgname AS trigger
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgname IN ('cutover_fence_write', 'cutover_fence_truncate')`);
  for (const row of rows) {
    const name = qualified(row);
    await withShortLock(connection, `DROP TRIGGER IF EXISTS ${quoteIdentifier(row.trigger)} ON ${name}`, name);
  }
}

/** Whether any table here has a fence trigger. */
export async function isFenced(connection: Connection): Promise<boolean> {
  const { rows } = await connection.query(`SELECT FROM pg_trigger WHERE tgname = 'cutover_fence_write' LIMIT 1`);
  return rows.length > 0;
}

/** What differs between published, armed and enabled; null when nothing does (the same check the seal makes). */
export async function fenceGap(connection: Connection, publication: string): Promise<string | null> {
  const { rows } = await connection.query<{ gap: string | null }>('SELECT cutover.fence_gap($1) AS gap', [publication]);
  return rows[0]?.gap ?? null;
}

/** A table of the move that came after its streams, or is being made right now; null when there is none (checked by the seal, too). */
export async function tableGap(connection: Connection, publication: string): Promise<string | null> {
  const { rows } = await connection.query<{ gap: string | null }>('SELECT cutover.table_gap($1) AS gap', [publication]);
  return rows[0]?.gap ?? null;
}

/** A table at the destination that is not in step or not fenced; null when there is none (checked by `ready`, too). */
export async function destinationGap(
  connection: Connection,
  subscription: string,
  fenced: boolean,
): Promise<string | null> {
  const { rows } = await connection.query<{ gap: string | null }>('SELECT cutover.destination_gap($1, $2) AS gap', [
    subscription,
    fenced,
  ]);
  return rows[0]?.gap ?? null;
}

/** Statements that need a lock of a table for a moment: tried again and again, so that nobody queues behind them for long. */
export async function withShortLock(connection: Connection, statements: string, table: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await connection.query(`SET LOCAL lock_timeout = ${ARM_LOCK_TIMEOUT_MS.toString()}; ${statements}`);
      return;
    } catch (error) {
      if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error;
      if (attempt >= ARM_ATTEMPTS) throw new CutoverError('fence_blocked', { table, problem: messageOf(error) });
      await delay(ARM_PAUSE_MS);
    }
  }
}

/**
 * Who stands in the way of the seal: sessions with a lock on a fenced table, and prepared transactions.
 *
 * @returns one sentence each, without query texts: those may hold secrets
 */
export async function writersInFlight(connection: Connection): Promise<readonly string[]> {
  const { rows } = await connection.query<{ holder: string }>(`
    SELECT DISTINCT coalesce(
      'pid ' || a.pid || ' (' || coalesce(a.usename, '?') || ', "' || a.application_name || '", ' || coalesce(a.state, a.backend_type)
        || ', ' || coalesce(round(extract(epoch FROM clock_timestamp() - a.xact_start)), 0) || ' s)',
      'prepared transaction holding ' || l.relation::regclass) AS holder
    FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'relation' AND l.granted AND l.mode IN
        ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = l.relation AND t.tgname = 'cutover_fence_write')
      AND l.pid IS DISTINCT FROM pg_backend_pid()
    LIMIT 20`);
  return rows.map((r) => r.holder);
}
