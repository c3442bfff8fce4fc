/**
 * One task: have a row that goes to another shard, because its key was changed, sent whole.
 *
 * For the shard it comes to such an UPDATE is an INSERT (PostgreSQL documentation, 29.4.3). Long values that did not change are not in the
 * WAL, however, unless the table has REPLICA IDENTITY FULL, and NULL would arrive (*measured* with 18: test/moves/keys.test.ts). So a trigger
 * writes them anew where the key changes. It does nothing to any other UPDATE.
 */
import { quoteIdentifier, quoteLiteral, type Connection } from './connection.js';
import { qualified, withShortLock, type TableName } from './fence.js';

/** Of triggers of one kind the last by name is the last to run (PostgreSQL documentation, 39.1): behind those that may change the key. */
export const WHOLE_ROW_TRIGGER = 'zzz_cutover_whole_row';

/** A table with the column by which its rows find their shard. */
export interface KeyedTable extends TableName {
  readonly column: string;
}

interface Column {
  readonly name: string;
  readonly type: string;
}

/** What may be stored apart from its row and is not part of the replica identity; nothing where that is FULL. */
const APART = `
  SELECT c.oid::text AS oid, coalesce(json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)))
    FILTER (WHERE a.attname IS NOT NULL), '[]') AS columns
  FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    AND a.attlen = -1 AND a.attstorage <> 'p' AND c.relreplident <> 'f'
  WHERE c.oid = $1::regclass GROUP BY c.oid`;

/** From here on; may be called again. */
export async function sendWholeRows(connection: Connection, tables: readonly KeyedTable[]): Promise<void> {
  for (const table of tables) {
    const name = qualified(table);
    const { rows } = await connection.query<{ oid: string; columns: readonly Column[] }>(APART, [name]);
    const [found] = rows;
    if (!found || found.columns.length === 0) continue;
    const procedure = `cutover.whole_row_${found.oid}`;
    await connection.query(functionSql(procedure, found.columns));
    const { rows: present } = await connection.query(
      'SELECT FROM pg_trigger WHERE tgrelid = $1::regclass AND tgname = $2',
      [name, WHOLE_ROW_TRIGGER],
    );
    if (present.length > 0) continue;
    const key = quoteIdentifier(table.column);
    const create = `CREATE TRIGGER ${WHOLE_ROW_TRIGGER} BEFORE UPDATE ON ${name} FOR EACH ROW
      WHEN (OLD.${key} IS DISTINCT FROM NEW.${key}) EXECUTE FUNCTION ${procedure}()`;
    await withShortLock(connection, create, name);
  }
}

/** Writes each value by way of its text, whatever the session has set for texts: a value made anew is stored anew. */
function functionSql(procedure: string, columns: readonly Column[]): string {
  const lines = columns.map(({ name, type }) => {
    const value = `NEW.${quoteIdentifier(name)}`;
    return `  ${value} := (${value}::text || '')::${type};`;
  });
  const body = `\nBEGIN\n${lines.join('\n')}\n  RETURN NEW;\nEND`;
  return `CREATE OR REPLACE FUNCTION ${procedure}() RETURNS trigger LANGUAGE plpgsql
    SET extra_float_digits = 3 SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET bytea_output = 'hex' AS ${quoteLiteral(body)}`;
}

/** Takes triggers and functions away. May be called again. */
export async function sendRowsAsTheyAre(connection: Connection): Promise<void> {
  const { rows } = await connection.query<TableName>(
    `SELECT n.nspname AS schema, c.relname AS table FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.tgname = $1 AND t.tgparentid = 0`,
    [WHOLE_ROW_TRIGGER],
  );
  for (const table of rows) {
    const name = qualified(table);
    await withShortLock(connection, `DROP TRIGGER IF EXISTS ${WHOLE_ROW_TRIGGER} ON ${name}`, name);
  }
  const { rows: functions } = await connection.query<{ name: string }>(
    `SELECT oid::regprocedure::text AS name FROM pg_proc WHERE pronamespace = to_regnamespace('cutover') AND proname ~ '^whole_row_[0-9]+$'`,
  );
  for (const { name } of functions) await connection.query(`DROP FUNCTION IF EXISTS ${name}`);
}
