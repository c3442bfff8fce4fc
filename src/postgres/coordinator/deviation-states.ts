/**
 * One task: let shards hand on what PostgreSQL has of a `numeric` when it computes a deviation: the sum, and the sum of the squares.
 *
 * No built-in aggregates answer both out of one pass. Two of PostgreSQL's own functions do: they take one state (`numeric_accum`) and
 * answer its sum (`numeric_sum`) and all of it (`numeric_serialize`, by which parallel workers hand it on). Only a superuser may make them,
 * on the shards and at the coordinator. postgres_fdw sends them because they belong to an extension there, and what belongs to one is taken
 * to be the same on both sides (PostgreSQL documentation, F.38.1.5): plpgsql, which every database has. The form of a state is PostgreSQL's
 * own and may change: every shard is asked for the state of a sample first, and states are used only where all answer what is expected.
 */
import type { Connection } from '../connection.js';

/** The extension that the aggregates are a part of at the coordinator. */
export const STATES_EXTENSION = 'plpgsql';

const aggregate = (name: string, last: string): string => `
  IF to_regprocedure('cutover_shards.${name}(numeric)') IS NULL THEN
    CREATE AGGREGATE cutover_shards.${name}(numeric) (SFUNC = numeric_accum, STYPE = internal, FINALFUNC = ${last}, PARALLEL = SAFE);
  END IF;`;
const AGGREGATES = aggregate('deviation_sum', 'numeric_sum') + aggregate('deviation_state', 'numeric_serialize');

/** Also where functions are nobody's but their owner's unless this is said (ALTER DEFAULT PRIVILEGES). */
const FOR_ALL = 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cutover_shards TO PUBLIC;';

/** On a shard that has the schema of two-phase.ts. Nothing where the role is no superuser. May be run again. */
export const DEVIATION_STATES_DDL = `
DO $body$ BEGIN
  IF current_setting('is_superuser') = 'on' THEN ${AGGREGATES} ${FOR_ALL} END IF;
END $body$;
`;

const belongs = (name: string): string => `
  IF NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND deptype = 'e'
      AND objid = 'cutover_shards.${name}(numeric)'::regprocedure) THEN
    ALTER EXTENSION ${STATES_EXTENSION} ADD AGGREGATE cutover_shards.${name}(numeric);
  END IF;`;

/**
 * At the coordinator, as a superuser. May be run again.
 *
 * A state is eight bytes that count; the sum, and the sum of the squares, each as four numbers of four bytes (how many digits of base 10000
 * follow, the weight of the first, the sign, the scale) and two bytes for a digit; twelve bytes for moving windows; and three times eight
 * that count NaN, Infinity and -Infinity (PostgreSQL's source, numeric_serialize in src/backend/utils/adt/numeric.c). Four digits are
 * taken at a time.
 */
export const COORDINATOR_STATES_DDL = `
CREATE SCHEMA IF NOT EXISTS cutover_shards;
GRANT USAGE ON SCHEMA cutover_shards TO PUBLIC;
CREATE OR REPLACE FUNCTION cutover_shards.squares_of(state bytea) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $function$
DECLARE
  place int := 24 + 2 * (get_byte(state, 10) * 256 + get_byte(state, 11));
  digits int := get_byte(state, place + 2) * 256 + get_byte(state, place + 3);
  weight int := ('x' || encode(substr(state, place + 5, 4), 'hex'))::bit(32)::int4;
  scale int := get_byte(state, place + 14) * 256 + get_byte(state, place + 15);
  taken int := 0;
  four int8;
  squares text := '';
  missing int;
BEGIN
  IF substr(state, length(state) - 23) <> '\\x000000000000000000000000000000000000000000000000' THEN
    RETURN 'NaN';
  END IF;
  WHILE taken < digits LOOP
    four := ('x' || rpad(encode(substr(state, place + 17 + 2 * taken, least(8, 2 * (digits - taken))), 'hex'), 16, '0'))::bit(64)::int8;
    squares := squares
      || lpad(((four >> 48) * 1000000000000 + (four >> 32 & 65535) * 100000000 + (four >> 16 & 65535) * 10000 + (four & 65535))::text, 16, '0');
    taken := taken + 4;
  END LOOP;
  -- Zeros at the end are not in the state, and some too many are now: as many decimals as the scale says.
  missing := scale - 4 * (taken - 1 - weight);
  squares := CASE WHEN missing < 0 THEN left(squares, missing) ELSE squares || repeat('0', missing) END;
  RETURN (squares || 'e-' || scale)::numeric;
END
$function$;
DO $body$ BEGIN ${AGGREGATES} ${belongs('deviation_sum')} ${belongs('deviation_state')} ${FOR_ALL} END $body$;
`;

/** Each part of a state is in it: digits on both sides of the point, both signs, zeros that are left out, NaN and both infinities. */
const SAMPLE = `
  SELECT encode(cutover_shards.deviation_state(value), 'hex') AS state, cutover_shards.deviation_sum(value)::text AS sum
  FROM unnest('{1234567890123.4500,-0.00001,NULL,NaN,-7,Infinity,-Infinity,1e30}'::numeric[]) value`;
const SAMPLE_STATE = [
  '0000000000000004', // so many numbers
  '0000000a000000070000000000000005', // of their sum: digits, weight, sign, scale
  '0064000000000000000109291a85007411932328',
  '000000130000000f000000000000000a', // of the sum of their squares
  '00010000000000000000000000000000000000011479169b14cb21dd04b51890234100000064',
  '000000050000000000000001', // the largest scale, and of how many
  '000000000000000100000000000000010000000000000001', // NaN, Infinity and -Infinity
].join('');

/** Whether a shard's role may use the aggregates there, and states have the form that is known. */
export async function handsOnStates(shard: Connection): Promise<boolean> {
  const { rows: made } = await shard.query<{ made: boolean }>(
    `SELECT to_regprocedure('cutover_shards.deviation_state(numeric)') IS NOT NULL
       AND to_regprocedure('cutover_shards.deviation_sum(numeric)') IS NOT NULL AS made`,
  );
  if (made[0]?.made !== true) return false;
  const { rows } = await shard.query<{ state: string; sum: string }>(SAMPLE);
  return rows[0]?.state === SAMPLE_STATE && rows[0].sum === 'NaN';
}

/** Whether a coordinator's role may make them there. */
export async function mayTakeStates(coordinator: Connection): Promise<boolean> {
  const { rows } = await coordinator.query<{ may: boolean }>(
    `SELECT current_setting('is_superuser') = 'on' AND EXISTS (SELECT FROM pg_extension WHERE extname = $1) AS may`,
    [STATES_EXTENSION],
  );
  return rows[0]?.may === true;
}

/** Columns whose values are few, with how many they are, by {@link columnKey}. */
export type FewValues = ReadonlyMap<string, number>;

/** Names cannot contain a zero byte, so no two columns share a key. */
export function columnKey(schema: string, table: string, column: string): string {
  return [schema, table, column].join('\0');
}

/**
 * A state is read for some microseconds and saves a tenth of one for each row: for every group there must be some hundred rows.
 * Nobody knows how many groups a read will have; the statistics know of which columns there cannot be many.
 */
export const GROUPS_MAX = 1_000;

/**
 * Of the coordinator, as it has been made and analysed.
 *
 * @returns null: it does not send the aggregates to its shards
 */
export async function readFewValues(coordinator: Connection): Promise<FewValues | null> {
  const { rows: takes } = await coordinator.query(
    `SELECT FROM pg_foreign_server s, pg_options_to_table(s.srvoptions) o
     WHERE s.srvname ~ '^cutover_shard_[0-9]+$' AND o.option_name = 'extensions' AND $1 = ANY (string_to_array(o.option_value, ','))
     LIMIT 1`,
    [STATES_EXTENSION],
  );
  if (takes.length === 0) return null;
  const { rows } = await coordinator.query<{ schema: string; table: string; column: string; values: number }>(
    `SELECT n.schemaname AS schema, n.tablename AS table, n.attname AS column, max(n.n_distinct)::float8 AS values
     FROM pg_stats n WHERE n.n_distinct BETWEEN 1 AND $1 AND n.schemaname !~ '^(pg_|cutover|information_schema$)'
     GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`,
    [GROUPS_MAX],
  );
  return new Map(rows.map(({ schema, table, column, values }) => [columnKey(schema, table, column), values]));
}
