/** One task: say where the coordinator of a configured database is, and what it is made from. */
import { createHash } from 'node:crypto';
import type { Config } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';
import type { CoordinatorSpec, Placement, TableShape } from '../postgres/coordinator/spec.js';
import { endpointFor, engineEndpoint, type Endpoint } from '../postgres/endpoint.js';
import { partitionClause, partitionProblem, partitionsOf, type IntegerType } from './partition-sql.js';
import { ruleOf, schemeOf, type ShardingScheme } from './scheme.js';

const NAME = 'cutover_coordinator_of_';
/** NAMEDATALEN - 1 (PostgreSQL documentation, 4.1.1) */
const NAME_BYTES_MAX = 63;
const INTEGER_TYPES: ReadonlySet<string> = new Set(['smallint', 'integer', 'bigint'] satisfies IntegerType[]);

/** The coordinator of a database for a login at its shard 0: on the server that `[sharding] coordinator` names, else on shard 0's. */
export function coordinatorAt(config: Config, database: string, login: Endpoint): Endpoint {
  const { coordinator } = config.sharding;
  const server = coordinator === null ? login : primaryOf(config, coordinator, 0);
  const name = `${NAME}${primaryOf(config, database, 0).databaseName}`;
  const hash = createHash('sha256')
    .update(name)
    .digest('hex')
    .slice(0, NAME_BYTES_MAX - NAME.length);
  const { host, port } = server;
  return { ...login, host, port, database: Buffer.byteLength(name) <= NAME_BYTES_MAX ? name : `${NAME}${hash}` };
}

/** @throws CutoverError `database_unknown` | `schema_admin_missing` */
export function coordinatorSpec(config: Config, database: string): CoordinatorSpec {
  const scheme = schemeOf(config, database);
  const numbers = Array.from({ length: scheme.shards }, (_, shard) => shard);
  const users = config.users.filter((user) => user.database === database);
  const [first = 0] = numbers;
  return {
    shards: numbers.map((shard) => engineEndpoint(config, database, shard)),
    placementOf: (table) => placementOf(scheme, table),
    users: users.map((user) => ({
      role: endpointFor(config, primaryOf(config, database, first), user).user,
      logins: numbers.map((shard) => loginOf(endpointFor(config, primaryOf(config, database, shard), user))),
    })),
    ...(config.replication.pgDumpPath === undefined ? {} : { pgDumpPath: config.replication.pgDumpPath }),
  };
}

function placementOf(scheme: ShardingScheme, table: TableShape): Placement {
  const all = Array.from({ length: scheme.shards }, (_, shard) => shard);
  const rule = ruleOf(scheme, { ...table, columns: table.columns.map(({ name }) => name) });
  if (rule.kind === 'omnisharded') return 'omnisharded';
  if (rule.kind === 'shard') return { scatteredOver: [rule.shard] };
  if (rule.kind === 'schema-all' || partitionProblem(rule) !== null) return { scatteredOver: all };
  const type = table.columns.find(({ name }) => name === rule.column)?.type ?? '';
  const integerType = isIntegerType(type) ? type : undefined;
  return { partitionBy: partitionClause(rule), partitions: partitionsOf(rule, scheme.shards, integerType) };
}

function isIntegerType(type: string): type is IntegerType {
  return INTEGER_TYPES.has(type);
}

function loginOf({ user, password }: Endpoint): { user: string; password?: string } {
  return { user, ...(password === undefined ? {} : { password }) };
}

function primaryOf(config: Config, name: string, shard: number): Config['databases'][number] {
  const entry = config.databases.find((row) => row.name === name && row.shard === shard && row.role !== 'replica');
  if (entry === undefined) throw new CutoverError('database_unknown', { database: name });
  return entry;
}
