/** One task: read what the record and the servers know of slots, copies, epochs and events: the views behind SHOW. */
import type { Heading } from '../cutover/contract.js';
import {
  begun,
  evolve,
  pausedMsOf,
  PHASE_AFTER,
  type EpochEvent,
  type EpochState,
  type Step,
} from '../cutover/epoch.js';
import { sameSide } from '../cutover/side.js';
import type { Connection } from '../postgres/connection.js';
import { findMigration } from '../postgres/migrations.js';
import { rangedProgress } from '../postgres/ranges/progress.js';
import { isCommitted, readRecord, type Decision } from '../postgres/record.js';

export interface SlotRow {
  readonly host: string;
  readonly port: number;
  readonly databaseName: string;
  readonly name: string;
  /** confirmed position, `X/Y`; null before the first one */
  readonly lsn: string | null;
  readonly lagBytes: number | null;
  /** WAL it keeps on its server */
  readonly retainedBytes: number | null;
  /** a temporary slot of one table's copy */
  readonly copyData: boolean;
  readonly lastTransactionAt: Date | null;
}

/** Every slot of ours on this server's database, those of table synchronisation included. */
export async function slotsOf(publisher: Connection): Promise<readonly SlotRow[]> {
  const { rows } = await publisher.query<{
    name: string;
    lsn: string | null;
    lag: number | null;
    retained: number | null;
    sync: boolean;
  }>(`
    SELECT slot_name AS name, confirmed_flush_lsn::text AS lsn, slot_name ~ '_sync_' AS sync,
      pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::float8 AS lag,
      pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 AS retained
    FROM pg_replication_slots
    WHERE database = current_database() AND (slot_name ~ '^cutover_' OR slot_name ~ '^pg_[0-9]+_sync_') ORDER BY 1`);
  return rows.map((row) => ({
    host: publisher.host,
    port: publisher.port,
    databaseName: publisher.database ?? '',
    name: row.name,
    lsn: row.lsn,
    lagBytes: row.lag,
    retainedBytes: row.retained,
    copyData: row.sync,
    lastTransactionAt: null,
  }));
}

export interface TableCopyRow {
  readonly schema: string;
  readonly table: string;
  readonly rows: number;
  readonly bytes: number;
  readonly startedAt: Date;
  readonly sql: string;
  /** name of the stream that the table belongs to */
  readonly stream: string;
  /** how many rows it will have, as far as its publisher's statistics tell; null: they do not */
  readonly expectedRows: number | null;
}

/** The copies that run right now into this server's database, from the server's own progress view, and with the ranges that have come. */
export async function copiesInto(destination: Connection): Promise<readonly Omit<TableCopyRow, 'expectedRows'>[]> {
  const { rows } = await destination.query<Omit<TableCopyRow, 'expectedRows'>>(`
    SELECT n.nspname AS schema, c.relname AS table, p.tuples_processed::float8 AS rows, p.bytes_processed::float8 AS bytes,
      a.backend_start AS "startedAt", format('COPY %I.%I FROM STDIN', n.nspname, c.relname) AS sql, s.subname AS stream
    FROM pg_stat_progress_copy p JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_stat_activity a ON a.pid = p.pid
    JOIN pg_stat_subscription s ON s.pid = p.pid AND s.relid = p.relid
    WHERE p.datname = current_database() AND p.command = 'COPY FROM' AND n.nspname <> 'cutover'
    ORDER BY p.bytes_processed DESC`);
  return [...(await rangedProgress(destination)), ...rows];
}

/** What one stream will copy of a table, as the statistics of its publisher have it. */
export interface ExpectedRows {
  readonly stream: string;
  readonly schema: string;
  readonly table: string;
  readonly rows: number;
}

/** Of all streams that leave this database. Of a table whose rows are picked for one of several shards: as many as there are for each. */
export async function expectedRowsFrom(publisher: Connection): Promise<readonly ExpectedRows[]> {
  const { rows } = await publisher.query<ExpectedRows>(`
    SELECT p.pubname AS stream, n.nspname AS schema, c.relname AS table,
      c.reltuples / CASE WHEN to_jsonb(r) ->> 'prqual' IS NULL THEN 1 ELSE streams.n END AS rows
    FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (SELECT count(*) AS n FROM pg_publication o
      WHERE regexp_replace(o.pubname, '_[0-9]+$', '') = regexp_replace(p.pubname, '_[0-9]+$', '')) AS streams
    WHERE p.pubname ~ '^cutover_' AND n.nspname <> 'cutover' AND c.reltuples > 0`);
  return rows;
}

/** One attempt to move the traffic. */
export interface CutoverRow {
  readonly epoch: number;
  readonly taskId: number | null;
  readonly database: string;
  readonly peer: string;
  readonly heading: Heading;
  readonly outcome: 'running' | 'committed' | 'aborted';
  readonly reason: string | null;
  readonly startedAt: Date;
  /** pause to resume; null when the clients were not held */
  readonly pausedMs: number | null;
  readonly stepMs: Readonly<Partial<Record<Step, number>>>;
}

/**
 * Every epoch the records know, newest first, each a fold of its own events.
 *
 * @param taskOf the number of the task that a workflow belongs to
 */
export async function cutoversOf(
  records: readonly Connection[],
  taskOf: (workflowId: string) => number | null,
): Promise<readonly CutoverRow[]> {
  const views = new Map<string, CutoverRow>();
  // Told on the side it began at; the other one keeps the steps alone.
  const headings = new Map<string, Heading>();
  for (const connection of records) {
    const record = await readRecord(connection);
    const migration = await findMigration(connection);
    for (const decision of record?.decisions ?? []) {
      const story = await epochStory(connection, decision);
      const origin = migration?.id === decision.migration ? migration.source : null;
      const heading = origin !== null && !sameSide(origin, decision.source) ? 'reverse' : 'forward';
      const taskId = story.workflowId === null ? null : taskOf(story.workflowId);
      const view = { ...toView(decision, story, heading), taskId };
      const key = `${decision.migration}@${decision.epoch.toString()}`;
      if (story.heading !== null) headings.set(key, story.heading);
      const known = views.get(key);
      if (!known || (known.outcome === 'running' && view.outcome !== 'running')) views.set(key, view);
    }
  }
  const told = [...views].map(([key, view]) => ({ ...view, heading: headings.get(key) ?? view.heading }));
  return told.sort((a, b) => b.epoch - a.epoch);
}

interface EpochStory {
  /** the cutover that made the attempt; null until it has written its own story */
  readonly workflowId: string | null;
  readonly state: EpochState;
  readonly heading: Heading | null;
  readonly pausedMs: number | null;
}

async function epochStory(connection: Connection, decision: Decision): Promise<EpochStory> {
  const { rows } = await connection.query<EpochEvent>(
    'SELECT type, data FROM cutover.event WHERE stream = $1 ORDER BY sequence',
    [`${decision.migration}@${decision.epoch.toString()}`],
  );
  const events = rows.filter((e) => Object.hasOwn(PHASE_AFTER, e.type));
  const heading = events.find((e) => e.type === 'CutoverBegun')?.data.heading;
  // Epochs are numbered within the record, whatever migration they belong to.
  const { rows: tellers } = await connection.query<{ stream: string }>(
    `SELECT stream FROM cutover.event
     WHERE type = 'PhaseEntered' AND strpos(stream, '@') = 0 AND data ->> 'epoch' = $1::text LIMIT 1`,
    [decision.epoch.toString()],
  );
  return {
    workflowId: tellers[0]?.stream ?? null,
    state: events.reduce(evolve, begun(decision.epoch)),
    heading: heading === 'forward' || heading === 'reverse' ? heading : null,
    pausedMs: pausedMsOf(events),
  };
}

function toView(decision: Decision, story: EpochStory, heading: Heading): Omit<CutoverRow, 'taskId'> {
  return {
    epoch: decision.epoch,
    database: decision.database,
    peer: decision.peer,
    heading,
    outcome: isCommitted(decision.state) ? 'committed' : decision.state === 'aborted' ? 'aborted' : 'running',
    reason: decision.reason ?? story.state.reason,
    startedAt: new Date(decision.begun_at),
    pausedMs: story.pausedMs,
    stepMs: story.state.stepMs,
  };
}

export interface RecordedEvent {
  readonly at: Date;
  readonly stream: string;
  readonly sequence: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** The latest events of all records, or of one stream; newest last, each once. */
export async function eventsOf(
  records: readonly Connection[],
  stream: string | null,
  limit: number,
): Promise<readonly RecordedEvent[]> {
  const events = new Map<string, RecordedEvent>();
  for (const connection of records) {
    const { rows } = await connection.query<RecordedEvent>(
      `SELECT at, stream, sequence, type, data FROM cutover.event
       WHERE $1::text IS NULL OR stream = $1 ORDER BY at DESC, stream DESC, sequence DESC LIMIT $2`,
      [stream, limit],
    );
    for (const row of rows) events.set(`${row.stream} ${row.sequence.toString()}`, row);
  }
  return [...events.values()].sort(byTime).slice(-limit);
}

/** Events that were written together have one time: their place in their stream tells the order. */
function byTime(a: RecordedEvent, b: RecordedEvent): number {
  if (a.at.getTime() !== b.at.getTime()) return a.at.getTime() - b.at.getTime();
  return a.stream === b.stream ? a.sequence - b.sequence : a.stream < b.stream ? -1 : 1;
}
