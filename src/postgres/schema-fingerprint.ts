/**
 * One task: compare what the two sides of a stream take for the schema of its tables: columns, types, NOT NULL, primary key,
 * replica identity.
 *
 * Logical replication carries no DDL (PostgreSQL documentation, 29.8). Columns are compared by name: their order may differ.
 * Defaults, indexes and checks are not compared: they do not decide whether a row fits.
 */
import type { Connection } from './connection.js';

/** Which end of a stream a server is: its tables are those published, or those subscribed to. */
type End = 'publisher' | 'subscriber';

const TABLES: Readonly<Record<End, string>> = {
  publisher: 'SELECT relid FROM pg_get_publication_tables($1::text)',
  subscriber: `
    SELECT r.srrelid AS relid FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
    WHERE s.subname = $1 AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
};

/** One row for each thing that must be equal. */
const shape = (end: End): string => `
  WITH moved AS MATERIALIZED (
    SELECT c.oid AS relid, format('%I.%I', n.nspname, c.relname) AS "table", c.relreplident AS identity
    FROM (${TABLES[end]}) AS t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname <> 'cutover'
  ), shape AS (
    SELECT m."table", 'column ' || quote_ident(a.attname) AS item,
      format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END AS definition
    FROM moved m JOIN pg_attribute a ON a.attrelid = m.relid WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT m."table", CASE WHEN i.indisprimary THEN 'primary key' ELSE 'replica identity index' END,
      '(' || string_agg(quote_ident(a.attname), ', ' ORDER BY array_position(i.indkey::int2[], a.attnum)) || ')'
    FROM moved m JOIN pg_index i ON i.indrelid = m.relid
    JOIN pg_attribute a ON a.attrelid = m.relid AND a.attnum = ANY (i.indkey::int2[])
    WHERE (i.indisprimary OR i.indisreplident) AND i.indisvalid
    GROUP BY m."table", i.indexrelid, i.indisprimary
    UNION ALL
    SELECT m."table", 'replica identity',
      CASE m.identity WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' ELSE 'an index' END FROM moved m
  )`;

const fingerprintSql = (end: End): { readonly name: string; readonly text: string } => ({
  name: `cutover_fingerprint_${end}`,
  text: `${shape(end)}
    SELECT count(*) || '/' || coalesce(sum(hashtextextended("table" || '|' || item || '|' || definition, 0)), 0) AS fingerprint
    FROM shape`,
});
const FINGERPRINT = { publisher: fingerprintSql('publisher'), subscriber: fingerprintSql('subscriber') };

/** Both ends of one stream; publication and subscription have its name. */
interface StreamSides {
  readonly publisher: Connection;
  readonly subscriber: Connection;
  readonly stream: string;
}

/** One look at both ends, beside each other; the statements stay prepared on their connections. */
async function schemasEqual({ publisher, subscriber, stream }: StreamSides): Promise<boolean> {
  const ask = async (connection: Connection, end: End): Promise<string | undefined> =>
    (await connection.query<{ fingerprint: string }>({ ...FINGERPRINT[end], values: [stream] })).rows[0]?.fingerprint;
  const [here, there] = await Promise.all([ask(publisher, 'publisher'), ask(subscriber, 'subscriber')]);
  return here !== undefined && here === there;
}

/** The first difference as a sentence; null when there is none. */
export async function schemaDifference(sides: StreamSides): Promise<string | null> {
  if (await schemasEqual(sides)) return null;
  const [here, there] = await Promise.all([
    itemsOf(sides.publisher, 'publisher', sides.stream),
    itemsOf(sides.subscriber, 'subscriber', sides.stream),
  ]);
  for (const key of [...new Set([...here.keys(), ...there.keys()])].sort()) {
    const [source, destination] = [here.get(key), there.get(key)];
    if (source !== destination)
      return `schemas differ: ${key} is ${source ?? 'missing'} at the source, ${destination ?? 'missing'} at the destination`;
  }
  // They differed a moment ago, and do not any more.
  return null;
}

async function itemsOf(connection: Connection, end: End, stream: string): Promise<ReadonlyMap<string, string>> {
  const { rows } = await connection.query<{ key: string; definition: string }>(
    `${shape(end)} SELECT 'table ' || "table" || ': ' || item AS key, definition FROM shape`,
    [stream],
  );
  return new Map(rows.map((row) => [row.key, row.definition]));
}
