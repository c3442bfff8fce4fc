/**
 * One task: keep count, on the destination, of the ranges that have come, and of the attempt that may bring them.
 *
 * A range is written down in the transaction that brings its rows, so whoever does not know whether that was committed asks the server by
 * trying again. Every such transaction holds the row of its attempt: the next attempt changes that row first, and from then on nothing of
 * the one before is committed.
 */
import { CutoverError } from '../../errors/errors.js';
import { inTransaction, type Connection } from '../connection.js';
import { ask, endCopySessions } from '../copy-session.js';
import { qualified, type TableName } from '../fence.js';
import { releasing } from '../streams.js';
import type { PageRange } from './cut.js';
import { interrupted } from './snapshot-slot.js';

/** Made when it is first needed; a database that no ranges were copied into has none. */
const LEDGER = `
  SELECT pg_advisory_xact_lock(hashtext('cutover.ranges'));
  CREATE TABLE IF NOT EXISTS cutover.range_copy (
    migration text PRIMARY KEY,
    run text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp()
  );
  CREATE TABLE IF NOT EXISTS cutover.copied_range (
    stream text NOT NULL,
    schema text NOT NULL,
    "table" text NOT NULL,
    first_page bigint NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, schema, "table", first_page)
  )`;
const FOREIGN_KEY_IN_THE_WAY = '0A000';

/** One attempt to bring the ranges of all streams that lead to one database. */
export interface Run {
  readonly migration: string;
  /** of this attempt alone */
  readonly run: string;
  readonly streams: readonly string[];
}

/** A range of a table of a stream. */
export interface RangeKey extends TableName, Pick<PageRange, 'firstPage'> {
  readonly stream: string;
}

/**
 * From here on no earlier attempt commits anything.
 *
 * @returns `released`: the streams run already, nothing is to be done; `again`: an earlier attempt may have left rows
 * @throws CutoverError `stream_lost` when the subscriptions are not as this program left them
 */
export async function beginRun(
  destination: Connection,
  { migration, run, streams }: Run,
): Promise<'released' | 'first' | 'again'> {
  await endCopySessions(destination, streams);
  await destination.query(LEDGER);
  return inTransaction(destination, async () => {
    const earlier = await destination.query('SELECT FROM cutover.range_copy WHERE migration = $1 FOR UPDATE', [
      migration,
    ]);
    const { rows } = await destination.query<{ held: boolean }>(
      `SELECT subslotname IS NULL AS held FROM pg_subscription
       WHERE subname = ANY ($1) AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      [streams],
    );
    if (rows.length === streams.length && rows.every(({ held }) => !held)) return 'released';
    if (rows.length < streams.length || rows.some(({ held }) => !held))
      throw new CutoverError('stream_lost', { stream: streams.join(', '), problem: 'its subscription was changed' });
    await destination.query(
      `INSERT INTO cutover.range_copy (migration, run) VALUES ($1, $2)
       ON CONFLICT (migration) DO UPDATE SET run = excluded.run, begun_at = excluded.begun_at`,
      [migration, run],
    );
    return earlier.rows.length > 0 ? 'again' : 'first';
  });
}

/** @throws CutoverError `copy_interrupted` when another attempt has taken over; else none can until this transaction ends */
export async function expectRun(destination: Connection, { migration, run, streams }: Run): Promise<void> {
  const { rows } = await ask(
    destination,
    'SELECT FROM cutover.range_copy WHERE migration = $1 AND run = $2 FOR SHARE',
    [migration, run],
  );
  if (rows.length === 0) throw interrupted(streams.join(', '), 'another attempt has taken over');
}

/**
 * Takes away what earlier attempts have brought: everything in `tables`, which no stream has written to yet.
 *
 * @throws CutoverError `copy_interrupted`, also when this side accepts application writes
 */
export async function clearRun(destination: Connection, run: Run, tables: readonly TableName[]): Promise<void> {
  const names = tables.map(qualified);
  await inTransaction(destination, async () => {
    await expectRun(destination, run);
    const { rows } = await destination.query<{ up: boolean }>('SELECT cutover.fence_is_up() AS up');
    if (rows[0]?.up !== true) throw interrupted(run.streams.join(', '), 'the destination accepts application writes');
    await destination.query('SET LOCAL session_replication_role = replica; SAVEPOINT clearing');
    await destination.query(`TRUNCATE ONLY ${names.join(', ONLY ')}`).catch(async (error: unknown) => {
      if ((error as { code?: string }).code !== FOREIGN_KEY_IN_THE_WAY) throw error;
      // An operator's own schema may have foreign keys already.
      await destination.query('ROLLBACK TO clearing');
      for (const name of names) await destination.query(`DELETE FROM ONLY ${name}`);
    });
    await destination.query('DELETE FROM cutover.copied_range WHERE stream = ANY ($1)', [run.streams]);
  });
}

/**
 * Inside the transaction that is to bring a range: waits for one of this range that is still under way.
 *
 * @returns false: it has come already
 * @throws CutoverError `copy_interrupted`
 */
export async function claimRange(writer: Connection, run: Run, range: RangeKey): Promise<boolean> {
  await expectRun(writer, run);
  const { rowCount } = await ask(
    writer,
    'INSERT INTO cutover.copied_range (stream, schema, "table", first_page) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING',
    [range.stream, range.schema, range.table, range.firstPage],
  );
  return rowCount === 1;
}

/** In the same transaction, behind the rows. */
export async function noteRange(writer: Connection, range: RangeKey, rows: number, bytes: number): Promise<void> {
  await ask(
    writer,
    'UPDATE cutover.copied_range SET rows = $5, bytes = $6 WHERE stream = $1 AND schema = $2 AND "table" = $3 AND first_page = $4',
    [range.stream, range.schema, range.table, range.firstPage, rows, bytes],
  );
}

/**
 * Lets the streams run: every range has come. May be called again by the same attempt until it has succeeded once.
 *
 * @param ranges how many there are; fewer are here where this is a server that failed over and had lost some
 * @throws CutoverError `copy_interrupted`
 */
export async function releaseRun(destination: Connection, run: Run, ranges: number): Promise<void> {
  await inTransaction(destination, async () => {
    // For update: nothing else may hold it, so that no transaction of a range is still under way.
    await destination.query('SELECT FROM cutover.range_copy WHERE migration = $1 FOR UPDATE', [run.migration]);
    await expectRun(destination, run);
    const { rows } = await destination.query<{ n: number }>(
      'SELECT count(*)::int AS n FROM cutover.copied_range WHERE stream = ANY ($1)',
      [run.streams],
    );
    if (rows[0]?.n !== ranges) throw interrupted(run.streams.join(', '), 'ranges that had come are gone');
    for (const stream of run.streams) await destination.query(releasing(stream));
    await destination.query('DELETE FROM cutover.copied_range WHERE stream = ANY ($1)', [run.streams]);
    await destination.query('DELETE FROM cutover.range_copy WHERE migration = $1', [run.migration]);
  });
}

/** Of a migration that is removed: nothing of it is brought any more. May be called again, and where there was nothing. */
export async function forgetRanges(destination: Connection, migration: string): Promise<void> {
  const { rows } = await destination.query<{ present: boolean }>(
    `SELECT to_regclass('cutover.range_copy') IS NOT NULL AS present`,
  );
  if (rows[0]?.present !== true) return;
  const prefix = `cutover_${migration}_`;
  await destination.query(
    `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND starts_with(application_name, $1) AND application_name ~ '_copy$'`,
    [prefix],
  );
  await destination.query('DELETE FROM cutover.range_copy WHERE migration = $1', [migration]);
  await destination.query('DELETE FROM cutover.copied_range WHERE starts_with(stream, $1)', [prefix]);
}
