/**
 * One task: what is made so that shards hand on what PostgreSQL has of a `numeric` when it computes a deviation, the sum and the sum of the
 * squares, and the coordinator adds up what few shards answer.
 *
 * No built-in aggregates answer both out of one pass. Two of PostgreSQL's own functions do: they take one state (`numeric_accum`) and
 * answer its sum (`numeric_sum`) and all of it (`numeric_serialize`, by which parallel workers hand it on). Only a superuser may make them,
 * on the shards and at the coordinator. postgres_fdw sends them because they belong to an extension there, and what belongs to one is taken
 * to be the same on both sides (PostgreSQL documentation, F.38.1.5): plpgsql, which every database has. The form of a state is PostgreSQL's
 * own and may change: see deviation-proof.ts.
 */
import { createHash } from 'node:crypto';

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
 *
 * `total` is `sum` for groups of a few rows, one of each shard: what `sum` prepares for many rows takes longer there than to add two.
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
CREATE OR REPLACE AGGREGATE cutover_shards.total(int8) (SFUNC = pg_catalog.int8pl, STYPE = int8, PARALLEL = SAFE);
CREATE OR REPLACE AGGREGATE cutover_shards.total(numeric) (SFUNC = pg_catalog.numeric_add, STYPE = numeric, PARALLEL = SAFE);
GRANT EXECUTE ON FUNCTION cutover_shards.squares_of(bytea), cutover_shards.count_of(bytea),
  cutover_shards.total(int8), cutover_shards.total(numeric) TO PUBLIC;
`;

/** By which a coordinator made with another text is told from one that is in step. */
export const COORDINATOR_STATES_VERSION = createHash('sha256')
  .update(COORDINATOR_STATES_DDL)
  .digest('hex')
  .slice(0, 16);
