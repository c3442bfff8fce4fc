/** One task: begin the transaction in which a coordinator is made, of which there is one at a time, and whose statements no log shows. */
import type { Connection } from '../connection.js';
import { QUIET_SETTINGS } from '../quiet.js';

const LOCK_NOT_AVAILABLE = '55P03';

/**
 * The sessions of a coordinator begin as read only; the settings go ahead in a message of their own (see quiet.ts).
 *
 * @param waitMs for whoever makes it now
 * @throws Error that says so when the time is over; the transaction has then failed
 */
export async function beginMaking(connection: Connection, waitMs: number): Promise<void> {
  await connection.query('BEGIN READ WRITE');
  await connection.query(
    `SELECT set_config(name, value, true) FROM json_each_text($1) AS setting (name, value)
     WHERE current_setting('is_superuser') = 'on'`,
    [JSON.stringify(QUIET_SETTINGS)],
  );
  // The shards are read meanwhile; whoever is silent for longer is gone, and others may go on.
  await connection.query(`SET LOCAL idle_in_transaction_session_timeout = '300s'`);
  await connection.query(`SET LOCAL lock_timeout = ${Math.max(1, Math.floor(waitMs)).toString()}`);
  try {
    await connection.query(`SELECT pg_advisory_xact_lock(hashtext('cutover.coordinator'))`);
  } catch (error) {
    if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error;
    throw new Error(`somebody else was changing it for longer than ${waitMs.toString()} ms`, { cause: error });
  }
  await connection.query('SET LOCAL lock_timeout = 0');
}
