/**
 * One task: carry sequence values to the side that will serve, so that no value is ever issued twice.
 *
 * Logical replication does not carry sequences (PostgreSQL documentation, 29.8). `nextval` is not fenced, so a gap is left for
 * values handed out after the reading.
 */
import { sameSide, type Side } from '../cutover/side.js';
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import type { Connection } from './connection.js';

/** What one side hands to the other: two arrays of equal length, each as PostgreSQL writes it. Passed on as they are. */
export interface SequenceValues {
  /** `text[]` of names, schema-qualified and quoted, usable as regclass */
  readonly names: string;
  /** `numeric[]`: last value issued plus the gap, in the direction of the increment, within the sequence's limits */
  readonly values: string;
}

/** Values skipped on each move, for callers of nextval that bypass the tables. */
export const SEQUENCE_GAP = 1000;
const WITHHELD_SHOWN_MAX = 10;

/** `s`, `c`, `n`: every sequence of the application, whatever owns it. */
export const SEQUENCES_TO_MOVE = `pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'cutover' AND c.relpersistence <> 't'`;

/**
 * OFFSET 0 keeps the inner query apart: `pg_sequence_last_value` opens the sequence, so it is called once for each. From 18 on it is
 * NULL for who may not read the sequence, too, and an error before (_measured_); so the privilege is asked only where it is NULL.
 */
const READ_SQL = {
  name: 'cutover_sequences',
  text: `
  SELECT coalesce(array_agg(format('%I.%I', nspname, relname)) FILTER (WHERE last IS NOT NULL), '{}')::text AS names,
    coalesce(array_agg(CASE WHEN seqincrement > 0
      THEN least(last::numeric + seqincrement::numeric * $1::int, seqmax)
      ELSE greatest(last::numeric + seqincrement::numeric * $1::int, seqmin) END) FILTER (WHERE last IS NOT NULL), '{}')::text AS values,
    coalesce(array_agg(format('%I.%I', nspname, relname)) FILTER (WHERE CASE WHEN last IS NULL
      THEN NOT has_sequence_privilege(seqrelid, 'USAGE, SELECT') END), '{}') AS withheld
  FROM (
    SELECT s.seqrelid, n.nspname, c.relname, s.seqincrement, s.seqmin, s.seqmax,
      pg_sequence_last_value(s.seqrelid) AS last
    FROM ${SEQUENCES_TO_MOVE}
    OFFSET 0) AS s`,
};

/**
 * Every sequence that ever issued a value: owned, identity and unowned ones; not those of the schema `cutover`.
 *
 * @throws CutoverError `sequence_withheld` where the role may not read one: passed over, it would issue its values twice
 */
export async function readSequences(side: Connection): Promise<SequenceValues> {
  const { rows } = await side.query<SequenceValues & { withheld: readonly string[] }>({
    ...READ_SQL,
    values: [SEQUENCE_GAP],
  });
  const row = rows[0];
  invariant(row, 'an aggregate has one row');
  const { names, values, withheld } = row;
  refuseWithheld(side, withheld);
  return { names, values };
}

/**
 * The sequences that this role may not read and set, schema-qualified and quoted. Each side needs both: its values are handed over, and
 * with a move in the other direction it is handed values. By the database's own words for privileges (PostgreSQL documentation, 5.8).
 */
export async function withheldSequences(side: Connection): Promise<readonly string[]> {
  const { rows } = await side.query<{ name: string }>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS name FROM ${SEQUENCES_TO_MOVE}
     WHERE NOT (has_sequence_privilege(s.seqrelid, 'USAGE, SELECT') AND has_sequence_privilege(s.seqrelid, 'UPDATE')) ORDER BY 1`,
  );
  return rows.map(({ name }) => name);
}

function refuseWithheld(side: Connection, withheld: readonly string[]): void {
  if (withheld.length === 0) return;
  const more = withheld.length - WITHHELD_SHOWN_MAX;
  const names = withheld.slice(0, WITHHELD_SHOWN_MAX).join(', ') + (more > 0 ? ` and ${more.toString()} more` : '');
  throw new CutoverError('sequence_withheld', {
    role: side.user ?? '',
    database: side.database ?? '',
    sequences: names,
  });
}

/** Moves the destination's sequences on, never back; does nothing when it is open already. */
export async function advanceSequences(
  destination: Connection,
  side: Side,
  epoch: number,
  { names, values }: SequenceValues,
): Promise<number> {
  const { rows } = await destination.query<{
    answer: { advanced: number; systemIdentifier: string; databaseOid: number };
  }>({
    name: 'cutover_advance',
    text: 'SELECT cutover.advance_sequences($1, $2::text[], $3::bigint[]) AS answer',
    values: [epoch, names, values],
  });
  const answer = rows[0]?.answer;
  if (!answer || !sameSide(answer, side))
    throw new CutoverError('wrong_server', {
      expected: side.systemIdentifier,
      actual: answer?.systemIdentifier ?? 'none',
    });
  return answer.advanced;
}

/**
 * Ahead of the pause: makes the plans of both statements and opens every sequence once on these two connections, because the
 * first look at a thousand sequences takes five times as long as the second. Moves nothing; may be called again.
 *
 * @throws CutoverError `sequence_withheld` naming what the roles of these connections may not read and set
 */
export async function rehearseSequences(source: Connection, destination: Connection, side: Side): Promise<void> {
  for (const connection of [source, destination]) {
    // As in the functions of the record: no plan whose time grows with the square of the sequences.
    await connection.query('SET enable_nestloop = off');
    refuseWithheld(connection, await withheldSequences(connection));
    await readSequences(connection);
  }
  // No sequence is named, so whatever the epoch, none is moved; the highest one gets past the check of the fence row.
  await advanceSequences(destination, side, Number.MAX_SAFE_INTEGER, { names: '{}', values: '{}' });
}
