/** One task: the foreign servers of a coordinator, one for each shard, and with which password each role reaches them. */
import { quoteIdentifier, quoteLiteral } from '../connection.js';
import { sslModeOf, type Endpoint } from '../endpoint.js';
import { shardName, type CoordinatorSpec, type CoordinatorUser, type Login } from './spec.js';

/** rows fetched at a time: 100, the default, is a journey for every hundred; 32 KB rows still fit into memory */
const FETCH_ROWS = '1000';
/**
 * postgres_fdw reads by cursors, and PostgreSQL plans those for a tenth of their rows: groups and sorts by a slow walk through an index.
 * Here all rows are read, or LIMIT says how many.
 */
const SESSION_OPTIONS = '-c cursor_tuple_fraction=1';
const CONNECT_TIMEOUT_SECONDS = '5';
const PARALLEL_COMMIT_SINCE = 150000;

/** Options by name (PostgreSQL documentation, F.38.1); `password` is not among them. */
export type ServerOptions = Readonly<Record<string, string>>;

/**
 * The options of a shard's server.
 *
 * `updatable = false` refuses every write, whatever the session's settings are: writes have ways that the fence and the record know.
 * `use_remote_estimate` stays off: it asks a shard several times for each plan; ANALYZE gives the planner what it needs once.
 *
 * @param extensions those whose immutable functions may be computed by the shard: same version on both
 */
export function serverOptions(
  endpoint: Endpoint,
  spec: Pick<CoordinatorSpec, 'serverOptions'>,
  extensions: readonly string[],
  version: number,
): ServerOptions {
  return {
    application_name: 'cutover_coordinator',
    connect_timeout: CONNECT_TIMEOUT_SECONDS,
    fetch_size: FETCH_ROWS,
    options: SESSION_OPTIONS,
    async_capable: 'true',
    keep_connections: 'on',
    // Ends a read over all shards in one journey.
    ...(version >= PARALLEL_COMMIT_SINCE ? { parallel_commit: 'true' } : {}),
    ...(extensions.length > 0 ? { extensions: extensions.join(',') } : {}),
    ...spec.serverOptions,
    host: endpoint.host,
    port: endpoint.port.toString(),
    dbname: endpoint.database,
    ...sslModeOf(endpoint),
    updatable: 'false',
    truncatable: 'false',
  };
}

export function serverSql(shard: number, options: ServerOptions): string {
  return `CREATE SERVER ${quoteIdentifier(shardName(shard))} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (${optionsSql(options)})`;
}

/** Who reads through the coordinator: the users, the engine, and the roles as which views and functions read. */
export function mappedUsers(
  spec: Pick<CoordinatorSpec, 'users' | 'shards'>,
  engineRole: string,
  definers: readonly string[],
): readonly CoordinatorUser[] {
  const named = new Map(spec.users.map((user) => [user.role, user]));
  const logins = spec.shards.map(({ user, password }) => ({ user, ...(password === undefined ? {} : { password }) }));
  for (const role of [engineRole, ...definers]) if (!named.has(role)) named.set(role, { role, logins });
  return [...named.values()];
}

/**
 * The statement holds the password: to be sent quietly, never shown.
 *
 * Without `password_required = false` PostgreSQL refuses a role that is no superuser where the shard asks for no password. The
 * danger it guards against is a role that chooses where the server's own identity goes; here none but the engine may use or alter a
 * server or a mapping, and each mapping names its user. Only a superuser may set it.
 */
export function userMappingSql(role: string, shard: number, login: Login, bySuperuser: boolean): string {
  const options = {
    user: login.user,
    ...(login.password === undefined ? {} : { password: login.password }),
    ...(bySuperuser ? { password_required: 'false' } : {}),
  };
  return `CREATE USER MAPPING FOR ${quoteIdentifier(role)} SERVER ${quoteIdentifier(shardName(shard))} OPTIONS (${optionsSql(options)})`;
}

function optionsSql(options: Readonly<Record<string, string>>): string {
  return Object.entries(options)
    .map(([name, value]) => `${quoteIdentifier(name)} ${quoteLiteral(value)}`)
    .join(', ');
}
