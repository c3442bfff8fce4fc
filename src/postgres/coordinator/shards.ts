/** One task: read from all shards what their coordinator is made from. */
import { withConnection, type Connection } from '../connection.js';
import type { Endpoint } from '../endpoint.js';
import { serverVersion } from '../streams.js';
import { handsOnStates, mayTakeStates } from './deviation-proof.js';
import { COORDINATOR_STATES_VERSION, STATES_EXTENSION } from './deviation-states.js';
import { differences, readItems, type Items } from './items.js';
import { mappedUsers, serverOptions, type ServerOptions } from './servers.js';
import { readSettings, type DatabaseSetting } from './settings.js';
import { readDefiners, readTables } from './shape.js';
import { coordinatorFailed, type CoordinatorSpec, type CoordinatorUser, type TableShape } from './spec.js';

/** What the coordinator shall be, and is described by when it has been made. */
export interface Wanted {
  readonly tables: readonly TableShape[];
  readonly settings: readonly DatabaseSetting[];
  readonly servers: readonly ServerOptions[];
  readonly users: readonly CoordinatorUser[];
  /** see deviation-states.ts */
  readonly deviationStates: boolean;
  /** the shards' schema with the placements, servers and users; no passwords, nor anything computed from one */
  readonly items: Items;
}

interface ReadShard {
  readonly endpoint: Endpoint;
  readonly items: Items;
  readonly tables: readonly TableShape[];
  readonly definers: readonly string[];
  readonly settings: readonly DatabaseSetting[];
  readonly deviationStates: boolean;
}

/** Sentences about what the shards do not have in common; at most `max`. Schema of shard 0 against each other one. */
export async function shardDifferences(spec: CoordinatorSpec, max: number): Promise<readonly string[]> {
  return differencesAmong(await readAll(spec), max);
}

/**
 * Reads all shards at once, each in a connection of its own.
 *
 * @throws CutoverError `coordinator_failed` when the shards' schemas are not equal: then no coordinator could be right
 */
export async function readWanted(coordinator: Connection, spec: CoordinatorSpec): Promise<Wanted> {
  const shards = await readAll(spec);
  const [first] = shards;
  const [difference] = differencesAmong(shards, 1);
  if (first === undefined) throw coordinatorFailed(coordinator.database ?? '', 'it has no shards');
  if (difference !== undefined) throw coordinatorFailed(coordinator.database ?? '', `the shards differ: ${difference}`);
  const { rows } = await coordinator.query<{ role: string }>('SELECT current_user AS role');
  const version = await serverVersion(coordinator);
  const deviationStates = shards.every((shard) => shard.deviationStates) && (await mayTakeStates(coordinator));
  const shippable = [
    ...(await shippableExtensions(coordinator, first.items)),
    ...(deviationStates ? [STATES_EXTENSION] : []),
  ];
  const servers = spec.shards.map((endpoint) => serverOptions(endpoint, spec, shippable, version));
  const users = mappedUsers(spec, rows[0]?.role ?? '', first.definers);
  const items = new Map([
    ...first.items,
    ...ownItems(spec, first, servers, users),
    ...(deviationStates ? [['states of deviations', COORDINATOR_STATES_VERSION] as const] : []),
  ]);
  return { tables: first.tables, settings: first.settings, servers, users, deviationStates, items };
}

/** Extensions of the shards that the coordinator's server would install in the same version. */
async function shippableExtensions(coordinator: Connection, items: Items): Promise<readonly string[]> {
  const { rows } = await coordinator.query<{ name: string; version: string; item: string }>(
    `SELECT name, default_version AS version, format('extension %I', name) AS item FROM pg_available_extensions
     WHERE name NOT IN ('plpgsql', 'postgres_fdw') ORDER BY 1`,
  );
  return rows.filter(({ item, version }) => items.get(item) === version).map(({ name }) => name);
}

function ownItems(
  spec: CoordinatorSpec,
  shard: ReadShard,
  servers: readonly ServerOptions[],
  users: readonly CoordinatorUser[],
): readonly (readonly [string, string])[] {
  return [
    ...shard.tables.map(
      (table) => [`placement of ${table.schema}.${table.name}`, JSON.stringify(spec.placementOf(table))] as const,
    ),
    ['omnisharded tables', `on shard ${(spec.omnishardedShard ?? 0).toString()}`] as const,
    ...servers.map((options, shard) => [`server of shard ${shard.toString()}`, JSON.stringify(options)] as const),
    ...users.map(({ role, logins }) => [`user ${role}`, logins.map(({ user }) => user).join(', ')] as const),
    ...shard.settings.map(({ role, name, value }) => [`setting ${name} of ${role ?? 'every session'}`, value] as const),
  ];
}

function readAll(spec: CoordinatorSpec): Promise<readonly ReadShard[]> {
  const users = spec.users.map(({ role }) => role);
  return Promise.all(
    spec.shards.map((endpoint) =>
      withConnection(endpoint, async (connection) => ({
        endpoint,
        items: await readItems(connection),
        tables: await readTables(connection),
        definers: await readDefiners(connection),
        settings: await readSettings(connection, users),
        deviationStates: await handsOnStates(connection),
      })),
    ),
  );
}

function differencesAmong(shards: readonly ReadShard[], max: number): readonly string[] {
  const [first, ...others] = shards;
  if (first === undefined) return [];
  return others
    .flatMap((other, at) => {
      const sides = { left: 'on shard 0', right: `on shard ${(at + 1).toString()}` };
      return differences(first.items, other.items, sides, max);
    })
    .slice(0, max);
}
