/**
 * One task: refuse TRUNCATE on the shards of a side whose streams carry it to no good end.
 *
 * A row filter does not hold for TRUNCATE (PostgreSQL documentation, 29.4.2), so the one of each shard would empty the whole table
 * at the other side, each at another moment, and take rows along that another shard's stream has brought since. The streams of several shards
 * leave it out, and this keeps anybody from needing it. DELETE does the same and is carried.
 */
import { quoteIdentifier, type Connection } from './connection.js';
import { qualified, withShortLock, type TableName } from './fence.js';

export const TRUNCATE_TRIGGER = 'cutover_refuse_truncate';

const FUNCTION = `
CREATE OR REPLACE FUNCTION cutover.refuse_truncate() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $function$
BEGIN
  RAISE EXCEPTION 'table "%" cannot be truncated while its database, which has several shards, belongs to a migration', TG_TABLE_NAME
    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'DELETE its rows, or wait for the end of the migration.';
END
$function$`;

const GUARDED = `
  SELECT n.nspname AS schema, c.relname AS table
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.tgname = $1`;

/** From here on TRUNCATE of these tables is refused to whoever writes here; what is applied is not concerned. May be called again. */
export async function refuseTruncate(connection: Connection, tables: readonly TableName[]): Promise<void> {
  const { rows } = await connection.query<TableName>(GUARDED, [TRUNCATE_TRIGGER]);
  const guarded = new Set(rows.map(qualified));
  await connection.query(FUNCTION);
  for (const table of tables) {
    const name = qualified(table);
    if (guarded.has(name)) continue;
    const create = `CREATE TRIGGER ${quoteIdentifier(TRUNCATE_TRIGGER)} BEFORE TRUNCATE ON ${name}
      FOR EACH STATEMENT EXECUTE FUNCTION cutover.refuse_truncate()`;
    await withShortLock(connection, create, name);
  }
}

/** Takes it away wherever it is. May be called again. */
export async function allowTruncate(connection: Connection): Promise<void> {
  const { rows } = await connection.query<TableName>(GUARDED, [TRUNCATE_TRIGGER]);
  for (const table of rows) {
    const name = qualified(table);
    await withShortLock(connection, `DROP TRIGGER IF EXISTS ${quoteIdentifier(TRUNCATE_TRIGGER)} ON ${name}`, name);
  }
}
