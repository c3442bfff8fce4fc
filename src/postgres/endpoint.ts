/** One task: say where a PostgreSQL database is and with which role to reach it. */
import type { Config, DatabaseEntry, ScramKeys, UserEntry } from '../config/config.js';
import { automaticRows } from '../config/replicas.js';
import type { ServerTls } from '../config/tls.js';
import { CutoverError } from '../errors/errors.js';

/** A server address with credentials. Held in memory only: never logged, never put into a workflow. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  /** further servers of its cluster, where it is left open which of all is the primary: connect() finds out, each time */
  readonly others?: readonly { readonly host: string; readonly port: number }[];
  readonly database: string;
  readonly user: string;
  readonly password?: string;
  /** in the place of a password where the server asks for SCRAM */
  readonly keys?: ScramKeys;
  /** absent: plain text */
  readonly tls?: ServerTls;
  /** silence after which TCP asks whether the server is there; null: never, absent: the default of `[tcp]` */
  readonly keepAliveMs?: number | null;
}

/** `host:port/database`, safe to print. */
export function addressOf(endpoint: Endpoint): string {
  return `${endpoint.host}:${endpoint.port.toString()}/${endpoint.database}`;
}

/** The endpoint through which the proxy serves `user` on `entry`. */
export function endpointFor(config: Config, entry: DatabaseEntry, user: UserEntry): Endpoint {
  const password = entry.password ?? user.serverPassword ?? user.passwords[0];
  return {
    host: entry.host,
    port: entry.port,
    database: entry.databaseName,
    user: entry.user ?? user.serverUser ?? user.name,
    ...(password === undefined ? {} : { password }),
    ...(password === undefined && user.serverKeys && { keys: user.serverKeys }),
    tls: config.tls.servers,
    keepAliveMs: config.tcp.keepAliveMs,
  };
}

/**
 * The endpoint the engine uses for the primary of shard `shard` of database `name`.
 *
 * @throws CutoverError `database_unknown` | `schema_admin_missing`
 */
export function engineEndpoint(config: Config, name: string, shard = 0): Endpoint {
  const entry = config.databases.find((d) => d.name === name && d.shard === shard && d.role !== 'replica');
  if (!entry) throw new CutoverError('database_unknown', { database: name });
  const admin = config.users.find((u) => u.database === name && u.schemaAdmin);
  if (!admin) throw new CutoverError('schema_admin_missing', { database: name });
  const [, ...others] = automaticRows(config.databases, name, shard);
  const endpoint = endpointFor(config, entry, admin);
  return others.length === 0 ? endpoint : { ...endpoint, others: others.map(({ host, port }) => ({ host, port })) };
}

/**
 * One short text that is equal for two endpoints whose servers are verified alike. A connection made by another rule is not to be used
 * again; a renewed certificate of one's own changes nothing about it.
 */
export function tlsRuleOf({ tls }: Endpoint): string {
  return tls === undefined ? 'disabled' : `${tls.verify} ${tls.authority?.pem ?? ''}`;
}

/**
 * libpq's `sslmode` for a server that connects by itself. Where servers are verified, what goes between two of them is encrypted too; the
 * authority that could verify them would have to lie on each server. Else libpq's own default, which is TLS where it is offered.
 */
export function sslModeOf({ tls }: Endpoint): Readonly<Record<string, string>> {
  return tls?.verify === 'verify_ca' || tls?.verify === 'verify_full' ? { sslmode: 'require' } : {};
}

/**
 * The endpoint as a libpq connection string, for a server that connects by itself: single quotes, backslash escapes
 * (PostgreSQL documentation, 32.1.1.1). It holds the password: for a statement sent quietly, never for a log.
 */
export function conninfoOf(endpoint: Endpoint, options: Readonly<Record<string, string>>): string {
  const parts: Record<string, string> = {
    host: endpoint.host,
    port: endpoint.port.toString(),
    dbname: endpoint.database,
    user: endpoint.user,
    ...sslModeOf(endpoint),
    ...options,
    ...(endpoint.password === undefined ? {} : { password: endpoint.password }),
  };
  return Object.entries(parts)
    .map(([key, value]) => `${key}='${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`)
    .join(' ');
}
