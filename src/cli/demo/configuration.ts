/** One task: write the pgdog.toml and users.toml with which the proxy serves databases. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConfigFiles } from '../../config/load.js';
import { freePort, LOOPBACK } from '../../dev/ports.js';
import type { Endpoint } from '../../postgres/endpoint.js';

export interface ServedDatabase {
  /** the name applications connect to */
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly databaseName: string;
  /** absent: it has one shard */
  readonly shard?: number;
}

export interface Login {
  readonly name: string;
  readonly password: string;
  /** the engine's own connections use this user */
  readonly schemaAdmin: boolean;
}

export interface Configuration {
  readonly files: ConfigFiles;
  readonly port: number;
  /** the admin database, as psql connects to it */
  readonly admin: Endpoint;
}

export interface FurtherKeys {
  /** lines of [general] */
  readonly general?: readonly string[];
  readonly temporal?: { readonly address: string; readonly namespace: string };
  readonly shardedTables?: readonly ShardedTables[];
}

/** All tables of a database that have the column. */
interface ShardedTables {
  readonly database: string;
  readonly column: string;
  readonly dataType: string;
}

/** Writes both files into `folder`, readable by their owner alone, with every user on every database. */
export async function writeConfiguration(
  folder: string,
  databases: readonly ServedDatabase[],
  logins: readonly Login[],
  further: FurtherKeys = {},
): Promise<Configuration> {
  const port = await freePort();
  const password = randomPassword();
  const files = { config: join(folder, 'pgdog.toml'), users: join(folder, 'users.toml') };
  const { general = [], temporal, shardedTables = [] } = further;
  const generalText = section('[general]', [`host = ${quoted(LOOPBACK)}`, `port = ${port.toString()}`, ...general]);
  const temporalText = temporal === undefined ? [] : [temporalSection(temporal)];
  const names = `[${[...new Set(databases.map(({ name }) => quoted(name)))].join(', ')}]`;
  const userText = (login: Login): string => section('[[users]]', userLines(login, names));
  const adminText = section('[admin]', [`password = ${quoted(password)}`]);
  const mode = 0o600;
  const config = [generalText, ...temporalText, ...databases.map(databaseText), ...shardedTables.map(shardedText)];
  writeFileSync(files.config, config.join('\n\n') + '\n', { mode });
  writeFileSync(files.users, [...logins.map(userText), adminText].join('\n\n') + '\n', { mode });
  return { files, port, admin: { host: LOOPBACK, port, database: 'admin', user: 'admin', password } };
}

/** A password nobody has to know. */
export function randomPassword(): string {
  return randomBytes(12).toString('hex');
}

function temporalSection({ address, namespace }: { readonly address: string; readonly namespace: string }): string {
  return section('[temporal]', [`address = ${quoted(address)}`, `namespace = ${quoted(namespace)}`]);
}

function databaseText({ name, host, port, databaseName, shard = 0 }: ServedDatabase): string {
  return section('[[databases]]', [
    `name = ${quoted(name)}`,
    `host = ${quoted(host)}`,
    `port = ${port.toString()}`,
    `database_name = ${quoted(databaseName)}`,
    ...(shard > 0 ? [`shard = ${shard.toString()}`] : []),
  ]);
}

function shardedText({ database, column, dataType }: ShardedTables): string {
  return section('[[sharded_tables]]', [
    `database = ${quoted(database)}`,
    `column = ${quoted(column)}`,
    `data_type = ${quoted(dataType)}`,
  ]);
}

function userLines({ name, password, schemaAdmin }: Login, databases: string): readonly string[] {
  return [
    `name = ${quoted(name)}`,
    `password = ${quoted(password)}`,
    `databases = ${databases}`,
    ...(schemaAdmin ? ['schema_admin = true'] : []),
  ];
}

function section(heading: string, lines: readonly string[]): string {
  return [heading, ...lines].join('\n');
}

/** A basic string of TOML 1.0, whose escapes include all of JSON's. */
function quoted(text: string): string {
  return JSON.stringify(text);
}
