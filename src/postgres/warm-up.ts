/**
 * One task: warm up the connections of the pause: let each do ahead of it what it will be asked within it, and change nothing.
 *
 * A backend reads the catalogue of each table and compiles and plans each statement of a function when it first comes to it. *Measured*
 * on an idle machine: the first seal on a connection takes 8 ms where a later one takes 3, ready, commit and open alike; the first look
 * at a thousand sequences takes five times as long as the second. And most moves are made once.
 */
import type { Side } from '../cutover/side.js';
import type { Connection } from './connection.js';
import { fenceGap } from './fence.js';
import { readIdentity, readRecord } from './record.js';
import { advanceSequences, readSequences, requireSequences } from './sequences.js';

/**
 * A plan that the connection makes from here on serves every later call: else each of the first five calls would make one of its own
 * (PostgreSQL documentation, 20.7.4, plan_cache_mode).
 */
const KEEP_PLANS = 'SET plan_cache_mode = force_generic_plan';

const LOCK_TIMEOUT_MS = 100;

/**
 * Every table of the record is written to by a statement that finds no row, and every function called for an epoch that it refuses.
 *
 * Epochs begin at 1. For this one `seal` and `ready` answer that it was closed already and `commit` that it is unknown, and `open` finds no
 * fence that is ready for it. `lower` takes the flag down for any epoch up to that of an open fence, so it is asked for one that
 * none can have. The refusals are caught here: the log of the server has none of them.
 */
const CALL_ONCE = `
DO $warm_up$
BEGIN
  -- Whoever has a lock here is not to be waited for: then the pause does what this would have done.
  PERFORM set_config('lock_timeout', '${LOCK_TIMEOUT_MS.toString()}', true);
  PERFORM cutover.identity(), cutover.writer_in_flight(), cutover.table_in_making(), cutover.note('warm-up', '[]');
  UPDATE cutover.fence SET state = state WHERE false;
  UPDATE cutover.decision SET state = state WHERE false;
  INSERT INTO cutover.decision SELECT * FROM cutover.decision WHERE false;
  INSERT INTO cutover.marker SELECT * FROM cutover.marker WHERE false ON CONFLICT DO NOTHING;
  BEGIN
    PERFORM cutover.seal(-1, '', 0, '', 1, 'warm-up', '[]');
  EXCEPTION WHEN SQLSTATE 'CUT02' THEN NULL;
  END;
  BEGIN
    PERFORM cutover.ready(-1, '', 0, '', false);
  EXCEPTION WHEN SQLSTATE 'CUT02' THEN NULL;
  END;
  BEGIN
    PERFORM cutover.commit(-1, '', 'warm-up', '[]');
  EXCEPTION WHEN SQLSTATE 'CUT02' THEN NULL;
  END;
  PERFORM cutover.open('{"epoch": -1, "state": "committed"}'), cutover.lower(9223372036854775807);
EXCEPTION WHEN lock_not_available THEN NULL;
END
$warm_up$`;

/**
 * All that the pause calls of the record, called once. Changes nothing, locks rows and tables of the record for milliseconds, and is
 * left where somebody else has locked them; may be called again and at any time.
 *
 * @throws the error of the driver, where there is no record
 */
export async function warmUpRecord(connection: Connection): Promise<void> {
  await connection.query(KEEP_PLANS);
  await readIdentity(connection);
  await readRecord(connection);
  await connection.query(CALL_ONCE);
}

/**
 * The same on the connection that will seal, and what the seal asks the catalogue, so that the name of every table it will lock is in the
 * cache of this connection too. Locks no table of the application; may be called again.
 */
export async function warmUpSeal(connection: Connection, publication: string): Promise<void> {
  await warmUpRecord(connection);
  await fenceGap(connection, publication);
  await connection.query('SELECT cutover.fenced_tables(), cutover.table_gap($1)', [publication]);
  await connection.query(`
    SELECT count(to_regclass(format('%I.%I', n.nspname, c.relname))::text)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgname = 'cutover_fence_write'`);
}

/**
 * Reads the sequences and opens each of them once. Moves nothing; may be called again.
 *
 * @param destination what the connection leads to, where values are handed to it; absent: it hands them over
 * @throws CutoverError `sequence_withheld` naming what the role of this connection may not read and set
 */
export async function warmUpSequences(connection: Connection, destination?: Side): Promise<void> {
  // No plan whose time grows with the square of the sequences. The functions of the record say so for themselves; the reading is none.
  await connection.query(`${KEEP_PLANS}; SET enable_nestloop = off`);
  await requireSequences(connection);
  await readSequences(connection);
  // No sequence is named, so whatever the epoch, none is moved; the highest one gets past the check of the fence row.
  if (destination) await advanceSequences(connection, destination, Number.MAX_SAFE_INTEGER, {});
}
