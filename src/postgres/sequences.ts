/**
 * One task: carry sequence values to the side that will serve, so that no value is ever issued twice.
 *
 * Logical replication does not carry sequences (PostgreSQL documentation, 29.8). `nextval` is not fenced, so a gap is left for
 * values handed out after the reading.
 */
import { sameSide, type Side } from '../cutover/side.js';
import { CutoverError } from '../errors/errors.js';
import type { Connection } from './connection.js';

export interface SequenceValue {
  /** schema-qualified and quoted, usable as regclass */
  readonly name: string;
  /** last value issued plus the gap, in the direction of the increment; a text because bigint exceeds number */
  readonly value: string;
}

/** Values skipped on each move, for callers of nextval that bypass the tables. */
export const SEQUENCE_GAP = 1000;

const READ_SQL = {
  name: 'cutover_sequences',
  text: `
  SELECT format('%I.%I', n.nspname, c.relname) AS name,
    (CASE WHEN s.seqincrement > 0
      THEN least(pg_sequence_last_value(s.seqrelid)::numeric + s.seqincrement::numeric * $1::int, s.seqmax)
      ELSE greatest(pg_sequence_last_value(s.seqrelid)::numeric + s.seqincrement::numeric * $1::int, s.seqmin) END)::text AS value
  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname <> 'cutover' AND c.relpersistence <> 't' AND pg_sequence_last_value(s.seqrelid) IS NOT NULL`,
};

/** Every sequence that ever issued a value: owned, identity and unowned ones; not those of the schema `cutover`. */
export async function readSequences(source: Connection): Promise<readonly SequenceValue[]> {
  const { rows } = await source.query<SequenceValue>({ ...READ_SQL, values: [SEQUENCE_GAP] });
  return rows;
}

/** Moves the destination's sequences on, never back; does nothing when it is open already. */
export async function advanceSequences(
  destination: Connection,
  side: Side,
  epoch: number,
  values: readonly SequenceValue[],
): Promise<number> {
  const { rows } = await destination.query<{
    answer: { advanced: number; systemIdentifier: string; databaseOid: number };
  }>({
    name: 'cutover_advance',
    text: 'SELECT cutover.advance_sequences($1, $2::text[], $3::bigint[]) AS answer',
    values: [epoch, values.map((v) => v.name), values.map((v) => v.value)],
  });
  const answer = rows[0]?.answer;
  if (!answer || !sameSide(answer, side))
    throw new CutoverError('wrong_server', {
      expected: side.systemIdentifier,
      actual: answer?.systemIdentifier ?? 'none',
    });
  return answer.advanced;
}
