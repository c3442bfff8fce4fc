/** One task: remember in the record that a client changed the schema of a table while a migration carried it. */
import type { Connection } from './connection.js';
import { appendEvent } from './events.js';

/** The `@` keeps it apart from the stories of workflows. */
const streamOf = (migration: string): string => `${migration}@schema`;

export interface SchemaChange {
  /** the name the client connected to */
  readonly database: string;
  /** as `ALTER TABLE` */
  readonly change: string;
  /** the side that served that database, as `sideKey` has it */
  readonly side: string;
}

/** Appends it as an event. Two nodes at once: one of them is lost, and the other one tells the same. */
export function noteSchemaChange(connection: Connection, migration: string, change: SchemaChange): Promise<void> {
  return appendEvent(connection, streamOf(migration), 'SchemaChanged', { ...change });
}

/** The first change that was made at this side; null when there was none. */
export async function schemaChangeAt(
  connection: Connection,
  migration: string,
  side: string,
): Promise<SchemaChange | null> {
  const { rows } = await connection.query<{ data: SchemaChange }>(
    `SELECT data FROM cutover.event WHERE stream = $1 AND type = 'SchemaChanged' AND data ->> 'side' = $2
     ORDER BY sequence LIMIT 1`,
    [streamOf(migration), side],
  );
  return rows[0]?.data ?? null;
}
