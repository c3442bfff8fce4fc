/**
 * One task: keep readers off a coordinator while the schema of the shards changes: those who read come to their end first, those who come
 * wait, and once it is closed nobody reads who should come by it all the same.
 *
 * Two parts, on two connections. The barrier is a lock in an open transaction: it makes readers wait, and is gone with its connection.
 * Closing is committed: without user mappings every read of a shard ends in an error, whoever died meanwhile, until the coordinator has
 * been brought in step (src/postgres/coordinator/make.ts), which makes the mappings again.
 */
import { quoteIdentifier, withConnection, type Connection } from '../connection.js';
import type { Endpoint } from '../endpoint.js';
import { beginMaking } from './making.js';
import { USER_SCHEMAS } from './shape.js';

/** Numbers of the locks on a shard and at the coordinator; "CUTC". */
const LOCKS = 0x43555443;
const [ON_SHARD, AT_COORDINATOR] = [1, 2];

/**
 * What a statement that changes the schema says first on each shard, in its transaction: a prepared transaction keeps it, so whoever makes
 * the coordinator finds out that the shards are not yet what they will be.
 */
export const SCHEMA_CHANGE_LOCK = `SELECT pg_catalog.pg_advisory_xact_lock_shared(${LOCKS.toString()}, ${ON_SHARD.toString()})`;
const NO_CHANGE = `SET lock_timeout = '20s'; SELECT pg_catalog.pg_advisory_xact_lock(${LOCKS.toString()}, ${ON_SHARD.toString()})`;
const HELD = `${LOCKS.toString()}, ${AT_COORDINATOR.toString()}`;

const QUERY_CANCELED = '57014';
const PAUSE_MS = 100;
/** A client that waits for the barrier while the barrier waits for it must never be the one that PostgreSQL ends. */
const PART_OF_DEADLOCK_TIMEOUT = 0.8;
/** The server lets readers in when nothing is heard for so long: whoever holds the barrier asks more often (see `stillHeld`). */
const SILENCE = '60s';

/** Waits until no change of the schema is under way on any of these. @throws CutoverError of the connection; PostgreSQL's 55P03 */
export async function awaitShardChanges(shards: readonly Endpoint[]): Promise<void> {
  await Promise.all(shards.map((shard) => withConnection(shard, (connection) => connection.query(NO_CHANGE))));
}

/**
 * Raises the barrier in a transaction that is then open on `connection`.
 *
 * @param waitMs for readers, and for who makes the coordinator now
 * @throws Error that says what it waited for; the connection is then to be ended
 */
export async function raiseBarrier(connection: Connection, waitMs: number): Promise<void> {
  const end = performance.now() + waitMs;
  await beginMaking(connection, waitMs);
  await connection.query(`SELECT set_config(name, value, true) FROM json_each_text($1) AS s (name, value)`, [
    JSON.stringify({
      idle_in_transaction_session_timeout: SILENCE,
      tcp_keepalives_idle: '10',
      tcp_keepalives_interval: '10',
    }),
  ]);
  for (;;) {
    const problem = await lockedAtOnce(connection, end - performance.now());
    if (problem === null) return;
    if (performance.now() + PAUSE_MS >= end)
      throw new Error(`${problem}, and after ${waitMs.toString()} ms it still does`);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Still there? @throws when it is not: then readers may be at the coordinator */
export async function stillHeld(connection: Connection): Promise<void> {
  await connection.query('SELECT');
}

/** Whether somebody holds the barrier: readers wait, and what the coordinator and the shards are is about to change. */
export async function isHeld(connection: Connection): Promise<boolean> {
  const asked = `SELECT NOT pg_try_advisory_xact_lock_shared(${HELD}) AS held`;
  return (await connection.query<{ held: boolean }>(asked)).rows[0]?.held === true;
}

/** Makes every later read of a shard fail, for good, until the coordinator has been brought in step. May be called again. */
export async function closeCoordinator(coordinator: Endpoint): Promise<void> {
  await withConnection(coordinator, async (connection) => {
    const { rows } = await connection.query<{ role: string; server: string }>(`
      SELECT usename AS role, srvname AS server FROM pg_user_mappings
      WHERE srvname ~ '^cutover_shard_[0-9]+$' AND usename IS NOT NULL`);
    const drops = rows.map(
      ({ role, server }) =>
        `DROP USER MAPPING IF EXISTS FOR ${quoteIdentifier(role)} SERVER ${quoteIdentifier(server)}`,
    );
    await connection.query(['BEGIN READ WRITE', "SET LOCAL lock_timeout = '5s'", ...drops, 'COMMIT'].join(';'));
  });
}

/** A shard that nobody has a way to. */
export async function isClosed(connection: Connection): Promise<boolean> {
  const { rows } = await connection.query<{ closed: boolean }>(`
    SELECT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname ~ '^cutover_shard_[0-9]+$'
      AND NOT EXISTS (SELECT FROM pg_user_mappings m WHERE m.srvid = s.oid)) AS closed`);
  return rows[0]?.closed === true;
}

/**
 * Locks everything that can be read, as one statement, so that one limit holds for all of it. Views first, the newest first, as a reader
 * takes them. LOCK is not for foreign tables, and would ask who may read below a view: there an owner who stays the same takes the lock.
 */
const LOCK_ALL = `DO LANGUAGE plpgsql $barrier$DECLARE statement text; BEGIN
  FOR statement IN
    SELECT CASE WHEN c.relkind IN ('r', 'p') THEN format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', n.nspname, c.relname)
      ELSE format('ALTER TABLE %I.%I OWNER TO %I', n.nspname, c.relname, pg_get_userbyid(c.relowner)) END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ${USER_SCHEMAS}
    ORDER BY c.relkind IN ('v', 'm') DESC, CASE WHEN c.relkind IN ('v', 'm') THEN -c.oid::bigint ELSE c.oid::bigint END
  LOOP EXECUTE statement; END LOOP;
  PERFORM pg_advisory_xact_lock(${HELD}); END$barrier$`;

/** One try. @returns what was in the way; null: all of it is locked */
async function lockedAtOnce(connection: Connection, leftMs: number): Promise<string | null> {
  const { rows } = await connection.query<{ ms: number }>(
    `SELECT setting::int AS ms FROM pg_settings WHERE name = 'deadlock_timeout'`,
  );
  const limitMs = Math.max(1, Math.floor(Math.min(leftMs, (rows[0]?.ms ?? 0) * PART_OF_DEADLOCK_TIMEOUT)));
  await connection.query(`SAVEPOINT barrier; SET LOCAL statement_timeout = ${limitMs.toString()}`);
  try {
    await connection.query(LOCK_ALL);
    await connection.query('SET LOCAL statement_timeout = 0; RELEASE barrier');
    return null;
  } catch (error) {
    if ((error as { code?: string }).code !== QUERY_CANCELED) throw error;
    await connection.query('ROLLBACK TO barrier; RELEASE barrier');
    return inTheWay(connection);
  }
}

/** Who reads there for the longest time. */
async function inTheWay(connection: Connection): Promise<string> {
  const { rows } = await connection.query<{ who: string }>(`
    SELECT format('process %s of %s', a.pid, a.usename) AS who FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
      AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation' AND l.relation >= 16384)
    ORDER BY a.xact_start LIMIT 1`);
  const who = rows[0]?.who ?? 'somebody';
  return `${who} has been reading at the coordinator`;
}
