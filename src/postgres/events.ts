/**
 * One task: the stories in `cutover.event` that are read or written one by one: alarms, told by whoever sees them first, and the
 * newest stories of workflows.
 */
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

/** An event as it stands in the record. */
export interface StoryEvent {
  readonly stream: string;
  readonly sequence: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Streams of workflows have no `@`, those of epochs and alarms do. A story of months keeps its beginning and its newest events. */
const NEWEST_STORIES = `
  SELECT e.stream, e.sequence, e.type, e.data
  FROM (
    SELECT stream, max(sequence) AS last FROM cutover.event WHERE strpos(stream, '@') = 0
    GROUP BY stream ORDER BY max(at) DESC LIMIT $1
  ) AS story
  JOIN cutover.event e ON e.stream = story.stream AND (e.sequence = 0 OR e.sequence > story.last - $2)
  ORDER BY e.stream, e.sequence`;
const STORY_EVENTS_MAX = 200;

/** The events of the `storiesMax` workflows that were told of last, in order within each. */
export async function newestStories(connection: Connection, storiesMax: number): Promise<readonly StoryEvent[]> {
  const { rows } = await connection.query<StoryEvent>(NEWEST_STORIES, [storiesMax, STORY_EVENTS_MAX]);
  return rows;
}
