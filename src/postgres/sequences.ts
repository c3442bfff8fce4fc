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

/**
 * What one side hands to the other: the sequence's name, schema-qualified and quoted, usable as regclass, and as PostgreSQL writes a
 * numeric the last value issued plus the gap, in the direction of the increment, within the sequence's limits.
 */
export type SequenceValues = Readonly<Record<string, string>>;

/** Values skipped on each move, for callers of nextval that bypass the tables. */
export const SEQUENCE_GAP = 1000;
const WITHHELD_SHOWN_MAX = 10;

/** `s`, `c`, `n`: every sequence of the application, whatever owns it. */
export const SEQUENCES_TO_MOVE = `pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname NOT IN ('cutover', 'cutover_shards') AND c.relpersistence <> 't'`;

/**
 * OFFSET 0 keeps the inner query apart: `pg_sequence_last_value` opens the sequence, so it is called once for each. From 18 on it is
 * NULL for who may not read the sequence, too, and an error before (_measured_); so the privilege is asked only where it is NULL.
 */
const READ_SQL = {
  name: 'cutover_sequences',
  text: `
  SELECT coalesce(json_object_agg(format('%I.%I', nspname, relname), (CASE WHEN seqincrement > 0
      THEN least(last::numeric + seqincrement::numeric * $1::int, seqmax)
      ELSE greatest(last::numeric + seqincrement::numeric * $1::int, seqmin) END)::text) FILTER (WHERE last IS NOT NULL), '{}') AS values,
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
  const { rows } = await side.query<{ values: SequenceValues; withheld: readonly string[] }>({
    ...READ_SQL,
    values: [SEQUENCE_GAP],
  });
  const row = rows[0];
  invariant(row, 'an aggregate has one row');
  refuseWithheld(side, row.withheld);
  return row.values;
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

/** @throws CutoverError `sequence_withheld` naming what this role may not read and set */
export async function requireSequences(side: Connection): Promise<void> {
  refuseWithheld(side, await withheldSequences(side));
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

/** What each destination was given ahead of the pause, by the connection: a server that was started anew has another one. */
const givenAhead = new WeakMap<Connection, SequenceValues>();

/**
 * Ahead of the pause: moves the destination's sequences on already, so that the pause has only those to move that issue values until
 * then. May be called again; a value skipped for nothing harms nothing.
 */
export async function advanceAhead(
  destination: Connection,
  side: Side,
  epoch: number,
  values: SequenceValues,
): Promise<void> {
  givenAhead.delete(destination);
  const { skipped } = await advance(destination, side, epoch, Object.entries(values));
  if (skipped === undefined) givenAhead.set(destination, values);
}

/**
 * Moves the destination's sequences on, never back; does nothing when it is open already. May be called again.
 *
 * @returns how many were moved; those that stand where `advanceAhead` put them are not among them
 */
export async function advanceSequences(
  destination: Connection,
  side: Side,
  epoch: number,
  values: SequenceValues,
): Promise<number> {
  const before = givenAhead.get(destination);
  const issued = Object.entries(values).filter(([name, value]) => before?.[name] !== value);
  return (await advance(destination, side, epoch, issued)).advanced;
}

interface Advanced {
  readonly advanced: number;
  /** why none was moved: this side serves, or a later epoch closed it */
  readonly skipped?: string;
}

async function advance(
  destination: Connection,
  side: Side,
  epoch: number,
  values: readonly (readonly [name: string, value: string])[],
): Promise<Advanced> {
  const { rows } = await destination.query<{ answer: Advanced & Side }>({
    name: 'cutover_advance',
    text: 'SELECT cutover.advance_sequences($1, $2::text[], $3::bigint[]) AS answer',
    values: [epoch, values.map(([name]) => name), values.map(([, value]) => value)],
  });
  const answer = rows[0]?.answer;
  if (!answer || !sameSide(answer, side))
    throw new CutoverError('wrong_server', {
      expected: side.systemIdentifier,
      actual: answer?.systemIdentifier ?? 'none',
    });
  return answer;
}

/** By how much each sequence counts: its name, schema-qualified and quoted, and as PostgreSQL writes a bigint its increment. */
export type SequenceIncrements = Readonly<Record<string, string>>;

export async function sequenceIncrements(side: Connection): Promise<SequenceIncrements> {
  const { rows } = await side.query<{ increments: SequenceIncrements }>({
    name: 'cutover_increments',
    text: `SELECT coalesce(json_object_agg(format('%I.%I', n.nspname, c.relname), s.seqincrement::text), '{}') AS increments
           FROM ${SEQUENCES_TO_MOVE}`,
  });
  return rows[0]?.increments ?? {};
}

/** What one shard of `shards` counts by where a sequence of a side with `from` shards is given. */
function incrementOf(increment: string, from: number, shards: number): bigint {
  const given = BigInt(increment);
  // A side that was made by a move counts by as many as it has shards; one that was not may count by one on each of them.
  const unit = given % BigInt(from) === 0n ? given / BigInt(from) : given;
  return unit * BigInt(shards);
}

/**
 * Lets the sequences of one shard that does not serve count by as many as its side has shards, and puts those that never issued a value
 * on a place of their own: with `spread` the values of two shards never meet. May be called again.
 *
 * @param increments of a shard of the side that serves, which has `from` shards
 * @param place which of how many this shard is
 */
export async function setIncrements(
  shard: Connection,
  increments: SequenceIncrements,
  from: number,
  place: { readonly number: number; readonly of: number },
): Promise<void> {
  const known = await sequenceIncrements(shard);
  for (const [name, increment] of Object.entries(increments)) {
    const wanted = incrementOf(increment, from, place.of);
    if (known[name] === undefined) continue;
    if (known[name] !== wanted.toString())
      await shard.query(`ALTER SEQUENCE ${name} INCREMENT BY ${wanted.toString()}`);
    const offset = (wanted / BigInt(place.of)) * BigInt(place.number);
    await shard.query(
      `SELECT setval(s.seqrelid, CASE WHEN s.seqincrement > 0 THEN least(s.seqstart + $2::numeric, s.seqmax)
         ELSE greatest(s.seqstart + $2::numeric, s.seqmin) END::bigint)
       FROM pg_sequence s WHERE s.seqrelid = $1::regclass AND pg_sequence_last_value(s.seqrelid) IS NULL`,
      [name, offset.toString()],
    );
  }
}

/** Of the values that several shards hand over the ones that are furthest in the direction of the increment. */
export function furthest(all: readonly SequenceValues[], increments: SequenceIncrements): SequenceValues {
  const [first, ...rest] = all;
  if (rest.length === 0) return first ?? {};
  const values: Record<string, string> = {};
  for (const given of all)
    for (const [name, value] of Object.entries(given)) {
      const before = values[name];
      const upwards = !(increments[name] ?? '').startsWith('-');
      if (before === undefined || BigInt(value) > BigInt(before) === upwards) values[name] = value;
    }
  return values;
}

/** The values for one shard of several: each begins one step further than the one before it, and goes on by as many steps as there are. */
export function spread(
  values: SequenceValues,
  increments: SequenceIncrements,
  shard: number,
  shards: number,
): SequenceValues {
  if (shards === 1) return values;
  const placed = Object.entries(values).map(([name, value]) => {
    const unit = BigInt(increments[name] ?? '1') / BigInt(shards);
    return [name, (BigInt(value) + unit * BigInt(shard)).toString()];
  });
  return Object.fromEntries(placed) as SequenceValues;
}
