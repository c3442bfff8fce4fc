/** One task: keep a story that nobody numbers ahead in `cutover.event`: alarms, told by whoever sees them first. */
import type { Connection } from './connection.js';

/** Appends as the next of its stream. Two at once: one of them is lost, and the other one tells the same. */
export async function appendEvent(
  connection: Connection,
  stream: string,
  type: string,
  data: Readonly<Record<string, unknown>>,
): Promise<void> {
  await connection.query(
    `INSERT INTO cutover.event (stream, sequence, type, data)
     SELECT $1, (SELECT coalesce(max(sequence), -1) + 1 FROM cutover.event WHERE stream = $1), $2, $3::jsonb
     ON CONFLICT (stream, sequence) DO NOTHING`,
    [stream, type, JSON.stringify(data)],
  );
}

/** The type of the last event of a stream whose data contain `containing`; null when there is none. */
export async function lastEventOf(
  connection: Connection,
  stream: string,
  containing: Readonly<Record<string, unknown>>,
): Promise<string | null> {
  const { rows } = await connection.query<{ type: string }>(
    `SELECT type FROM cutover.event WHERE stream = $1 AND data @> $2::jsonb ORDER BY sequence DESC LIMIT 1`,
    [stream, JSON.stringify(containing)],
  );
  return rows[0]?.type ?? null;
}
