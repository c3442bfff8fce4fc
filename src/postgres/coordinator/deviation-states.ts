/**
 * One task: let shards hand on what PostgreSQL has of a `numeric` when it computes a deviation: the sum, and the sum of the squares.
 *
 * No built-in aggregates answer both out of one pass. Two of PostgreSQL's own functions do: they take one state (`numeric_accum`) and
 * answer its sum (`numeric_sum`) and all of it (`numeric_serialize`, by which parallel workers hand it on). Only a superuser may make them,
 * on the shards and at the coordinator. postgres_fdw sends them because they belong to an extension there, and what belongs to one is taken
 * to be the same on both sides (PostgreSQL documentation, F.38.1.5): plpgsql, which every database has. The form of a state is PostgreSQL's
 * own and may change: every shard is asked for the state of a sample first, and states are used only where all answer what is expected.
 */
import { createHash } from 'node:crypto';
import type { Connection } from '../connection.js';

/** The extension that the aggregates are a part of at the coordinator. */
export const STATES_EXTENSION = 'plpgsql';

const aggregate = (name: string, last: string): string => `
  IF to_regprocedure('cutover_shards.${name}(numeric)') IS NULL THEN
    CREATE AGGREGATE cutover_shards.${name}(numeric) (SFUNC = pg_catalog.numeric_accum, STYPE = internal, FINALFUNC = pg_catalog.${last}, PARALLEL = SAFE);
  END IF;`;
const AGGREGATES = aggregate('deviation_sum', 'numeric_sum') + aggregate('deviation_state', 'numeric_serialize');

/** Also where functions are nobody's but their owner's unless this is said (ALTER DEFAULT PRIVILEGES). */
const FOR_ALL =
  'GRANT EXECUTE ON FUNCTION cutover_shards.deviation_sum(numeric), cutover_shards.deviation_state(numeric) TO PUBLIC;';

/** On a shard that has the schema of two-phase.ts. Nothing where the role is no superuser. May be run again. */
export const DEVIATION_STATES_DDL = `
DO $body$ BEGIN
  IF current_setting('is_superuser') = 'on' THEN ${AGGREGATES} ${FOR_ALL} END IF;
END $body$;
`;

const integerAt = (place: string): string => `('x' || encode(substr(state, ${place}, 8), 'hex'))::bit(64)::int8`;

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
  IF substr(state, length(state) - 23) <> decode(repeat('00', 24), 'hex') THEN
    RETURN 'NaN';
  END IF;
  WHILE taken < digits LOOP
    four := ('x' || rpad(encode(substr(state, place + 17 + 2 * taken, least(8, 2 * (digits - taken))), 'hex'), 16, '0'))::bit(64)::int8;
    squares := squares
      || lpad(((four >> 48) * 1000000000000 + (four >> 32 & 65535) * 100000000 + (four >> 16 & 65535) * 10000 + (four & 65535))::text, 16, '0');
    taken := taken + 4;
  END LOOP;
  -- Zeros at the end are not in the state, and some too many are now: as many decimals as the scale says.
  -- A numeric has 16383 of them at most; what is behind those is in no answer.
  scale := least(scale, 16383);
  missing := scale - 4 * (taken - 1 - weight);
  squares := CASE WHEN missing < 0 THEN left(squares, missing) ELSE squares || repeat('0', missing) END;
  RETURN ('0' || squares || 'e-' || scale)::numeric;
END
$function$;
CREATE OR REPLACE FUNCTION cutover_shards.count_of(state bytea) RETURNS int8
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $function$
BEGIN
  RETURN ${integerAt('1')} + ${integerAt('length(state) - 23')} + ${integerAt('length(state) - 15')} + ${integerAt('length(state) - 7')};
END
$function$;
DO $body$ BEGIN ${AGGREGATES} ${belongs('deviation_sum')} ${belongs('deviation_state')} ${FOR_ALL} END $body$;
GRANT EXECUTE ON FUNCTION cutover_shards.squares_of(bytea), cutover_shards.count_of(bytea) TO PUBLIC;
`;

/** By which a coordinator made with another text is told from one that is in step. */
export const COORDINATOR_STATES_VERSION = createHash('sha256')
  .update(COORDINATOR_STATES_DDL)
  .digest('hex')
  .slice(0, 16);

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

/**
 * The aggregates as they are made above, which only a superuser can have made: others of their names are not called, least of all by one.
 */
const GENUINE = `
  SELECT p.oid FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
  WHERE a.aggtransfn = 'pg_catalog.numeric_accum'::regproc AND a.aggtranstype = 'internal'::regtype
    AND (p.oid, a.aggfinalfn) IN ((to_regprocedure('cutover_shards.deviation_state(numeric)'), 'pg_catalog.numeric_serialize'::regproc),
      (to_regprocedure('cutover_shards.deviation_sum(numeric)'), 'pg_catalog.numeric_sum'::regproc))`;

/** Whether every role of a shard may use the aggregates there, and states have the form that is known. */
export async function handsOnStates(shard: Connection): Promise<boolean> {
  const { rows: made } = await shard.query(
    `${GENUINE} AND EXISTS (
      SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) WHERE grantee = 0 AND privilege_type = 'EXECUTE')`,
  );
  if (made.length < 2) return false;
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

/** Whether the coordinator has what is made there: whoever restores or upgrades its server has no members of plpgsql any more. */
export async function takesStates(coordinator: Connection): Promise<boolean> {
  const { rows } = await coordinator.query<{ members: boolean; reader: boolean; sent: boolean }>(
    `SELECT 2 = (SELECT count(*) FROM (${GENUINE}) g JOIN pg_depend d ON d.objid = g.oid AND d.classid = 'pg_proc'::regclass
        AND d.deptype = 'e') AS members,
      to_regprocedure('cutover_shards.squares_of(bytea)') IS NOT NULL
        AND to_regprocedure('cutover_shards.count_of(bytea)') IS NOT NULL AS reader,
      EXISTS (SELECT FROM pg_foreign_server s, pg_options_to_table(s.srvoptions) o WHERE s.srvname ~ '^cutover_shard_[0-9]+$'
        AND o.option_name = 'extensions' AND $1 = ANY (string_to_array(o.option_value, ','))) AS sent`,
    [STATES_EXTENSION],
  );
  const [row] = rows;
  return row !== undefined && row.members && row.reader && row.sent;
}

/** Of tables that have a numeric column: of all, this would take seconds with thousands of tables. A superuser may read it. */
const FEW_VALUES = `
  SELECT n.nspname AS schema, c.relname AS table, a.attname AS column, max(s.stadistinct)::float8 AS values
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_statistic s ON s.starelid = c.oid
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = s.staattnum
  WHERE c.relkind IN ('p', 'f') AND n.nspname !~ '^(pg_|cutover|information_schema$)' AND s.stadistinct BETWEEN 1 AND $1
    AND EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = c.oid AND x.atttypid = 'numeric'::regtype)
  GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`;

/**
 * Of the coordinator, as it has been made and analysed. Never throws: without it deviations take longer.
 *
 * @returns null: it does not send the aggregates to its shards
 */
export async function readFewValues(coordinator: Connection): Promise<FewValues | null> {
  try {
    if (!(await takesStates(coordinator))) return null;
    const { rows } = await coordinator.query<{ schema: string; table: string; column: string; values: number }>(
      FEW_VALUES,
      [GROUPS_MAX],
    );
    return new Map(rows.map(({ schema, table, column, values }) => [columnKey(schema, table, column), values]));
  } catch {
    return null;
  }
}
