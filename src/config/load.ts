/** One task: load pgdog.toml and users.toml into a `Config`. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { CutoverError, messageOf } from '../errors/errors.js';
import { decodeUtf8 } from './document.js';
import { checkDatabases, databaseEntries } from './databases.js';
import { generalFromEnvironment, type Environment } from './environment.js';
import { cutoverConfig, generalConfig } from './general.js';
import { loggingConfig, monitoringConfig } from './monitoring.js';
import { nodeEntries } from './nodes.js';
import { replicaConfig } from './replicas.js';
import { checkSource, type Source } from './source.js';
import { CONFIG_FILE, USERS_FILE, type AdminKeys, type GeneralKeys, type UserKeys } from './schema.js';
import { shardingConfig } from './sharding-rows.js';
import { tcpConfig } from './tcp.js';
import { tlsConfig } from './tls.js';
import { userEntries } from './users.js';
import { ignoredKeys } from './warnings.js';
import type { AdminConfig, Config, TemporalConfig } from './config.js';

export interface ConfigFiles {
  /** path of pgdog.toml */
  readonly config: string;
  /** path of users.toml */
  readonly users: string;
}

export interface LoadOptions {
  /** `process.env` unless told */
  readonly environment?: Environment;
  /** the password in force where none is configured: pass the one of the running process when loading again */
  readonly adminPassword?: string;
}

/** Values of passthrough_auth that mean nothing to a client in plain text. */
const OVER_TLS_ONLY = new Set<GeneralKeys['passthrough_auth']>(['enabled', 'enabled_allow_change']);
const TASK_QUEUE = 'cutover';
const GENERATED_PASSWORD_BYTES = 18;

/**
 * Reads both files. May be called again (RELOAD); nothing is kept between calls.
 *
 * @throws CutoverError `configuration_invalid` | `environment_invalid`
 */
export function loadConfig(files: ConfigFiles, options: LoadOptions = {}): Config {
  const read = (file: string): Source => ({ file, text: readText(file) });
  return { ...parseConfig(read(files.config), read(files.users), options), files: { ...files } };
}

/** The same from texts; `files` is null. */
export function parseConfig(configSource: Source, usersSource: Source, options: LoadOptions = {}): Config {
  const config = checkSource(configSource, CONFIG_FILE);
  const users = checkSource(usersSource, USERS_FILE);
  const warnings = [...ignoredKeys(config), ...ignoredKeys(users)];
  const warn = (sentence: string): void => void warnings.push(sentence);
  const general: GeneralKeys = {
    ...generalFromEnvironment(options.environment ?? process.env),
    ...withoutAlias(config.data.general ?? {}, (problem) => config.invalid(['general', 'max_pool_size'], problem)),
  };
  const admin = adminConfig(users.data.admin ?? config.data.admin ?? {}, options.adminPassword);
  // Without a trace in a log or file no one knows a generated password; saying so beats a login that fails for no reason.
  if (!admin.passwordConfigured) warn('[admin] has no password: until one is set no one can use the admin database');
  const databases = databaseEntries(config);
  const tls = tlsConfig(general, (key, problem) => config.invalid(['general', key], problem), warn);
  checkDatabases(config, databases, { adminName: admin.name, asked: general.lsn_check_delay !== undefined }, warn);
  if (OVER_TLS_ONLY.has(general.passthrough_auth) && tls.clients === null)
    warn('"passthrough_auth" has no effect without "tls_certificate": in plain text only the values with "plain" ask');
  if ((general.auth_type ?? 'scram') === 'scram' && users.data.users?.some(hasMd5Only) === true)
    warn('a "password_hash" of md5 lets nobody in with auth_type = "scram": it proves nothing there');
  if (general.prepared_statements === 'disabled')
    warn('"prepared_statements = disabled" has no effect: what a client has prepared is there on each of its servers');
  return {
    general: generalConfig(general),
    tls,
    tcp: tcpConfig(config.data.tcp ?? {}),
    cutover: cutoverConfig(general, warn),
    logging: loggingConfig(general, warn),
    monitoring: monitoringConfig(general, warn),
    databases,
    replicas: replicaConfig(general, warn),
    sharding: shardingConfig(config, databases, warn),
    users: userEntries(users, databases, tls.clients?.authority !== undefined, warn),
    admin,
    nodes: nodeEntries(config),
    temporal: temporalConfig(config.data.temporal ?? {}),
    replication:
      config.data.replication?.pg_dump_path === undefined ? {} : { pgDumpPath: config.data.replication.pg_dump_path },
    files: null,
    warnings,
  };
}

function hasMd5Only({ password, passwords, password_hash: hash }: UserKeys): boolean {
  return hash?.startsWith('md5') === true && password === undefined && (passwords ?? []).length === 0;
}

function readText(file: string): string {
  try {
    return decodeUtf8(readFileSync(file));
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? messageOf(error);
    throw new CutoverError('configuration_invalid', { file, line: 1, problem: `cannot be read (${reason})` });
  }
}

/** `max_pool_size` is PgDog's alias of `default_pool_size`; only one of them may be there. */
function withoutAlias(general: GeneralKeys, invalid: (problem: string) => CutoverError): GeneralKeys {
  const { max_pool_size: alias, ...rest } = general;
  if (alias === undefined) return rest;
  if (rest.default_pool_size !== undefined)
    throw invalid('"max_pool_size" is another name of "default_pool_size": keep one');
  return { ...rest, default_pool_size: alias };
}

function adminConfig(keys: AdminKeys, passwordInForce: string | undefined): AdminConfig {
  const generated = (): string => passwordInForce ?? randomBytes(GENERATED_PASSWORD_BYTES).toString('base64url');
  return {
    name: keys.name ?? 'admin',
    user: keys.user ?? 'admin',
    password: keys.password ?? generated(),
    passwordConfigured: keys.password !== undefined,
  };
}

function temporalConfig(keys: {
  address?: string | undefined;
  namespace?: string | undefined;
  task_queue?: string | undefined;
}): TemporalConfig {
  return {
    ...(keys.address === undefined ? {} : { address: keys.address }),
    ...(keys.namespace === undefined ? {} : { namespace: keys.namespace }),
    taskQueue: keys.task_queue ?? TASK_QUEUE,
  };
}
