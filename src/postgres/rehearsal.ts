/**
 * One task: let one connection do ahead of the pause what the functions of the record will do within it, and change nothing.
 *
 * A backend reads the catalogue of each table and compiles and plans each statement of a function when it first comes to it. *Measured*
 * on an idle machine: the first seal on a connection takes 8 ms where a later one takes 3, ready, commit and open alike; and most
 * moves are made once. So every table is written to by a statement that finds no row, and every function called for an epoch that it refuses.
 */
import type { Connection } from './connection.js';
import { readIdentity, readRecord } from './record.js';

const LOCK_TIMEOUT_MS = 100;

/**
 * Epochs begin at 1. For this one `seal` and `ready` answer that it was closed already and `commit` that it is unknown, and `open` finds no
 * fence that is ready for it. `lower` takes the flag down for any epoch up to that of an open fence, so it is asked for one that
 * none can have. The refusals are caught here: the log of the server has none of them.
 */
const REHEARSAL = `
DO $rehearsal$
BEGIN
  -- Whoever has a lock here is not to be waited for: then the pause does what this would have done.
  PERFORM set_config('lock_timeout', '${LOCK_TIMEOUT_MS.toString()}', true);
  PERFORM cutover.identity(), cutover.writer_in_flight(), cutover.table_in_making(), cutover.note('rehearsal', '[]');
  UPDATE cutover.fence SET state = state WHERE false;
  UPDATE cutover.decision SET state = state WHERE false;
  INSERT INTO cutover.decision SELECT * FROM cutover.decision WHERE false;
  INSERT INTO cutover.marker SELECT * FROM cutover.marker WHERE false ON CONFLICT DO NOTHING;
  BEGIN
    PERFORM cutover.seal(-1, '', 0, '', 1, 'rehearsal', '[]');
  EXCEPTION WHEN SQLSTATE 'CUT02' THEN NULL;
  END;
  BEGIN
    PERFORM cutover.ready(-1, '', 0, '', false);
  EXCEPTION WHEN SQLSTATE 'CUT02' THEN NULL;
  END;
  BEGIN
    PERFORM cutover.commit(-1, '', 'rehearsal', '[]');
  EXCEPTION WHEN SQLSTATE 'CUT02' THEN NULL;
  END;
  PERFORM cutover.open('{"epoch": -1, "state": "committed"}'), cutover.lower(9223372036854775807);
EXCEPTION WHEN lock_not_available THEN NULL;
END
$rehearsal$`;

/**
 * All that the pause calls on this connection, called once. Changes nothing, locks rows and tables of the record for milliseconds, and is
 * left where somebody else has locked them; may be called again and at any time.
 *
 * A plan that the connection makes from here on serves every later call: else each of the first five calls would make one of
 * its own (PostgreSQL documentation, 20.7.4, plan_cache_mode).
 *
 * @throws the error of the driver, where there is no record
 */
export async function rehearseRecord(connection: Connection): Promise<void> {
  await connection.query('SET plan_cache_mode = force_generic_plan');
  await readIdentity(connection);
  await readRecord(connection);
  await connection.query(REHEARSAL);
}
