/** One task: SHOW SHARDS: where each shard of each database is, and whether reads over several are answered. */
import type { Config } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import { engineEndpoint } from '../postgres/endpoint.js';
import type { AdminResult } from '../proxy/contract.js';
import { coordinatorState, type CoordinatorState } from '../sharding/coordinator-keeping.js';
import { coordinatorAt } from '../sharding/coordinator-place.js';
import { bigint, table, text, type Column } from './table.js';

interface Row {
  readonly database: string;
  /** null: the coordinator */
  readonly shard: number | null;
  readonly host: string;
  readonly port: number;
  readonly databaseName: string;
  readonly state: string | null;
}

const COLUMNS: readonly Column<Row>[] = [
  text('database', ({ database }) => database),
  bigint('shard', ({ shard }) => shard),
  text('role', ({ shard }) => (shard === null ? 'coordinator' : 'shard')),
  text('addr', ({ host }) => host),
  bigint('port', ({ port }) => port),
  text('database_name', ({ databaseName }) => databaseName),
  text('state', ({ state }) => state),
];

/** Servers that do not answer have that as the state of their coordinator; shards are not asked. */
export async function showShards(config: Config): Promise<AdminResult> {
  const primaries = config.databases.filter(({ role }) => role !== 'replica');
  const shards = primaries.map(({ name, shard, host, port, databaseName }): Row => {
    return { database: name, shard, host, port, databaseName, state: null };
  });
  const sharded = [...new Set(primaries.filter(({ shard }) => shard > 0).map(({ name }) => name))];
  const coordinators = await Promise.all(sharded.map((name) => coordinatorOf(config, name)));
  const rows = [...shards, ...coordinators.flat()].sort((a, b) =>
    a.database === b.database
      ? (a.shard ?? Number.MAX_SAFE_INTEGER) - (b.shard ?? Number.MAX_SAFE_INTEGER)
      : a.database < b.database
        ? -1
        : 1,
  );
  return table(COLUMNS, rows);
}

async function coordinatorOf(config: Config, database: string): Promise<readonly Row[]> {
  try {
    const place = coordinatorAt(config, database, engineEndpoint(config, database));
    const state = sentence(await coordinatorState(config, database, config.general.connectTimeoutMs));
    return [{ database, shard: null, host: place.host, port: place.port, databaseName: place.database, state }];
  } catch (error) {
    // Without a schema_admin nobody can ask, and there is none.
    if (error instanceof CutoverError) return [];
    throw error;
  }
}

function sentence(state: CoordinatorState): string {
  if (!state.ready) return state.reason;
  return state.leftOut.length === 0
    ? 'in step'
    : `in step, without ${state.leftOut.map(({ object }) => object).join(', ')}`;
}
