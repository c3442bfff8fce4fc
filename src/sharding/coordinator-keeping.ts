/**
 * One task: make the coordinator of a configured database or bring it in step, with what the shards need to commit together, and tell
 * whether reads may go there.
 */
import type { Config } from '../config/config.js';
import { messageOf } from '../errors/errors.js';
import { withConnection } from '../postgres/connection.js';
import { analyzeCoordinator } from '../postgres/coordinator/analyze.js';
import { isHeld } from '../postgres/coordinator/barrier.js';
import { createCoordinatorDatabase, dropCoordinator } from '../postgres/coordinator/database.js';
import { DEVIATION_STATES_DDL } from '../postgres/coordinator/deviation-states.js';
import { readFewValues, type FewValues } from '../postgres/coordinator/few-values.js';
import {
  coordinatorDifference,
  leftOutOf,
  makeCoordinator,
  type MadeCoordinator,
} from '../postgres/coordinator/make.js';
import type { LeftOut } from '../postgres/coordinator/spec.js';
import { engineEndpoint, type Endpoint } from '../postgres/endpoint.js';
import { DROP_TWO_PHASE, TWO_PHASE_DDL } from '../postgres/two-phase.js';
import { coordinatorAt, coordinatorSpec } from './coordinator-place.js';

/**
 * Reads may go there, but for those that name something it does not have, and where groups are few, as `readFewValues` answers it; or why
 * they may not. `outOfStep`: it could be brought in step.
 */
export type CoordinatorState =
  | { readonly ready: true; readonly leftOut: readonly LeftOut[]; readonly fewValues: FewValues | null }
  | { readonly ready: false; readonly outOfStep: boolean; readonly reason: string };

/** Somebody else is at work on it, and nothing was known of it before. */
export const BEING_CHANGED: CoordinatorState = {
  ready: false,
  outOfStep: false,
  reason: 'the schema is being changed',
};
export const ANALYZE_LIMITS = { deadlineMs: 60_000, tableMs: 10_000 };
const NO_SUCH_DATABASE = '3D000';
const LOOK_TIMEOUT_MS = 10_000;

/**
 * Makes the coordinator or brings it in step with the shards' schema and the configured users. May be called again.
 *
 * @throws CutoverError `coordinator_failed` | `schema_dump_failed` | `schema_admin_missing` | `database_unknown`
 */
export async function keepCoordinator(config: Config, database: string): Promise<MadeCoordinator> {
  const shard = engineEndpoint(config, database);
  const place = coordinatorAt(config, database, shard);
  for (const endpoint of coordinatorSpec(config, database).shards)
    await withConnection(endpoint, (connection) => connection.query(TWO_PHASE_DDL + DEVIATION_STATES_DDL));
  await withConnection(maintenanceOf(config, place, shard), (server) =>
    withConnection(shard, (first) => createCoordinatorDatabase(server, place.database, first)),
  );
  return withConnection(place, async (connection) => {
    const made = await makeCoordinator(connection, coordinatorSpec(config, database));
    await analyzeCoordinator(connection, ANALYZE_LIMITS);
    return made;
  });
}

/** Where the database of the coordinator can be made and dropped. */
function maintenanceOf(config: Config, place: Endpoint, shard: Endpoint): Endpoint {
  return { ...place, database: config.sharding.coordinator === null ? shard.database : 'postgres' };
}

/**
 * Takes the coordinator and what the shards needed beside it away: for shards that never served. May be called again.
 *
 * @throws CutoverError `coordinator_failed` where a database of its name was not made by Cutover
 */
export async function forgetCoordinator(config: Config, database: string): Promise<void> {
  const shard = engineEndpoint(config, database);
  const place = coordinatorAt(config, database, shard);
  await withConnection(maintenanceOf(config, place, shard), (server) => dropCoordinator(server, place.database));
  for (const endpoint of coordinatorSpec(config, database).shards)
    await withConnection(endpoint, (connection) => connection.query(DROP_TWO_PHASE));
}

/**
 * Never throws: without a coordinator only statements of one shard run.
 *
 * @param before what it was when it was last looked at: that stays, while a change of the schema lets readers wait at it
 */
export async function coordinatorState(
  config: Config,
  database: string,
  timeoutMs: number,
  before: CoordinatorState = BEING_CHANGED,
): Promise<CoordinatorState> {
  try {
    const place = coordinatorAt(config, database, engineEndpoint(config, database));
    return await withConnection(
      place,
      async (connection) => {
        if (await isHeld(connection)) return before;
        const [difference] = await coordinatorDifference(connection, coordinatorSpec(config, database));
        if (difference !== undefined)
          return { ready: false, outOfStep: true, reason: `the coordinator is not in step: ${difference}` };
        return {
          ready: true,
          leftOut: await leftOutOf(connection),
          fewValues: await readFewValues(connection),
        };
      },
      { connectTimeoutMs: timeoutMs, queryTimeoutMs: LOOK_TIMEOUT_MS },
    );
  } catch (error) {
    if ((error as { code?: string }).code === NO_SUCH_DATABASE)
      return { ready: false, outOfStep: false, reason: 'there is no coordinator' };
    return { ready: false, outOfStep: false, reason: `the coordinator was not looked at: ${messageOf(error)}` };
  }
}
