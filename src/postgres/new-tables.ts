/**
 * One task: refuse new tables on a side that a seal has closed, by an event trigger, where the engine may make one.
 *
 * Only a superuser may (PostgreSQL documentation, CREATE EVENT TRIGGER). Elsewhere seal and commit still find a table that came late; one
 * made after the commit is what docs/limits.md says of it. Why it bites where it bites: docs/decisions/0017.
 */
import type { Connection } from './connection.js';

export const NEW_TABLES_TRIGGER = 'cutover_fence_tables';

/** Two that make or drop it at one moment come one after the other. */
const LOCK = `SELECT pg_advisory_xact_lock(hashtext('cutover.install'))`;

/**
 * The function comes and goes with its trigger, so that neither is ever there without the other; dropping the schema takes both. A
 * CREATE SCHEMA may hold tables. Answers nothing to who may not: the flag is the first and, on most days, the only thing it looks at.
 */
const FENCE_NEW_TABLES = `${LOCK};
CREATE OR REPLACE FUNCTION cutover.refuse_table() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $function$
BEGIN
  IF NOT (SELECT is_called FROM cutover.fence_flag) THEN
    RETURN;
  END IF;
  -- A destination that never served: its schema is still being made. A row that is open under a raised flag is a snapshot older than
  -- the seal, or the last moment of an abort.
  IF EXISTS (SELECT FROM cutover.fence WHERE state <> 'open' AND seal_lsn IS NULL) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND c.relnamespace::regnamespace::text NOT IN ('cutover', 'cutover_shards')) THEN
    PERFORM cutover.raise_refusal();
  END IF;
END
$function$;
DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = '${NEW_TABLES_TRIGGER}') THEN
    CREATE EVENT TRIGGER ${NEW_TABLES_TRIGGER} ON ddl_command_end
      WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA') EXECUTE FUNCTION cutover.refuse_table();
  END IF;
  ALTER EVENT TRIGGER ${NEW_TABLES_TRIGGER} ENABLE ALWAYS;
END $do$`;

/**
 * From here on a permanent table is refused with CUT01 while the flag of a side that was sealed is up. May be called again.
 *
 * @returns false where the role is no superuser: nothing was made
 */
export async function fenceNewTables(connection: Connection): Promise<boolean> {
  const { rows } = await connection.query<{ superuser: boolean }>(
    `SELECT rolsuper AS superuser FROM pg_roles WHERE rolname = current_user`,
  );
  if (rows[0]?.superuser !== true) return false;
  await connection.query(FENCE_NEW_TABLES);
  return true;
}

/** Takes the event trigger and its function away; changes nothing where there is none. May be called again. */
export async function allowNewTables(connection: Connection): Promise<void> {
  if (!(await newTablesAreFenced(connection))) return;
  await connection.query(
    `${LOCK}; DROP EVENT TRIGGER IF EXISTS ${NEW_TABLES_TRIGGER}; DROP FUNCTION IF EXISTS cutover.refuse_table()`,
  );
}

/** Whether the event trigger is there. */
export async function newTablesAreFenced(connection: Connection): Promise<boolean> {
  const { rows } = await connection.query(`SELECT FROM pg_event_trigger WHERE evtname = '${NEW_TABLES_TRIGGER}'`);
  return rows.length > 0;
}
