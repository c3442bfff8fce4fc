/**
 * One task: prove that shards hand on the states of deviations in the form that is known, and that the coordinator takes them.
 *
 * The form is PostgreSQL's own and may change: every shard is asked for the state of a sample, and states are used only where all answer
 * what is expected. What is made for it: deviation-states.ts.
 */
import type { Connection } from '../connection.js';
import { STATES_EXTENSION } from './deviation-states.js';

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
 * The aggregates as deviation-states.ts makes them, which only a superuser can have made: others of their names are not called, least of all by one.
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

/** Whether the coordinator has what is made there: whoever restores or upgrades its server has no members of plpgsql any more. */
export async function takesStates(coordinator: Connection): Promise<boolean> {
  const { rows } = await coordinator.query<{ members: boolean; reader: boolean; sent: boolean }>(
    `SELECT 2 = (SELECT count(*) FROM (${GENUINE}) g JOIN pg_depend d ON d.objid = g.oid AND d.classid = 'pg_proc'::regclass
        AND d.deptype = 'e') AS members,
      num_nulls(to_regprocedure('cutover_shards.squares_of(bytea)'), to_regprocedure('cutover_shards.count_of(bytea)'),
        to_regprocedure('cutover_shards.total(int8)'), to_regprocedure('cutover_shards.total(numeric)')) = 0 AS reader,
      EXISTS (SELECT FROM pg_foreign_server s, pg_options_to_table(s.srvoptions) o WHERE s.srvname ~ '^cutover_shard_[0-9]+$'
        AND o.option_name = 'extensions' AND $1 = ANY (string_to_array(o.option_value, ','))) AS sent`,
    [STATES_EXTENSION],
  );
  const [row] = rows;
  return row !== undefined && row.members && row.reader && row.sent;
}
